import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { HoldfastError } from '../../src/errors.ts';
import type { DistantStatus, ModuleStatus } from '../../src/host/face.ts';
import { cli, FakeNode, moduleStatus, replicaStatus } from './fake.ts';

const mirror = (change: Parameters<typeof moduleStatus>[0] = {}) =>
  moduleStatus({
    name: 'db',
    mode: 'mirror',
    state: 'PRIM',
    farm: null,
    replica: replicaStatus(),
    resources: {},
    ...change,
  });

function node(change: Parameters<typeof mirror>[0] = {}): FakeNode {
  const made = new FakeNode('n1');
  made.modulesHere = [mirror(change)];
  return made;
}

describe('prim and second', () => {
  test('prim', async () => {
    const n1 = node();
    const { code, out } = await cli(n1, ['prim', '-m', 'db']);
    assert.deepEqual(n1.asked.at(-1), ['prim', 'db', false, false]);
    assert.equal(out, 'db  PRIM (Ready)\n');
    assert.equal(code, 0);
  });

  test('going on alone is confirmed by an option', async () => {
    const n1 = node();
    await cli(n1, ['prim', 'db', '--alone']);
    assert.deepEqual(n1.asked.at(-1), ['prim', 'db', true, false]);
    n1.failure = new HoldfastError('HF-MIRROR-008', { module: 'db', node: 'n2' });
    const { code, err } = await cli(n1, ['prim', 'db']);
    assert.equal(code, 1);
    assert.match(
      err,
      /going on alone means .* on this server only\nhint: .*`holdfast prim -m db --alone`/,
    );
  });

  test('prim is for one node', async () => {
    const { code, err } = await cli(node(), ['prim', 'db', '-H', '*']);
    assert.equal(code, 64);
    assert.match(err, /HF-CLI-008/);
  });

  test('second', async () => {
    const n1 = node({ state: 'SECOND' });
    const { out } = await cli(n1, ['second']);
    assert.deepEqual(n1.asked.at(-1), ['second', 'db', 'plain']);
    assert.equal(out, 'db  SECOND (Ready)\n');
  });

  test('an older copy becomes primary by force alone', async () => {
    const n1 = node();
    await cli(n1, ['prim', 'db', '--force']);
    assert.deepEqual(n1.asked.at(-1), ['prim', 'db', false, true]);
  });

  test('what the copy of a secondary is taken for', async () => {
    for (const args of [['fullsync', '-m', 'db'], ['fullsync', 'db'], ['fullsync']]) {
      const n1 = node({ state: 'SECOND' });
      await cli(n1, ['second', ...args]);
      assert.deepEqual(n1.asked.at(-1), ['second', 'db', 'fullsync'], args.join(' '));
    }
    const n1 = node({ state: 'SECOND' });
    await cli(n1, ['second', 'discard', '-m', 'db']);
    assert.deepEqual(n1.asked.at(-1), ['second', 'db', 'discard']);
    await cli(n1, ['second', 'db']);
    assert.deepEqual(n1.asked.at(-1), ['second', 'db', 'plain']);
    const { code, err } = await cli(n1, ['second', 'full', 'db']);
    assert.equal(code, 64);
    assert.match(err, /fullsync or discard/);
  });
});

describe('verify', () => {
  test('equal', async () => {
    const n1 = node();
    n1.verified = {
      running: false,
      figures: { files: 12, bytes: 4096 },
      differences: [],
      differing: 0,
    };
    const { code, out } = await cli(n1, ['verify', '-m', 'db']);
    assert.equal(out, 'db: equal (files 12, bytes 4096, differences 0; 0 ms)\n');
    assert.equal(code, 0);
  });

  test('differences are printed, and are exit code 3', async () => {
    const n1 = node();
    const differences = [
      { path: '/srv/data/a', what: 'data', offset: '65536', errno: '0' },
      { path: '/srv/data/b', what: 'attributes', offset: '0', errno: '116' },
      ...Array.from({ length: 60 }, (_, i) => ({ path: `/f${i}`, what: 'entries' })),
    ];
    n1.verified = { running: false, figures: {}, differences, differing: 1070 };
    const { code, out } = await cli(n1, ['verify']);
    const lines = out.split('\n');
    assert.equal(lines[0], '  /srv/data/a  data from byte 65536 on');
    assert.equal(lines[1], '  /srv/data/b  attributes (ESTALE)');
    assert.equal(lines[50], '  and 1020 more');
    assert.equal(lines[51], 'db: 1070 differences (differences 1070; 0 ms)');
    assert.equal(code, 3);
    const json = await cli(n1, ['verify', '--json']);
    assert.deepEqual(JSON.parse(json.out), n1.verified);
    assert.equal(json.code, 3);
  });

  test('a refusal is exit code 1', async () => {
    const n1 = node();
    n1.failure = new HoldfastError('HF-MIRROR-011', { module: 'db', state: 'SECOND' });
    assert.equal((await cli(n1, ['verify', 'db'])).code, 1);
  });
});

describe('status of a mirror', () => {
  test('in the table of modules', async () => {
    const n1 = node();
    assert.match((await cli(n1, ['status'])).out, /^db +mirror +PRIM \(Ready\) +with n2$/m);
    n1.modulesHere = [mirror({ replica: replicaStatus({ peerState: 'lost' }) })];
    assert.match((await cli(n1, ['status'])).out, /^db .* n2 lost$/m);
    n1.modulesHere = [mirror({ replica: replicaStatus({ peerState: 'lost', alone: true }) })];
    assert.match((await cli(n1, ['status'])).out, /^db .* without n2$/m);
  });

  test('of one module', async () => {
    const { out } = await cli(node(), ['status', 'db']);
    assert.match(out, /^ {2}peer +n2 connected$/m);
    assert.match(out, /^ {2}epoch +3$/m);
    assert.match(out, /^ {2}directory +\/srv\/data$/m);
    assert.match(out, /^ {2}changes +last 120, durable on n2 118, applied 110$/m);
    assert.doesNotMatch(out, /resend/);
  });

  test('with its distant copies', async () => {
    const copy: DistantStatus = {
      node: 'dr1',
      state: 'connected',
      reason: '',
      inSync: true,
      isKnown: true,
      lagBytes: 0,
      lagMs: 0,
      resync: null,
      sentBytes: 9,
      diverted: 0,
    };
    const shown = async (...distant: DistantStatus[]): Promise<readonly string[]> => {
      const n1 = node();
      n1.modulesHere = [mirror({ replica: replicaStatus({ distant }) })];
      const row = /^db .*\) +(.*)$/m.exec((await cli(n1, ['status'])).out)?.[1] ?? '';
      const { out } = await cli(n1, ['status', 'db']);
      return [
        row,
        ...(/^ {2}distant copy +(.*(?:\n {10}.*)*)$/m.exec(out)?.[1] ?? '').split(/\n +/),
      ];
    };
    assert.deepEqual(await shown(copy), ['with n2, dr1 in sync', 'dr1 in sync; has all']);
    const behind = { ...copy, lagBytes: 4096, lagMs: 90_500 };
    assert.deepEqual(await shown({ ...behind, state: 'lost', diverted: 1 }), [
      'with n2, dr1 lost',
      'dr1 lost; lacks 4.0 KiB, changes of the last 1 min 30 s',
      '1 change found no room in its ring',
    ]);
    const resync = { kind: 'dirty', leftBytes: 2048, bytesPerS: 1024 };
    assert.deepEqual(await shown({ ...behind, inSync: false, resync }), [
      'with n2, dr1 resync',
      'dr1 resync; lacks 4.0 KiB, changes of the last 1 min 30 s',
      'what was changed meanwhile: 2.0 KiB to go, 1.0 KiB/s',
    ]);
    const reason = 'it is no secondary';
    assert.deepEqual(await shown({ ...copy, state: 'refused', reason }), [
      'with n2, dr1 refused',
      'dr1 refused (it is no secondary); has all',
    ]);
    assert.deepEqual(await shown({ ...behind, inSync: false, isKnown: false }), [
      'with n2, dr1 resync',
      'dr1 resync; lacks an amount that is not known, changes of the last 1 min 30 s',
    ]);
    assert.deepEqual(await shown({ ...copy, state: 'lost', lagMs: 3000 }), [
      'with n2, dr1 lost',
      'dr1 lost; lacks an amount that is not known, changes of the last 3 s',
    ]);
    const none: DistantStatus = { ...copy, state: 'none' };
    assert.deepEqual(await shown(none), ['with n2, dr1 unknown', 'dr1 not known']);
    const json = node();
    json.modulesHere = [mirror({ replica: replicaStatus({ distant: [copy] }) })];
    const { out } = await cli(json, ['status', 'db', '--json']);
    assert.deepEqual((JSON.parse(out) as ModuleStatus).replica?.distant, [copy]);
  });

  test('on the server of a distant copy', async () => {
    const n1 = node({ state: 'SECOND' });
    const behind = {
      primary: 'n2',
      isKnown: true,
      inRun: false,
      bytes: 4096,
      ms: 2000,
      ageMs: 3000,
    };
    const replica = replicaStatus({ role: 'second', behind });
    n1.modulesHere = [mirror({ state: 'SECOND', replica })];
    const said = 'lacks 4.0 KiB, changes of the last 2 s, as n2 said 3 s ago';
    assert.match(
      (await cli(n1, ['status', 'db'])).out,
      new RegExp(`^ {2}distant copy +${said}$`, 'm'),
    );
  });

  test('with all that the engine says', async () => {
    const n1 = node();
    assert.match(
      (await cli(n1, ['status', 'db', '--detail'])).out,
      /engine features +io_uring,resend/,
    );
    assert.match((await cli(n1, ['status', '--detail'])).out, /engine features +io_uring,resend/);
  });

  test('its exit code with -q is the state', async () => {
    for (const [state, code] of [
      ['STOP', 0],
      ['WAIT', 1],
      ['ALONE', 2],
      ['PRIM', 3],
      ['SECOND', 4],
    ] as const) {
      assert.equal((await cli(node({ state }), ['status', '-q', '-m', 'db'])).code, code);
    }
  });
});
