import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { configOf, addAddress, Host, ip, makeNetwork, port, timing } from './beat-hosts.ts';
import type { Line, Network } from './beat-hosts.ts';

const root = process.getuid?.() === 0;
const skip = root ? false : 'network namespaces need root';
const slow = { timeout: 60_000 };

function isPeer(reach: string, hung = false): Line {
  return { kind: 'peer', reach, hung };
}

function peerEvents(host: Host): readonly Line[] {
  return host.lines.filter((line) => line['kind'] === 'peer');
}

/** Whether a process runs; one that only waits to be reaped does not. */
function alive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

describe('holdfastd', { skip, ...slow }, () => {
  let network: Network;
  let a: Host;
  let b: Host;

  before(() => {
    network = makeNetwork(`${process.pid}`);
  });
  after(() => network.close());
  beforeEach(async () => {
    a = new Host(network.names[0], configOf(0));
    b = new Host(network.names[1], configOf(1));
    await Promise.all([a.next(isPeer('both')), b.next(isPeer('both'))]);
  });
  afterEach(async () => {
    await Promise.all([a.stop(), b.stop()]);
  });

  it('reaches its peer over IPv4 and IPv6 and counts', async () => {
    const up = (line: Line): boolean => line['kind'] === 'stats' && upLans(line) === 2;
    a.send({ op: 'stats' });
    await a.next((line) => {
      if (line['kind'] !== 'stats') return false;
      if (!up(line)) a.send({ op: 'stats' });
      return up(line);
    });
    const stats = await a.stats();
    assert.equal(stats['badMac'], 0);
    assert.equal(stats['malformed'], 0);
    assert.equal(stats['sendErrors'], 0);
    assert.ok((stats['sent'] ?? 0) > 0 && (stats['received'] ?? 0) > 0);
  });

  it('passes announcements on at once', async () => {
    a.announce({ viewEpoch: 12, viewMembers: String((1n << 63n) | 3n) });
    const heard = await b.next({ kind: 'module', node: 0 });
    assert.equal(heard['key'], 7);
    assert.equal(heard['viewEpoch'], 12);
    assert.equal(heard['viewMembers'], String((1n << 63n) | 3n));
  });

  it('restarts a killed agent; its peer sees nothing, the new agent learns all', async () => {
    b.announce({ viewEpoch: 3 });
    await a.next({ kind: 'module', viewEpoch: 3 });
    a.announce({ viewEpoch: 4 });
    await b.next({ kind: 'module', viewEpoch: 4 });
    const seen = b.lines.length;
    const started = a.lines.find((line) => line['kind'] === 'started');
    process.kill(Number(started?.['pid']), 'SIGKILL');
    const ended = await a.next({ msg: 'agent ended' });
    assert.equal(ended['signal'], 9);
    const learned = await a.next({ kind: 'module' });
    assert.equal(learned['viewEpoch'], 3);
    await a.next(isPeer('both'));
    assert.equal((await a.stats())['agentRestarts'], 1);
    assert.equal(b.lines.length, seen, 'the peer had an event');
  });

  it('says that its agent hangs, and that it is back', async () => {
    a.send({ op: 'block', ms: timing.agentDeadlineMs * 2 });
    await b.next(isPeer('both', true));
    await b.next(isPeer('both', false));
  });

  it('is silent for its peer when stopped, never earlier than suspect, and comes back', async () => {
    const before = b.lines.length;
    b.signal('SIGSTOP');
    const silent = await a.next(isPeer('silent'));
    const row = (await a.stats()).peers[0];
    const took = Number(silent['atMs']) - Number(row?.['lastHeardMs']);
    assert.ok(took >= timing.suspectMs, `silent after ${took} ms`);
    b.signal('SIGCONT');
    await a.next(isPeer('both'));
    // The one that was stopped doubted itself: it never took its peer for dead.
    assert.ok(b.lines.slice(before).every((line) => line['reach'] !== 'silent'));
  });

  it('takes a restarted holdfastd for what it is', async () => {
    const boot = peerEvents(a)[0]?.['boot'];
    await b.stop();
    b = new Host(network.names[1], configOf(1));
    const back = await a.next((line) => line['reach'] === 'both' && line['boot'] !== boot);
    assert.notEqual(back['boot'], boot);
    await b.next(isPeer('both'));
  });

  it('ends its agent when it is killed itself', async () => {
    const pid = Number(b.lines.find((line) => line['kind'] === 'started')?.['pid']);
    b.signal('SIGKILL');
    await b.exited;
    await a.next(isPeer('silent'));
    assert.equal(alive(pid), false);
  });

  it('one network down: an event for the network, none for the peer', async () => {
    const before = peerEvents(a).length;
    ip('-n', network.names[0], 'link', 'set', network.device(0, 0), 'down');
    await a.next({ kind: 'lan', lan: 0, up: false });
    ip('-n', network.names[0], 'link', 'set', network.device(0, 0), 'up');
    await a.next({ kind: 'lan', lan: 0, up: true });
    assert.equal(peerEvents(a).length, before);
  });

  it('counts what is forged, damaged or foreign, and changes nothing', async () => {
    const lines = a.lines.length;
    const script = `
      const socket = require('node:dgram').createSocket('udp4');
      const forged = Buffer.alloc(120);
      forged.writeUInt32LE(0x31424648, 0);
      forged[4] = 1; forged[6] = 1;
      forged.writeBigUInt64LE(0xaan, 8);
      const foreign = Buffer.from(forged);
      foreign.writeBigUInt64LE(0xabn, 8);
      const all = [forged, foreign, Buffer.alloc(2), Buffer.alloc(1200), Buffer.alloc(1400)];
      let left = all.length;
      for (const data of all) {
        socket.send(data, ${port}, '10.99.0.1', () => { if (--left === 0) socket.close(); });
      }`;
    const args = [`--net=/run/netns/${network.names[1]}`, process.execPath, '-e', script];
    execFileSync('nsenter', args, { stdio: 'inherit' });
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop
      const stats = await a.stats();
      if (stats['malformed'] !== 3) continue;
      assert.equal(stats['badMac'], 1);
      assert.equal(stats['foreign'], 1);
      break;
    }
    assert.deepEqual(
      a.lines.slice(lines).filter((line) => line['kind'] !== 'stats'),
      [],
    );
  });

  it('a configuration with an address that is not there yet: said, tried again, works', async () => {
    const [ns, device] = [network.names[0], network.device(0, 0)];
    await a.stop();
    ip('-n', ns, 'addr', 'del', '10.99.0.1/24', 'dev', device);
    a = new Host(ns, configOf(0));
    const fault = await a.next({ kind: 'fault', what: 'bind', lan: 0 });
    assert.equal(fault['errno'], 99);
    await a.next(isPeer('both'));
    addAddress(ns, device, 0, 0);
    await a.next({ kind: 'fault', what: 'bind', lan: 0, errno: 0 });
    await a.next({ kind: 'lan', lan: 0, up: true });
    // The counters are written now and then, the event at once.
    while (((await a.stats())['bindRetries'] ?? 0) < 1);
  });

  it('keeps everything when the same configuration comes again', async () => {
    const before = await a.stats();
    const lines = b.lines.length;
    a.send({ op: 'configure', config: configOf(0) });
    const stats = await a.stats();
    assert.ok((stats['received'] ?? 0) >= (before['received'] ?? 0));
    assert.equal(b.lines.length, lines);
  });
});

describe('holdfastd and the lease map', { skip, ...slow }, () => {
  const pin = `/sys/fs/bpf/hfb-test-${process.pid}`;
  let network: Network;
  let a: Host;
  let b: Host;

  function leaseMs(slot: number): number {
    const out = execFileSync('bpftool', ['-j', 'map', 'dump', 'pinned', pin], { encoding: 'utf8' });
    const entries = JSON.parse(out) as readonly { readonly value: readonly string[] }[];
    const bytes = entries[slot]?.value ?? [];
    return Number(Buffer.from(bytes.map((byte) => Number(byte))).readBigUInt64LE(0)) / 1e6;
  }

  const nowMs = async (): Promise<number> => {
    a.send({ op: 'stats' });
    return Number((await a.next({ kind: 'stats' }))['nowMs']);
  };

  before(async () => {
    // BPF_F_MMAPABLE is 1 << 10.
    const shape = ['type', 'array', 'key', '4', 'value', '8', 'entries', '64', 'flags', '1024'];
    execFileSync('bpftool', ['map', 'create', pin, ...shape, 'name', 'leases']);
    network = makeNetwork(`${process.pid}l`);
    a = new Host(network.names[0], configOf(0, { leaseMap: pin }));
    b = new Host(network.names[1], configOf(1));
    await Promise.all([a.next(isPeer('both')), b.next(isPeer('both'))]);
  });
  after(async () => {
    await Promise.all([a.stop(), b.stop()]);
    network.close();
    rmSync(pin, { force: true });
  });

  it('renews, releases, and yields to a later view', async () => {
    assert.equal(leaseMs(5), 0);
    a.announce({ viewEpoch: 1, leaseSlots: [5] });
    await a.next({ kind: 'lease', renewing: true, why: 'ok', key: 7 });
    const now = await nowMs();
    assert.ok(leaseMs(5) > now);
    assert.ok(leaseMs(5) < (await nowMs()) + timing.leaseMs + 1);
    a.announce({ viewEpoch: 1, leaseSlots: [6] });
    await b.next({ kind: 'module', node: 0 });
    while (leaseMs(6) === 0) {
      // oxlint-disable-next-line no-await-in-loop
      await nowMs();
    }
    assert.equal(leaseMs(5), 0);
    b.announce({ viewEpoch: 2, viewMembers: '2' });
    await a.next({ kind: 'lease', renewing: false, why: 'excluded_by_view' });
    assert.equal(leaseMs(6), 0);
    a.announce({ viewEpoch: 3, leaseSlots: [6] });
    await a.next({ kind: 'lease', renewing: true, why: 'ok' });
    assert.ok(leaseMs(6) > 0);
  });

  it('renews while the agent is being restarted', async () => {
    a.announce({ viewEpoch: 4, leaseSlots: [7] });
    while (leaseMs(7) === 0) {
      // oxlint-disable-next-line no-await-in-loop
      await nowMs();
    }
    const pid = a.lines.findLast((line) => line['kind'] === 'started')?.['pid'];
    process.kill(Number(pid), 'SIGKILL');
    const before = leaseMs(7);
    await a.next({ kind: 'started' });
    // The new agent has announced nothing, and the lease goes on.
    await a.next({ kind: 'lease', renewing: true });
    assert.ok(leaseMs(7) > before);
    assert.ok(leaseMs(7) > (await nowMs()));
  });

  it('of a mirror: lives by the consent of the peer, and off is in force when announced says so', async () => {
    const leaseMsLong = 600;
    const lease = { rule: 'peer', peer: 1, leaseMs: leaseMsLong } as const;
    b.announce({ flags: 9, viewEpoch: 6, viewMembers: '0', lease: { rule: 'off' } });
    await a.next({ kind: 'module', node: 1, viewEpoch: 6 });
    a.announce({ viewEpoch: 6, viewMembers: '0', leaseSlots: [9], lease });
    await a.next({ kind: 'lease', renewing: true, why: 'ok' });
    assert.ok(leaseMs(9) > (await nowMs()));
    // Without consent it runs out, and the agent hears of it.
    b.announce({ flags: 1, viewEpoch: 6, viewMembers: '0', lease: { rule: 'off' } });
    b.send({ op: 'announced' });
    await b.next({ kind: 'announced' });
    const dissentMs = await nowMs();
    const lapsed = await a.next({ kind: 'lease', renewing: false });
    assert.equal(lapsed['why'], 'no_consent');
    assert.ok(leaseMs(9) <= dissentMs + leaseMsLong);
    // By its own life it runs again.
    a.announce({
      viewEpoch: 7,
      viewMembers: '0',
      leaseSlots: [9],
      lease: { rule: 'own', leaseMs: leaseMsLong },
    });
    await a.next({ kind: 'lease', renewing: true, why: 'ok' });
    a.announce({ viewEpoch: 7, viewMembers: '0', leaseSlots: [9], lease: { rule: 'off' } });
    a.send({ op: 'announced' });
    await a.next({ kind: 'announced' });
    assert.equal(leaseMs(9), 0);
  });

  it('lapses when holdfastd is stopped, and is released when it ends', async () => {
    a.announce({ viewEpoch: 5, leaseSlots: [8] });
    while (leaseMs(8) === 0) {
      // oxlint-disable-next-line no-await-in-loop
      await nowMs();
    }
    a.signal('SIGSTOP');
    await b.next(isPeer('silent'));
    const stopped = leaseMs(8);
    assert.equal(leaseMs(8), stopped, 'nobody renews it');
    a.signal('SIGCONT');
    await b.next(isPeer('both'));
    await a.stop();
    assert.equal(leaseMs(8), 0);
  });

  it('says when the map is not there, and takes it when it is', async () => {
    rmSync(pin);
    a = new Host(network.names[0], configOf(0, { leaseMap: pin }));
    const fault = await a.next({ kind: 'fault', what: 'lease_map' });
    assert.equal(fault['errno'], 2);
    const shape = ['type', 'array', 'key', '4', 'value', '8', 'entries', '64', 'flags', '1024'];
    execFileSync('bpftool', ['map', 'create', pin, ...shape, 'name', 'leases']);
    await a.next({ kind: 'fault', what: 'lease_map', errno: 0 });
    a.announce({ viewEpoch: 9, leaseSlots: [1] });
    await a.next({ kind: 'lease', renewing: true });
    assert.ok(leaseMs(1) > 0);
  });
});

describe('holdfastd and the end of its agent', { skip, ...slow }, () => {
  let network: Network;
  before(() => {
    network = makeNetwork(`${process.pid}e`);
  });
  after(() => network.close());

  it('SIGTERM: the agent may stop first, then it ends with the same code', async () => {
    const host = new Host(network.names[0], configOf(0));
    await host.next({ kind: 'started' });
    assert.equal(await host.stop(), 0);
    assert.ok(host.lines.some((line) => line['kind'] === 'stopping'));
  });

  it('exit code 64: it does not try again', async () => {
    const host = new Host(network.names[0], configOf(0));
    await host.next({ kind: 'started' });
    host.send({ op: 'exit', code: 64 });
    assert.equal(await host.exited, 64);
    assert.equal(host.lines.filter((line) => line['msg'] === 'agent started').length, 1);
  });

  it('an agent that dies again and again is started at growing intervals', async () => {
    const host = new Host(network.names[0], configOf(0), ['-e', 'process.exit(1)']);
    const times: number[] = [];
    while (times.length < 5) {
      // oxlint-disable-next-line no-await-in-loop
      times.push(Number((await host.next({ msg: 'agent started' }))['time']));
    }
    assert.ok((times[4] ?? 0) - (times[1] ?? 0) >= 100 + 200 + 400);
    await host.stop();
  });

  it('a command that makes no sense costs the agent its socket, not the heartbeats', async () => {
    const garbage = `
      const socket = new (require('node:net').Socket)({ fd: 3 });
      socket.on('close', () => process.exit(9));
      socket.on('data', () => {});
      socket.write(Buffer.alloc(64, 0xff));`;
    const host = new Host(network.names[0], configOf(0), ['-e', garbage]);
    const ended = await host.next({ msg: 'agent ended' });
    assert.equal(ended['code'], 9);
    await host.next({ msg: 'agent started' });
    await host.stop();
  });
});

function upLans(line: Line): number {
  const stats = line['stats'] as { readonly peers: readonly { readonly up: boolean }[] };
  return stats.peers.filter((peer) => peer.up).length;
}
