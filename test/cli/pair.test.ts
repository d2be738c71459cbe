import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { HoldfastError } from '../../src/errors.ts';
import type { ModuleStatus, PairStatus } from '../../src/host/face.ts';
import { cli, eventRecord, FakeNode, moduleStatus, nowMs, replicaStatus } from './fake.ts';

function pairStatus(change: Partial<PairStatus> = {}): PairStatus {
  return {
    role: 'primary',
    phase: 'prim',
    record: { incarnation: 1, epoch: 7, primary: 'n1', inSync: ['n1', 'n2'] },
    promised: 7,
    copy: 'inSync',
    arbiter: { text: 'witness w1 (10.0.0.9:9530)', state: 'ok', why: '' },
    lease: { rule: 'peer', held: true },
    peer: { node: 'n2', reach: 'both', state: 'SECOND', readiness: 'Ready' },
    failover: true,
    defaultPrim: 'alone',
    home: null,
    vip: { addrs: ['10.0.0.100'], open: true, device: 'eth0', hook: 'tc' },
    ...change,
  };
}

const mirror = (
  pair: Partial<PairStatus> | null = {},
  change: Partial<ModuleStatus> = {},
): ModuleStatus =>
  moduleStatus({
    name: 'db',
    mode: 'mirror',
    state: 'PRIM',
    farm: null,
    resources: {},
    replica: replicaStatus(),
    pair: pair === null ? null : pairStatus(pair),
    ...change,
  });

/** Both servers of a mirror; n1 is asked. */
function servers(one: ModuleStatus = mirror(), two: ModuleStatus = mirror()) {
  const cluster = new Map<string, FakeNode>();
  const n1 = new FakeNode('n1', cluster);
  const n2 = new FakeNode('n2', cluster);
  n1.modulesHere = [one];
  n2.modulesHere = [two];
  return { n1, n2 };
}

const away = (): HoldfastError =>
  new HoldfastError('HF-PEER-001', { node: 'n2', reason: 'no route', port: 9453 });

const asked = (node: FakeNode, what: string): unknown[][] =>
  node.asked.filter(([first]) => first === what);

describe('swap', () => {
  for (const [args, want] of [
    [['swap'], ['swap', 'db', true]],
    [
      ['swap', 'db'],
      ['swap', 'db', true],
    ],
    [
      ['swap', 'nosync'],
      ['swap', 'db', false],
    ],
    [
      ['swap', 'nosync', 'db'],
      ['swap', 'db', false],
    ],
    [
      ['swap', 'nosync', '-m', 'db'],
      ['swap', 'db', false],
    ],
  ] as const) {
    test(args.join(' '), async () => {
      const { n1 } = servers(mirror({ role: 'secondary' }, { state: 'SECOND' }));
      const { code, out } = await cli(n1, args);
      assert.equal(code, 0);
      assert.deepEqual(n1.asked.at(-1), want);
      assert.equal(out, 'db  SECOND (Ready)\n');
    });
  }

  test('another word before the module is refused', async () => {
    const { n1 } = servers();
    const { code, err } = await cli(n1, ['swap', 'no-sync', 'db']);
    assert.equal(code, 64);
    assert.match(err, /HF-CLI-005.*"no-sync" is not nosync/);
    assert.deepEqual(asked(n1, 'swap'), []);
  });
});

describe('failover', () => {
  test('goes to both servers', async () => {
    const { n1, n2 } = servers(mirror({ failover: false }), mirror({ failover: false }));
    const { code, out } = await cli(n1, ['failover', 'off']);
    assert.equal(code, 0);
    assert.deepEqual(asked(n1, 'failover'), [['failover', 'db', false]]);
    assert.deepEqual(asked(n2, 'failover'), [['failover', 'db', false]]);
    assert.equal(out, 'n1: db  PRIM (Ready)  failover off\nn2: db  PRIM (Ready)  failover off\n');
  });

  test('says what the other server keeps when it is away', async () => {
    const { n1, n2 } = servers();
    n2.failure = away();
    const { code, out, err } = await cli(n1, ['failover', 'on', 'db']);
    assert.equal(code, 69);
    assert.equal(out, 'n1: db  PRIM (Ready)  failover on\n');
    assert.match(err, /HF-PEER-001.*\n.*\nn2 keeps what it had/);
    const json = await cli(n1, ['failover', 'on', '--json']);
    const [first, second] = JSON.parse(json.out) as { node: string; error?: { code: string } }[];
    assert.deepEqual([first?.node, second?.node, second?.error?.code], ['n1', 'n2', 'HF-PEER-001']);
  });

  test('is for those that -H names', async () => {
    const { n1, n2 } = servers();
    await cli(n1, ['failover', 'off', '-H', 'n2']);
    assert.deepEqual(asked(n1, 'failover'), []);
    assert.equal(asked(n2, 'failover').length, 1);
  });

  test('needs on or off', async () => {
    const { code, err } = await cli(servers().n1, ['failover', 'yes']);
    assert.equal(code, 64);
    assert.match(err, /"yes" is not on or off/);
  });
});

describe('primforce', () => {
  const record = { incarnation: 1, epoch: 9, primary: 'n2', inSync: ['n2'] };
  const stale = () =>
    mirror(
      { role: 'none', record, peer: { node: 'n2', reach: 'silent', state: null, readiness: null } },
      {
        state: 'WAIT',
        readiness: 'NotReady',
        replica: replicaStatus({ role: 'second', epoch: 8, engine: { durable: '100' } }),
      },
    );

  test('says what is given up, and goes on with yes', async () => {
    const { n1, n2 } = servers(stale());
    n2.failure = away();
    const { code, err } = await cli(n1, ['primforce'], { answer: 'yes' });
    assert.equal(code, 0);
    assert.deepEqual(n1.asked.at(-1), ['prim', 'db', false, true]);
    assert.match(err, /here, n1: WAIT \(NotReady\), epoch 8, copy: whole, last change 100/);
    assert.match(err, /there, n2: does not answer/);
    assert.match(err, /register: epoch 9, primary n2, up to date: n2/);
    assert.match(err, /GIVEN UP: all that n2 acknowledged alone/);
    assert.match(err, /How much that is cannot be asked/);
  });

  test('counts what the other one has more', async () => {
    const there = mirror(
      { role: 'none', record },
      { replica: replicaStatus({ engine: { last: '142', dirty_bytes: '8192' } }) },
    );
    const { n1 } = servers(stale(), there);
    const { err } = await cli(n1, ['primforce', '--yes']);
    assert.match(err, /That is 42 changes/);
    assert.match(err, /8192 bytes of files differ by what n2 noted/);
    assert.equal(asked(n1, 'prim').length, 1);
  });

  test('says what this copy is by itself', async () => {
    for (const [copy, says] of [
      ['none', /There is no copy on this server/],
      ['inconsistent', /goes back to its last whole state first/],
      ['failed', /Mend the disk first/],
    ] as const) {
      const { n1 } = servers(mirror({ role: 'none', record, copy }), mirror({ role: 'none' }));
      assert.match((await cli(n1, ['primforce', '--yes'])).err, says);
      assert.match((await cli(n1, ['status', 'db'])).out, /own copy +\w/);
    }
  });

  test('any other answer does nothing', async () => {
    for (const answer of ['', 'no', 'y']) {
      const { n1 } = servers(stale());
      const { code, err } = await cli(n1, ['primforce'], { answer });
      assert.equal(code, 1);
      assert.match(err, /HF-CLI-012/);
      assert.deepEqual(asked(n1, 'prim'), []);
    }
  });

  test('where nobody can be asked, --yes is needed', async () => {
    const { n1 } = servers(stale());
    const { code, err } = await cli(n1, ['primforce']);
    assert.equal(code, 1);
    assert.match(err, /n2 is primary now[^]*HF-CLI-011/);
    assert.match((await cli(n1, ['primforce', '--json'])).err, /"HF-CLI-011"/);
    assert.deepEqual(asked(n1, 'prim'), []);
  });

  test('a copy that is up to date gives nothing up', async () => {
    const { n1 } = servers(mirror({ role: 'none' }, { state: 'WAIT' }), mirror({ role: 'none' }));
    const { err } = await cli(n1, ['primforce', '--yes']);
    assert.match(err, /Nothing that was acknowledged is given up: n1 is up to date in epoch 7/);
  });

  test('a server that is primary now is named', async () => {
    const { n1 } = servers(stale(), mirror({ role: 'primary', record }));
    const { err } = await cli(n1, ['primforce', '--yes']);
    assert.match(err, /n2 is primary now: this order will be refused/);
  });

  test('prim --force does not go around the question', async () => {
    for (const option of ['--force', '--alone']) {
      const { n1 } = servers(stale());
      const { code, err } = await cli(n1, ['prim', option]);
      assert.equal(code, 64);
      assert.match(err, /HF-CLI-013.*\nhint: `holdfast primforce -m db`/);
      assert.deepEqual(asked(n1, 'prim'), []);
    }
  });
});

describe('what a mirror that decides shows', () => {
  test('status and why name the arbiter, the register and the other server', async () => {
    const { n1 } = servers();
    const { out } = await cli(n1, ['status', 'db']);
    assert.match(out, /arbiter +witness w1 \(10.0.0.9:9530\), answers\n/);
    assert.match(out, /register +epoch 7, primary n1, up to date: n1 and n2\n/);
    assert.match(out, /other server +n2 SECOND \(Ready\), heard\n/);
    assert.match(out, /address +10.0.0.100 open on eth0 \(tc\)\n/);
    assert.match(out, /lease +runs while n2 consents\n/);
    assert.doesNotMatch(out, /failover|default primary/);
    n1.whyLines = ['synced writes wait for n2'];
    const why = await cli(n1, ['why', 'db']);
    assert.match(
      why.out,
      /^db {2}PRIM \(Ready\)\n {2}synced writes wait for n2 \[HF-MIRROR-140\]\n {4}hint: .*\n {2}\(arbiter: /,
    );
    assert.match((await cli(n1, ['status'])).out, /db +mirror +PRIM \(Ready\) +yes +with n2/);
  });

  test('what is not as it should be', async () => {
    const { n1 } = servers(
      mirror({
        record: null,
        arbiter: { text: 'witness w1', state: 'silent', why: 'no route' },
        peer: { node: 'n2', reach: 'unknown', state: null, readiness: null },
        lease: { rule: 'own', held: false },
        failover: false,
        defaultPrim: 'lastprim',
        home: 'n2',
        vip: { addrs: ['10.0.0.100'], open: true, device: null, hook: null },
      }),
    );
    const { out } = await cli(n1, ['status', 'db']);
    assert.match(out, /witness w1, DOES NOT ANSWER: no route\n/);
    assert.match(out, /register +empty: nobody was primary yet\n/);
    assert.match(out, /other server +n2 not heard yet\n/);
    assert.match(out, /lease +RAN OUT: the address is silent \(while this agent lives\)\n/);
    assert.match(out, /failover +off/);
    assert.match(out, /default primary +lastprim, now n2\n/);
    assert.match((await cli(n1, ['status'])).out, /db +mirror +PRIM \(Ready\) +no +with n2/);
  });
});

describe('timing', () => {
  test('is of a module, or of a profile', async () => {
    const { n1 } = servers();
    n1.timingRows = [
      { of: 'cluster', name: 'lease', ms: 150, meaning: 'one' },
      { of: 'mirror db', name: 'lease', ms: 1500, meaning: 'two' },
    ];
    const { out } = await cli(n1, ['timing', '-m', 'db', '--profile', 'wan']);
    assert.deepEqual(n1.asked.at(-1), ['timing', { module: 'db', profile: 'wan' }]);
    assert.match(out, /^cluster\n {2}DEADLINE.*\n {2}lease.*\n\nmirror db\n {2}DEADLINE/);
    const { code, err } = await cli(n1, ['timing', '--profile', 'slow']);
    assert.equal(code, 64);
    assert.match(err, /"slow" is not one of fast, default, vm, wan/);
  });
});

describe('events of several nodes', () => {
  const at = (node: string, seq: number, ms: number) => ({
    ...eventRecord(seq, `${node} ${seq}`, 'db'),
    node,
    wallMs: nowMs + ms,
  });
  const texts = (out: string): string[] =>
    out
      .trimEnd()
      .split('\n')
      .map((line) => line.slice(-4));

  test('come in the order of time, each node in its own', async () => {
    const { n1, n2 } = servers();
    n1.journal = [at('n1', 1, 0), at('n1', 2, 20), at('n1', 3, 5)];
    n2.journal = [at('n2', 1, 10), at('n2', 2, 30)];
    const { code, out } = await cli(n1, ['events', '-H', '*']);
    assert.equal(code, 0);
    // The clock of n1 was set back after its second event.
    assert.deepEqual(texts(out), ['n1 1', 'n2 1', 'n1 2', 'n1 3', 'n2 2']);
    assert.deepEqual(texts((await cli(n1, ['events', '-H', 'n1,n2', '-n', '2'])).out), [
      'n1 3',
      'n2 2',
    ]);
  });

  test('one that does not answer hides nothing', async () => {
    const { n1, n2 } = servers();
    n1.journal = [at('n1', 1, 0)];
    n2.failure = away();
    const { code, out, err } = await cli(n1, ['events', '-H', '*', '--json']);
    assert.equal(code, 69);
    assert.equal((JSON.parse(out) as unknown[]).length, 1);
    assert.match(err, /HF-PEER-001/);
  });
});
