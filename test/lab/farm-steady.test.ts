/** A farm of three servers in peace: who answers whom, and how often. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  assertSingle,
  assertUnharmed,
  Farm,
  modes,
  onAll,
  settledStats,
  skip,
  stopAll,
  waysOf,
} from './support.ts';

const everyone = ['s1', 's2', 's3'];

describe('a farm of three servers', { skip, timeout: 240_000 }, () => {
  let farm: Farm;
  let agents: readonly string[];
  before(async () => {
    farm = await Farm.up({ lab: { clients: 3 } });
    agents = await farm.agents();
  });
  after(async () => farm?.down());

  for (const kind of ['tcp', 'keep', 'udp'] as const) {
    test(`each request is answered exactly once, ${kind}`, async () => {
      const sniffer = await farm.lab.sniff();
      const loads = await onAll(waysOf(), (way) => farm.load(kind, way, { intervalMs: 1000 }));
      const stats = await onAll(loads, (load) => settledStats(load, 500));
      await stopAll(loads);
      assertSingle(await sniffer.stop());
      for (const one of stats) {
        assertUnharmed(one);
        assert.equal(one.answers, one.requests);
        assert.equal(one.late + one.timeouts, 0, JSON.stringify(one));
        assert.deepEqual(Object.keys(one.servers).toSorted(), everyone);
      }
    });
  }

  test('directed: whichever server the neighbours of a network send to, one answers', async () => {
    const ways = waysOf(['directed']);
    await onAll(farm.lab.clients, async ({ name: clients }) => {
      const sniffer = await farm.lab.sniff(clients);
      const loads = await onAll(['tcp', 'udp'] as const, (kind) =>
        onAll(ways, (way) => farm.load(kind, way, { clients, count: 50, intervalMs: 1000 })),
      );
      for (const load of loads.flat()) {
        const stats = await settledStats(load, 150);
        assertUnharmed(stats);
        assert.equal(stats.answers, stats.tries, JSON.stringify(stats));
        assert.deepEqual(Object.keys(stats.servers).toSorted(), everyone);
      }
      await stopAll(loads.flat());
      assertSingle(await sniffer.stop());
    });
  });

  test('on_addr: a client stays with its server, whatever the protocol and the port', async () => {
    for (const way of waysOf()) {
      const sticky = { ...way, service: 'sticky' } as const;
      const loads = await onAll(['tcp', 'udp'] as const, (kind) =>
        farm.load(kind, sticky, { intervalMs: 250 }),
      );
      const [tcp, udp] = await onAll(loads, async (load) => {
        const stats = await settledStats(load, 500);
        assertUnharmed(stats);
        assert.equal(stats.moves, 0, JSON.stringify(stats));
        assert.deepEqual(Object.keys(stats.clientsByServer).toSorted(), everyone);
        return (await load.clients()).map(({ addr, server }) => `${addr} ${server}`);
      });
      assert.deepEqual(tcp, udp);
      await stopAll(loads);
    }
  });

  test('on_port: each connection of a client is shared anew, each datagram socket once', async () => {
    const tcp = await onAll(waysOf(), (way) =>
      farm.load('tcp', way, { count: 10, intervalMs: 50 }),
    );
    await onAll(tcp, async (load) => {
      // Each client asks 40 times; that it meets one server each time has odds of 3^-39.
      await load.until(({ answers }) => answers >= 500, 60_000);
      for (const client of await load.clients())
        assert.ok(client.moves > 0, JSON.stringify(client));
    });
    await stopAll(tcp);
    const udp = await onAll(waysOf(), (way) => farm.load('udp', way, { intervalMs: 250 }));
    for (const stats of await onAll(udp, (load) => settledStats(load, 300))) {
      assert.equal(stats.moves, 0, JSON.stringify(stats));
    }
    await stopAll(udp);
  });

  test('on_ipid: each datagram of a socket is shared anew', async () => {
    const loads = await onAll(modes, (mode) =>
      farm.load('udp', { mode, family: 4, service: 'shares' }, { count: 10, intervalMs: 50 }),
    );
    await onAll(loads, async (load) => {
      const stats = await settledStats(load, 500);
      assertUnharmed(stats);
      assert.equal(stats.answers, stats.tries, JSON.stringify(stats));
      for (const client of await load.clients())
        assert.ok(client.moves > 0, JSON.stringify(client));
    });
    await stopAll(loads);
  });

  for (const way of waysOf()) {
    test(`a ping is answered exactly once, ${way.mode}, IPv${way.family}`, async () => {
      const before = await onAll(farm.cluster.hosts, (host) => farm.echoes(host, way.family));
      const load = await farm.load('icmp', way, { intervalMs: 500 });
      const stats = await settledStats(load, 300);
      await load.stop();
      assertUnharmed(stats);
      assert.equal(stats.answers, stats.tries, JSON.stringify(stats));
      const now = await onAll(farm.cluster.hosts, (host) => farm.echoes(host, way.family));
      const answered = now.map((count, i) => count - (before[i] ?? 0));
      assert.equal(
        answered.reduce((sum, count) => sum + count, 0),
        stats.tries,
      );
      assert.ok(
        answered.every((count) => count > 0),
        answered.join(),
      );
    });
  }

  test('no agent has ended', async () => {
    assert.deepEqual(await farm.agents(), agents);
  });
});
