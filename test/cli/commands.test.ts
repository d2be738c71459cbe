import assert from 'node:assert/strict';
import { mkdtemp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { HoldfastError } from '../../src/errors.ts';
import { cli, eventRecord, FakeNode, farmStatus, moduleStatus } from './fake.ts';

function asked(node: FakeNode, what: string): unknown[][] {
  return node.asked.filter(([name]) => name === what);
}

describe('commands that carry a module from state to state', () => {
  for (const verb of ['start', 'stop', 'restart', 'stopstart', 'forcestop']) {
    test(verb, async () => {
      const node = new FakeNode('n1');
      const { code, out, err } = await cli(node, [verb, 'web']);
      assert.deepEqual(asked(node, 'command'), [['command', 'web', verb]]);
      assert.equal(out, 'web  UP (Ready)\n');
      assert.equal(err, '');
      assert.equal(code, 0);
    });
  }

  test('the module is an argument, an option, or the only one of the node', async () => {
    const node = new FakeNode('n1');
    await cli(node, ['start', '-m', 'web']);
    await cli(node, ['start']);
    assert.deepEqual(asked(node, 'command'), [
      ['command', 'web', 'start'],
      ['command', 'web', 'start'],
    ]);
  });

  test('where there are several modules, one must be named', async () => {
    const node = new FakeNode('n1');
    node.modulesHere = [moduleStatus(), moduleStatus({ name: 'db' })];
    const { code, err } = await cli(node, ['start']);
    assert.equal(code, 64);
    assert.match(err, /^error\[HF-CLI-001\] which module\? this node has web, db\nhint: .*`-m/);
    assert.deepEqual(asked(node, 'command'), []);
  });

  test('where there is none, it says how to get one', async () => {
    const node = new FakeNode('n1');
    node.modulesHere = [];
    const { code, err } = await cli(node, ['stop']);
    assert.equal(code, 1);
    assert.match(err, /^error\[HF-CLI-002\]/);
  });

  test('what keeps the module from serving is printed', async () => {
    const node = new FakeNode('n1');
    const why = ['the application does not answer on port 80'];
    node.modulesHere = [moduleStatus({ state: 'WAIT', readiness: 'NotReady', why })];
    const { out } = await cli(node, ['start']);
    assert.equal(out, `web  WAIT (NotReady)\n  ${why[0]}\n`);
  });

  test('a refusal is told with its code and hint, and is exit code 1', async () => {
    const node = new FakeNode('n1');
    const { code, out, err } = await cli(node, ['start', 'nope']);
    assert.equal(code, 1);
    assert.equal(out, '');
    assert.match(err, /^error\[HF-MODULE-002\] module nope is not installed on this node\nhint: /);
  });

  test('--json prints the status of the module, and errors as JSON', async () => {
    const node = new FakeNode('n1');
    const good = await cli(node, ['start', 'web', '--json']);
    assert.deepEqual(JSON.parse(good.out), moduleStatus());
    const bad = await cli(node, ['start', 'nope', '--json']);
    const { error } = JSON.parse(bad.err) as { error: Record<string, string> };
    assert.equal(error['code'], 'HF-MODULE-002');
    assert.notEqual(error['hint'], '');
    assert.equal(bad.code, 1);
  });
});

describe('-H', () => {
  test('one node: its agent is asked, the output is as without', async () => {
    const here = new FakeNode('n1');
    const there = new FakeNode('n2', here.cluster);
    const { out } = await cli(here, ['stop', 'web', '-H', 'n2']);
    assert.equal(out, 'web  UP (Ready)\n');
    assert.deepEqual(asked(here, 'command'), []);
    assert.deepEqual(asked(there, 'command'), [['command', 'web', 'stop']]);
  });

  test('all nodes: each result under its name; one failure hides no other', async () => {
    const here = new FakeNode('n1');
    const dead = new FakeNode('n2', here.cluster);
    new FakeNode('n3', here.cluster);
    dead.failure = new HoldfastError('HF-PEER-001', { node: 'n2', reason: 'timeout', port: 9454 });
    const { code, out } = await cli(here, ['start', 'web', '-H', '*']);
    assert.match(out, /^n1:\n {2}web {2}UP \(Ready\)\nn2:\n {2}error\[HF-PEER-001\].*\n {2}hint: /);
    assert.match(out, /n3:\n {2}web {2}UP \(Ready\)\n$/);
    assert.equal(code, 69);
  });

  test('all nodes, as JSON: a list of results and errors', async () => {
    const here = new FakeNode('n1');
    const dead = new FakeNode('n2', here.cluster);
    dead.failure = new HoldfastError('HF-PEER-001', { node: 'n2', reason: 'timeout', port: 9454 });
    const { out, code } = await cli(here, ['timing', '-H', 'n1,n2', '--json']);
    const list = JSON.parse(out) as { node: string; result?: unknown; error?: { code: string } }[];
    assert.deepEqual(
      list.map((one) => one.node),
      ['n1', 'n2'],
    );
    assert.deepEqual(list[0]?.result, here.timingRows);
    assert.equal(list[1]?.error?.code, 'HF-PEER-001');
    assert.equal(code, 69);
  });

  test('an unknown node', async () => {
    const { code, err } = await cli(new FakeNode('n1'), ['status', '-H', 'n9']);
    assert.match(err, /^error\[HF-API-007\]/);
    assert.equal(code, 1);
  });

  test('a command for one node refuses several', async () => {
    const { code, err } = await cli(new FakeNode('n1'), ['log', '-f', '-H', '*']);
    assert.match(err, /^error\[HF-CLI-008\]/);
    assert.equal(code, 64);
  });
});

describe('status', () => {
  test('node, modules, peers and alerts, in aligned columns', async () => {
    const node = new FakeNode('n1');
    node.modulesHere = [
      moduleStatus(),
      moduleStatus({ name: 'longname', mode: 'light', farm: null, why: ['checker tcp.a is down'] }),
    ];
    const { out, code } = await cli(node, ['status']);
    assert.equal(code, 0);
    assert.equal(
      out,
      [
        'n1  holdfast 0.1.0  up 1 h 2 min  cluster 01234567',
        '',
        'MODULE    MODE   STATE       SERVING  SHARE  MEMBERS',
        'web       farm   UP (Ready)  yes      50 %   n1 n2',
        'longname  light  UP (Ready)',
        '',
        'why:',
        '  longname: checker tcp.a is down',
        '',
        'PEER  HEARTBEATS  NETWORKS                CHANNEL  CONFIGURATION',
        'n2    ok          blue 85 us, green DOWN  open     same',
        '',
        'alerts:',
        '  warning, for 0 ms: network green to n2 is down',
        '',
      ].join('\n'),
    );
  });

  test('one module in detail', async () => {
    const node = new FakeNode('n1');
    const hookReasons = ['xdp native: the driver has none'];
    node.modulesHere = [moduleStatus({ farm: farmStatus({ draining: true, hookReasons }) })];
    const { out } = await cli(node, ['status', 'web']);
    assert.equal((await cli(node, ['status', '-m', 'web'])).out, out);
    for (const line of [
      /^web {2}farm\n {5}UP \(Ready\)$/m,
      /^ {2}serving {8}draining$/m,
      /^ {2}view +4, led by n1: n1 n2$/m,
      /^ {2}addresses +10\.0\.0\.100$/m,
      /^ {2}filter +xdp_native on eth0\n +xdp native: the driver has none$/m,
      /^ {2}group tcp +50 %, power 1$/m,
      /^ {2}resources +intf\.eth0 up$/m,
    ]) {
      assert.match(out, line);
    }
  });

  test('colours tell the readiness on a terminal, and only there', async () => {
    const node = new FakeNode('n1');
    const of = async (readiness: 'NotReady' | 'Transient' | 'Ready', color: boolean) => {
      node.modulesHere = [moduleStatus({ readiness })];
      return (await cli(node, ['start', 'web'], { color })).out;
    };
    assert.equal(await of('NotReady', true), 'web  \u001b[31mUP (NotReady)\u001b[39m\n');
    assert.equal(await of('Transient', true), 'web  \u001b[35mUP (Transient)\u001b[39m\n');
    assert.equal(await of('Ready', true), 'web  \u001b[32mUP (Ready)\u001b[39m\n');
    assert.equal(await of('Ready', false), 'web  UP (Ready)\n');
  });

  test('--json is the status as the agent has it', async () => {
    const node = new FakeNode('n1');
    const { out } = await cli(node, ['status', '--json']);
    assert.deepEqual(JSON.parse(out), await node.status());
  });

  const states = { STOP: 0, WAIT: 1, ALONE: 2, UP: 2, PRIM: 3, SECOND: 4 } as const;
  for (const [state, expected] of Object.entries(states)) {
    test(`-q: ${state} is exit code ${expected}`, async () => {
      const node = new FakeNode('n1');
      node.modulesHere = [moduleStatus({ state: state as keyof typeof states })];
      assert.deepEqual(await cli(node, ['status', '-q', '-m', 'web']), {
        code: expected,
        out: '',
        err: '',
      });
    });
  }

  test('-q: no error has the exit code of a state', async () => {
    const node = new FakeNode('n1');
    assert.equal((await cli(node, ['status', '-q', '-m', 'nope'])).code, 70);
    node.failure = new HoldfastError('HF-API-010', { where: 'socket', reason: 'ENOENT' });
    assert.equal((await cli(node, ['status', '-q', '-m', 'web'])).code, 69);
    assert.equal((await cli(node, ['status', '--qiet'])).code, 64);
  });
});

describe('status --watch', () => {
  test('shows again at an event, until interrupted', async () => {
    const node = new FakeNode('n1');
    const stop = new AbortController();
    let screens = 0;
    const { code, out } = await cli(node, ['status', '-w', '--json'], {
      interrupt: stop.signal,
      onOut: (text) => {
        screens = text.trimEnd().split('\n').length;
        if (screens === 1) {
          node.modulesHere = [moduleStatus({ state: 'WAIT' })];
          setImmediate(() => node.emit(eventRecord(1, 'UP -> WAIT')));
        } else stop.abort();
      },
    });
    assert.equal(code, 0);
    const seen = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { modules: { state: string }[] });
    assert.deepEqual(
      seen.map((status) => status.modules[0]?.state),
      ['UP', 'WAIT'],
    );
    assert.equal(node.followers, 0);
  });

  test('on a terminal each screen takes the place of the former', async () => {
    const stop = new AbortController();
    const onOut = (): void => stop.abort();
    const { out } = await cli(new FakeNode('n1'), ['status', '-w'], {
      interrupt: stop.signal,
      tty: true,
      onOut,
    });
    assert.ok(out.startsWith('\u001b[H\u001b[Jn1  holdfast'));
  });

  test('an agent that is away is said and waited for', async () => {
    const node = new FakeNode('n1');
    node.failure = new HoldfastError('HF-API-010', { where: 'socket', reason: 'ENOENT' });
    const stop = new AbortController();
    const { code, out } = await cli(node, ['status', '-w'], {
      interrupt: stop.signal,
      onOut: (text) => {
        if (node.failure !== null) node.failure = null;
        else if (text.includes('MODULE')) stop.abort();
      },
    });
    assert.equal(code, 0);
    assert.match(out, /^error\[HF-API-010\][^]*\nn1 {2}holdfast/);
  });

  test('a module that does not exist ends it', async () => {
    const { code, err } = await cli(new FakeNode('n1'), ['status', '-w', '-m', 'nope']);
    assert.equal(code, 1);
    assert.match(err, /HF-MODULE-002/);
  });
});

describe('log, events, why, timing', () => {
  test('log prints lines of the module, or of the agent', async () => {
    const node = new FakeNode('n1');
    node.logLines = ['one', 'two'];
    assert.equal((await cli(node, ['log', 'web', '-n', '1'])).out, 'two\n');
    assert.equal((await cli(node, ['log'])).out, 'one\ntwo\n');
    assert.deepEqual(asked(node, 'log'), [
      ['log', 'web', 1],
      ['log', null, 100],
    ]);
    assert.deepEqual(JSON.parse((await cli(node, ['log', '--json'])).out), ['one', 'two']);
  });

  test('log -f prints each new line once', async () => {
    const node = new FakeNode('n1');
    node.logLines = ['a', 'b'];
    const stop = new AbortController();
    const { out } = await cli(node, ['log', '-f', '-n', '1'], {
      interrupt: stop.signal,
      onOut: (text) => {
        if (text === 'b\n') node.logLines = ['a', 'b', 'b', 'c'];
        if (text.endsWith('c\n')) stop.abort();
      },
    });
    assert.equal(out, 'b\nb\nc\n');
  });

  for (const bad of ['0', '-3', 'x', '1.5', '10001']) {
    test(`log -n ${bad} is refused`, async () => {
      const node = new FakeNode('n1');
      const { code, err } = await cli(node, ['log', `--lines=${bad}`]);
      assert.equal(code, 64);
      assert.match(err, /^error\[HF-CLI-005\]/);
      assert.deepEqual(node.asked, []);
    });
  }

  test('events prints the newest, of one module', async () => {
    const node = new FakeNode('n1');
    node.journal = [eventRecord(1, 'first'), eventRecord(2, 'node', null), eventRecord(3, 'third')];
    const { out } = await cli(node, ['events', 'web', '-n', '5']);
    assert.match(out, /^2026-03-0\d [\d:.]+ {2}n1\/web {2}view {2}first\n.*third\n$/);
    assert.match((await cli(node, ['events', '-n', '2'])).out, / {2}n1 {2}view {2}node\n/);
  });

  test('events -f goes on with new ones', async () => {
    const node = new FakeNode('n1');
    node.journal = [eventRecord(1, 'old'), eventRecord(2, 'older node event', null)];
    const stop = new AbortController();
    const { out } = await cli(node, ['events', '-f', '--json', '-n', '1'], {
      interrupt: stop.signal,
      onOut: (text) => {
        const count = text.trimEnd().split('\n').length;
        if (count === 1) setImmediate(() => node.emit(eventRecord(3, 'new')));
        else stop.abort();
      },
    });
    const seqs = out
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { seq: number }).seq);
    assert.deepEqual(seqs, [2, 3]);
  });

  test('why', async () => {
    const node = new FakeNode('n1');
    assert.equal((await cli(node, ['why'])).out, 'web  UP (Ready)\n');
    node.whyLines = ['not serving because start_both failed'];
    const { out } = await cli(node, ['why', 'web']);
    assert.equal(out, 'web  UP (Ready)\n  not serving because start_both failed\n');
    const json = await cli(node, ['why', 'web', '--json']);
    assert.deepEqual(JSON.parse(json.out), {
      name: 'web',
      state: 'UP',
      readiness: 'Ready',
      why: ['not serving because start_both failed'],
      explained: [null],
      pair: null,
    });
  });

  test('timing', async () => {
    const { out } = await cli(new FakeNode('n1'), ['timing']);
    assert.equal(out, 'DEADLINE  MS   MEANING\nlease     150  the VIP lapses\n');
  });

  test('version', async () => {
    const { out } = await cli(new FakeNode('n1'), ['version', '--json']);
    assert.match((JSON.parse(out) as { version: string }).version, /^\d+\.\d+\.\d+$/);
  });
});

describe('farm', () => {
  test('drain and undrain name the node', async () => {
    const node = new FakeNode('n1');
    const { out } = await cli(node, ['farm', 'drain', 'n2', '-m', 'web']);
    assert.match(out, /^n2 is drained \(/);
    await cli(node, ['farm', 'undrain', 'n2']);
    assert.deepEqual(asked(node, 'drain'), [
      ['drain', 'web', 'n2', true],
      ['drain', 'web', 'n2', false],
    ]);
  });

  test('power, of all groups or of one', async () => {
    const node = new FakeNode('n1');
    await cli(node, ['farm', 'power', 'n2', '64', '-m', 'web']);
    await cli(node, ['farm', 'power', 'n2', '0', '-g', 'tcp']);
    assert.deepEqual(asked(node, 'power'), [
      ['power', 'web', 'n2', null, 64],
      ['power', 'web', 'n2', 'tcp', 0],
    ]);
    assert.equal((await cli(node, ['farm', 'power', 'n2', 'much'])).code, 64);
  });
});

describe('module', () => {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-cli-'));
    await mkdir(join(folder, 'shop/conf'), { recursive: true });
    await mkdir(join(folder, 'shop/bin'));
    await writeFile(join(folder, 'shop/conf/userconfig.xml'), '<safe/>\n');
    await writeFile(join(folder, 'shop.safe'), 'bytes of an archive');
  });
  after(() => rm(folder, { recursive: true }));

  test('install a file: named after it, or by -m', async () => {
    const node = new FakeNode('n1');
    const file = join(folder, 'shop.safe');
    const { out } = await cli(node, ['module', 'install', file]);
    assert.equal(out, 'shop  STOP (Ready)\n');
    await cli(node, ['module', 'install', file, '-m', 'store', '--replace']);
    const [first, second] = asked(node, 'install');
    assert.equal(first?.[1], 'shop');
    assert.equal(Buffer.from(first?.[2] as Uint8Array).toString(), 'bytes of an archive');
    assert.equal(first?.[3], false);
    assert.deepEqual([second?.[1], second?.[3]], ['store', true]);
  });

  test('install a folder: it is packed as a zip', async () => {
    const node = new FakeNode('n1');
    await cli(node, ['module', 'install', join(folder, 'shop')]);
    const archive = asked(node, 'install')[0]?.[2] as Uint8Array;
    assert.equal(Buffer.from(archive.subarray(0, 2)).toString(), 'PK');
  });

  test('install what does not exist', async () => {
    const { code, err } = await cli(new FakeNode('n1'), ['module', 'install', 'no/such']);
    assert.match(err, /^error\[HF-CLI-007\] no\/such is neither/);
    assert.equal(code, 1);
  });

  test('package writes the archive', async () => {
    const node = new FakeNode('n1');
    const file = join(folder, 'out.safe');
    const { out, code } = await cli(node, ['module', 'package', 'web', '-o', file]);
    assert.equal(code, 0);
    assert.equal(out, `${file}: 14 bytes\n`);
    assert.equal(await readFile(file, 'utf8'), 'archive of web');
    const bad = await cli(node, ['module', 'package', 'web', '-o', join(folder, 'no/file')]);
    assert.match(bad.err, /^error\[HF-CLI-004\]/);
  });

  test('uninstall and list', async () => {
    const node = new FakeNode('n1');
    assert.equal((await cli(node, ['module', 'uninstall', 'web'])).out, 'web is removed\n');
    assert.deepEqual(asked(node, 'uninstall'), [['uninstall', 'web']]);
    assert.match(
      (await cli(node, ['module', 'list'])).out,
      /\nweb +farm +UP \(Ready\) +ab12cd34\n/,
    );
    node.modulesHere = [];
    assert.equal((await cli(node, ['module', 'list'])).out, 'no module is installed\n');
  });
});

describe('wrong command lines', () => {
  for (const args of [
    ['statsu'],
    ['start', '--nope'],
    ['farm', 'drain'],
    ['farm', 'power', 'n1'],
    [],
  ]) {
    test(`holdfast ${args.join(' ')}`, async () => {
      const node = new FakeNode('n1');
      const { code, err } = await cli(node, args);
      assert.equal(code, 64);
      assert.notEqual(err, '');
      assert.deepEqual(node.asked, []);
    });
  }

  test('a typing error gets a suggestion', async () => {
    assert.match((await cli(new FakeNode('n1'), ['statsu'])).err, /Did you mean status\?/);
  });

  test('help is no error', async () => {
    const { code, out } = await cli(new FakeNode('n1'), ['farm', 'power', '--help']);
    assert.equal(code, 0);
    assert.match(out, /Usage: holdfast farm power /);
  });
});
