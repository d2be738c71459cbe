/** Shares by power, cascades, no power at all. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  assertShares,
  assertSingle,
  assertUnharmed,
  Farm,
  modes,
  onAll,
  type Service,
  settledStats,
  skip,
  stopAll,
  waysOf,
} from './support.ts';

describe('power', { skip, timeout: 240_000 }, () => {
  let farm: Farm;
  let agents: readonly string[];
  before(async () => {
    farm = await Farm.up();
    agents = await farm.agents();
  });
  after(async () => farm?.down());

  /** Waits until the buckets of a group are so, and measures that requests follow. */
  const assertGroup = async (
    service: Service,
    owned: Readonly<Record<string, number>>,
    asked: number,
  ) => {
    await farm.owned(service, owned);
    const sniffer = await farm.lab.sniff();
    for (const kind of ['tcp', 'udp'] as const) {
      // Datagrams are shared by their socket's port, so that each socket is asked once.
      const load = kind === 'tcp' ? { intervalMs: 1000 } : { count: asked, intervalMs: 10 * asked };
      const loads = await onAll(waysOf(), (way) => farm.load(kind, { ...way, service }, load));
      for (const stats of await onAll(loads, (one) => settledStats(one, asked))) {
        assertUnharmed(stats);
        assert.equal(stats.timeouts, 0, JSON.stringify(stats));
        assertShares(stats, owned);
      }
      await stopAll(loads);
    }
    assertSingle(await sniffer.stop());
  };

  test('3 : 2 : 1', () => assertGroup('shares', { s1: 2048, s2: 1365, s3: 683 }, 600));

  test('a cascade: nearly all to the strongest that lives', async () => {
    await assertGroup('cascade', { s1: 4032, s2: 63, s3: 1 }, 200);
    await farm.members(['s2', 's3']);
    await assertGroup('cascade', { s1: 0, s2: 4033, s3: 63 }, 200);
    await farm.members(['s3']);
    await assertGroup('cascade', { s1: 0, s2: 0, s3: 4096 }, 200);
    await farm.members(['s1', 's2', 's3']);
    await assertGroup('cascade', { s1: 4032, s2: 63, s3: 1 }, 200);
  });

  test('no power: no new client, in that group only', async () => {
    const agent = farm.cluster.client(farm.host('s1'));
    await onAll(modes, (mode) => agent.power(mode, 's2', 'spread', 0));
    await assertGroup('spread', { s1: 2048, s2: 0, s3: 2048 }, 300);
    for (const mode of modes) {
      const groups = (await farm.status(mode, 's2')).farm?.groups;
      const sticky = groups?.find(({ name }) => name === 'sticky');
      assert.ok(sticky !== undefined && sticky.buckets >= 1365, JSON.stringify(groups));
    }
    await onAll(modes, (mode) => agent.power(mode, 's2', 'spread', 2));
    await assertGroup('spread', { s1: 1024, s2: 2048, s3: 1024 }, 300);
  });

  test('no agent has ended', async () => {
    assert.deepEqual(await farm.agents(), agents);
  });
});
