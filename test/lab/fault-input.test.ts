/** What others do to a farm: forged packets, refused configurations, full disks, foreign programs. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { clusterKeys, loadKeys } from '../../src/api/pki.ts';
import { HoldfastError } from '../../src/errors.ts';
import type { Host } from '../../src/lab/host.ts';
import { repoRoot, runTool, until } from '../../src/lab/tool.ts';
import { pathsBelow } from '../../src/paths.ts';
import {
  alerted,
  calm,
  type Epochs,
  epochsAt,
  killAgent,
  processesOf,
  ready,
  Traffic,
} from './fault-support.ts';
import { Farm, skip } from './support.ts';

const all = ['s1', 's2', 's3'];
const mode = 'invisible';

describe('bad input and broken surroundings', { skip, timeout: 300_000 }, () => {
  let farm: Farm;
  before(async () => {
    farm = await Farm.up();
  });
  after(async () => farm?.down());
  afterEach(async () => {
    await Traffic.stop();
    await farm.lab.heal();
  });

  const assertUnmoved = async (traffic: Traffic, epochs: Epochs) => {
    await traffic.healthy();
    const phase = await traffic.mark();
    assert.deepEqual([phase.breaks, phase.timeouts], [0, 0], JSON.stringify(phase));
    for (const name of all) assert.deepEqual(await epochsAt(farm, name), epochs, name);
  };

  /** Counters of a host's metrics page whose labels say what happened. */
  const counters = async (host: Host, metric: string): Promise<Record<string, number>> => {
    const page = await farm.cluster.client(host).metrics();
    const found = page.matchAll(new RegExp(`^${metric}\\{what="(\\w+)"\\} (\\d+)$`, 'gm'));
    return Object.fromEntries([...found].map(([, what, value]) => [what, Number(value)]));
  };

  /** Waits until counters have risen by so much at least. */
  const risen = async (host: Host, metric: string, by: Readonly<Record<string, number>>) => {
    const from = await counters(host, metric);
    return async () => {
      let now: Record<string, number> = {};
      for (const end = performance.now() + 10_000; performance.now() < end; ) {
        now = await counters(host, metric);
        const done = Object.entries(by).every(
          ([what, rise]) => (now[what] ?? 0) - (from[what] ?? 0) >= rise,
        );
        if (done) return;
      }
      assert.fail(`${metric} rose from ${JSON.stringify(from)} to ${JSON.stringify(now)} only`);
    };
  };

  const node = (host: Host, script: string, env: Readonly<Record<string, string>>) =>
    host.exec([process.execPath, '--input-type=module', '-e', script], { env });

  test('forged, cut off and oversized heartbeats are counted, and change nothing', async () => {
    const epochs = await calm(farm, all);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();
    const host = farm.host('s1');
    const { clusterId } = clusterKeys(loadKeys(pathsBelow(host.path('/'))).secret);
    const counted = await risen(host, 'holdfast_heartbeat_total', {
      malformed: 40,
      foreign: 10,
      bad_mac: 10,
    });
    const [space] = farm.lab.clients;
    assert.ok(space !== undefined);
    await node(space, forger, { TARGET: host.address(), CLUSTER: clusterId });
    await counted();
    await assertUnmoved(traffic, epochs);
  });

  test('heartbeats that come twice are counted as replayed, and change nothing', async () => {
    const epochs = await calm(farm, all);
    const host = farm.host('s1');
    const counted = await risen(host, 'holdfast_heartbeat_total', { replayed: 20 });
    await farm.lab.duplicate('s2', 100, { direction: 'out' });
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await counted();
    for (const name of all) assert.deepEqual(await epochsAt(farm, name), epochs, name);
    await farm.lab.heal();
    await traffic.healthy();
    for (const name of all) assert.deepEqual(await epochsAt(farm, name), epochs, name);
  });

  test('strangers at the port of the agents are turned away, and change nothing', async () => {
    const epochs = await calm(farm, all);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();
    const host = farm.host('s2');
    const counted = await risen(host, 'holdfast_peer_channel_total', { refused_handshake: 20 });
    const [space] = farm.lab.clients;
    assert.ok(space !== undefined);
    await node(space, stranger, { TARGET: host.address() });
    await counted();
    await assertUnmoved(traffic, epochs);
  });

  test('a second agent on the same state folder is refused, the first one goes on', async () => {
    const epochs = await calm(farm, all);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();
    const host = farm.host('s2');
    const before = processesOf(host);
    const second = await host.exec(
      [
        join(repoRoot, 'build/Release/holdfastd'),
        '--',
        process.execPath,
        join(repoRoot, 'dist/src/agent.js'),
      ],
      { check: false },
    );
    assert.equal(second.code, 64);
    assert.match(second.stderr, /HF-AGENT-001/);
    assert.deepEqual(processesOf(host), before);
    await assertUnmoved(traffic, epochs);
  });

  test('a configuration that is refused leaves the running one in place', async () => {
    const epochs = await calm(farm, all);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();
    const host = farm.host('s3');
    const client = farm.cluster.client(host);
    const file = `/etc/holdfast/modules/${mode}/conf/userconfig.xml`;
    const xml = host.readFile(file);
    const { signature } = await farm.status(mode, 's3');
    const bad: readonly (readonly [string, RegExp])[] = [
      [xml.replace('virtual_addr addr=', 'virtual_addr adress='), /^HF-CONFIG-/],
      [xml.replace('mode="farm"', 'mode="mirror"'), /^HF-/],
      [xml.replace('</safe>', ''), /^HF-CONFIG-/],
      ['', /^HF-CONFIG-/],
    ];
    for (const [text, code] of bad) {
      await assert.rejects(client.applyConfig(mode, text), (error) => {
        assert.ok(error instanceof HoldfastError);
        assert.match(error.code, code);
        return true;
      });
      assert.equal(host.readFile(file), xml);
      assert.equal((await farm.status(mode, 's3')).signature, signature);
    }
    await assertUnmoved(traffic, epochs);
  });

  test('a full disk of the state folder: the farm serves on, an alert says it while it lasts', async (t) => {
    const host = farm.host('s3');
    const state = '/var/lib/holdfast';
    farm.cluster.daemons.get('s3')?.kill('SIGTERM');
    assert.ok(await until(() => processesOf(host).all.length === 0, 30_000));
    // A disk of its own, small enough to be filled.
    await host.exec([
      'sh',
      '-ec',
      `mount -t tmpfs -o size=4m tmpfs /mnt; cp -a ${state}/. /mnt; mount --move /mnt ${state}`,
    ]);
    await farm.cluster.startAgent(host);
    await farm.members(all);
    const epochs = await calm(farm, all);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();

    t.after(() => host.exec(['rm', '-f', `${state}/fill`]));
    await host.exec(['sh', '-c', `cat /dev/zero > ${state}/fill`], { check: false });
    const client = farm.cluster.client(host);
    const full = async () => {
      const { alerts } = await client.status();
      return alerts.some(({ id, severity }) => id === 'journal' && severity === 'critical');
    };
    // Each is an event; the first ones may still fit into the last block of the journal.
    for (let i = 0; i < 500 && !(await full()); i++) await client.power(mode, 's3', 'spread', 1);
    assert.ok(await full());
    // Also what the node must remember for its next start does not fit.
    await client.applyConfig(mode, null);
    await alerted(farm, 's3', /^module\.invisible\.record$/);
    await assertUnmoved(traffic, epochs);
    // Also an agent that starts again finds what it needs.
    await killAgent(host);
    await ready(farm, all);
    await assertUnmoved(traffic, epochs);

    await host.exec(['rm', `${state}/fill`]);
    await alerted(farm, 's3', /./, false);
    await assertUnmoved(traffic, epochs);
  });

  test('a foreign XDP program, or no bpffs: said, and served all the same', async () => {
    const [busy, bare] = [farm.host('s3'), farm.host('s2')];
    await farm.members(['s1']);
    await runTool('foreign program', ['device', busy.process, 'xdp-pass', busy.device()]);
    await bare.exec(['umount', '/sys/fs/bpf']);
    await farm.members(all);
    const second = (await farm.status(mode, 's3')).farm;
    assert.equal(second?.hook, 'tc');
    assert.match(second?.hookReasons.join() ?? '', /another XDP program/);
    await alerted(farm, 's3', /^device\.eth0\.hook$/);
    const mended = (await farm.status(mode, 's2')).farm;
    assert.equal(mended?.hook, 'xdp-native');
    assert.match(mended?.hookReasons.join() ?? '', /bpffs/);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();
    await traffic.healthy();
    const phase = await traffic.mark();
    assert.deepEqual(Object.keys(phase.servers).sort(), all);
    assert.deepEqual([phase.breaks, phase.timeouts], [0, 0], JSON.stringify(phase));
  });
});

/** Datagrams that are no heartbeats, ten of each kind; layout: native/beat/wire.h. */
const forger = `
  import { createSocket } from 'node:dgram';
  import { randomBytes } from 'node:crypto';
  const header = (cluster) => {
    const bytes = randomBytes(80 + 24 + 16);
    bytes.writeUInt32LE(0x31424648, 0);
    bytes[4] = 1; bytes[5] = 0; bytes[6] = 1; bytes[7] = 0;
    Buffer.from(cluster, 'hex').reverse().copy(bytes, 8);
    bytes[16] = 1; bytes[17] = 0; bytes[18] = 0; bytes[19] = 0;
    return bytes;
  };
  const mine = process.env.CLUSTER;
  const kinds = [
    () => randomBytes(120),
    () => header(mine).subarray(0, 20),
    () => Buffer.concat([header(mine), randomBytes(1300)]),
    () => Buffer.concat([header(mine), randomBytes(60000)]),
    () => header('0123456789abcdef'),
    () => header(mine),
  ];
  const socket = createSocket('udp4');
  for (let i = 0; i < 10; i++) {
    for (const make of kinds) {
      await new Promise((done) => socket.send(make(), 4800, process.env.TARGET, done));
    }
  }
  socket.close();
`;

/** Connections that are no agent's: other protocols, TLS without a certificate, silence. */
const stranger = `
  import { connect } from 'node:net';
  import { randomBytes } from 'node:crypto';
  import { connect as connectTls } from 'node:tls';
  const where = { host: process.env.TARGET, port: 9454 };
  const over = (socket) => new Promise((done) => {
    socket.on('error', () => {});
    socket.once('close', done);
    socket.resume();
  });
  const speak = (bytes) => {
    const socket = connect(where, () => socket.write(bytes));
    return over(socket);
  };
  const anonymous = () => over(connectTls({ ...where, rejectUnauthorized: false, ALPNProtocols: ['holdfast'] }));
  for (let i = 0; i < 20; i++) connect(where).on('error', () => {}).unref();
  for (let i = 0; i < 10; i++) {
    await Promise.all([speak('GET / HTTP/1.1\\r\\n\\r\\n'), speak(randomBytes(64)), anonymous()]);
  }
  process.exit(0);
`;
