/** Servers come and go under load: no connection breaks, nobody is answered twice. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { LoadGenerator, Sniffer } from '../../src/lab/clients.ts';
import type { ModuleStatus } from '../../src/host/face.ts';
import {
  assertShares,
  assertSingle,
  assertUnharmed,
  eventually,
  everybody,
  Farm,
  modes,
  onAll,
  skip,
  stopAll,
  waysOf,
} from './support.ts';

const even = { s1: 2048, s2: 2048 };

describe('300 open connections', { skip, timeout: 240_000 }, () => {
  let farm: Farm;
  let sniffer: Sniffer;
  let kept: readonly LoadGenerator[] = [];
  /** Clients that come anew for each request. */
  let fresh: readonly LoadGenerator[] = [];
  let drained: Promise<ModuleStatus[]>;
  let agents: readonly string[];
  before(async () => {
    farm = await Farm.up({ on: ['s1', 's2'] });
    agents = await farm.agents();
    await farm.owned('spread', even);
    sniffer = await farm.lab.sniff();
    kept = await onAll(waysOf(), (way) => farm.load('keep', way, { count: 75, intervalMs: 1000 }));
    fresh = await onAll(waysOf(), (way) =>
      farm.load('tcp', way, { count: 50, first: 100, intervalMs: 1000 }),
    );
    await onAll([...kept, ...fresh], (load) => everybody(load));
  });
  after(async () => farm?.down());

  /** After a step: every connection still works and is with its server; new ones go by the table. */
  const assertStep = async (owned: Readonly<Record<string, number>>) => {
    await farm.owned('spread', owned);
    await onAll(fresh, (load) => load.mark('settled'));
    await onAll([...kept, ...fresh], (load) => everybody(load));
    for (const load of kept) {
      const stats = await load.stats();
      assertUnharmed(stats);
      assert.equal(stats.moves + stats.timeouts, 0, JSON.stringify(stats));
    }
    // A request that began before the mark may be answered by the table before.
    await onAll(fresh, (load) => load.mark('measured'));
    for (const load of fresh) {
      const stats = await load.until(({ answers }) => answers >= 100, 30_000);
      assertUnharmed(stats);
      assertShares(stats, owned);
    }
    assertSingle(await sniffer.mark());
  };

  test('survive the join of a server', async () => {
    await farm.members(['s1', 's2', 's3']);
    await assertStep({ s1: 1366, s2: 1365, s3: 1365 });
  });

  test('survive a change of power', async () => {
    const agent = farm.cluster.client(farm.host('s2'));
    await onAll(modes, (mode) => agent.power(mode, 's1', 'spread', 6));
    await assertStep({ s1: 3072, s2: 512, s3: 512 });
    await onAll(modes, (mode) => agent.power(mode, 's1', 'spread', 1));
  });

  test('survive the drain of their server, which gets no new ones', async () => {
    const agent = farm.cluster.client(farm.host('s2'));
    drained = onAll(modes, (mode) => agent.drain(mode, 's2', true));
    await assertStep({ s1: 2048, s2: 0, s3: 2048 });
    for (const mode of modes) {
      const { farm: state } = await farm.status(mode, 's2');
      assert.equal(state?.draining, true);
      assert.ok(
        state?.groups.every(({ buckets }) => buckets === 0),
        JSON.stringify(state),
      );
      assert.ok((state?.groups[0]?.holding ?? 0) > 0, JSON.stringify(state));
    }
  });

  test('survive that another server leaves', async () => {
    await farm.members(['s1', 's2']);
    await assertStep({ s1: 4096, s2: 0, s3: 0 });
  });

  test('end, and the drained server holds nothing any more', async () => {
    for (const stats of await stopAll(kept)) assertUnharmed(stats);
    kept = [];
    for (const status of await drained) {
      for (const { buckets, holding } of status.farm?.groups ?? []) {
        assert.deepEqual({ buckets, holding }, { buckets: 0, holding: 0 });
      }
    }
    const agent = farm.cluster.client(farm.host('s1'));
    await onAll(modes, (mode) => agent.drain(mode, 's2', false));
    await assertStep(even);
    await stopAll(fresh);
  });

  for (const oneWayMs of [0, 40]) {
    test(`servers come and go, the leader too, ${2 * oneWayMs} ms away: nobody is harmed`, async () => {
      const faults = oneWayMs === 0 ? [] : await farm.lab.delay('clients', oneWayMs);
      await sniffer.mark();
      const loads = await onAll(waysOf(), (way) =>
        onAll(['tcp', 'udp'] as const, (kind) =>
          farm.load(kind, way, { count: 50, intervalMs: 1000, timeoutMs: 4000 }),
        ),
      );
      const all = loads.flat();
      await onAll(all, everybody);
      for (const members of [
        ['s1', 's2', 's3'],
        ['s2', 's3'],
        ['s1', 's3'],
        ['s1', 's2'],
      ]) {
        await farm.members(members);
        await onAll(all, everybody);
      }
      for (const stats of await stopAll(all)) assertUnharmed(stats);
      assertSingle(await sniffer.mark());
      for (const fault of faults) await farm.lab.heal(fault);
    });
  }

  for (const way of waysOf(['directed'])) {
    test(`neighbours learn that the server they send to leaves, IPv${way.family}`, async () => {
      await farm.members(['s1', 's2', 's3']);
      const load = await farm.load('tcp', way);
      await load.until(({ answers }) => answers > 0, 30_000);
      await load.stop();
      const director = await farm.director(way);
      assert.ok(director !== null);
      await farm.members(['s1', 's2', 's3'].filter((name) => name !== director));
      // Nobody asks meanwhile: only what the servers say by themselves can change it.
      await eventually(`another server than ${director}`, async () => {
        const now = await farm.director(way);
        return now === null || now === director ? null : now;
      });
    });
  }

  test('no agent has ended', async () => {
    assert.deepEqual(await farm.agents(), agents);
  });
});
