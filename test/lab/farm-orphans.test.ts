/** The power of a server is pulled: what its clients see, and what all the others do not. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  assertSingle,
  assertUnharmed,
  everybody,
  Farm,
  onAll,
  skip,
  stopAll,
  waysOf,
} from './support.ts';

const everyone = ['s1', 's2', 's3'];

describe('a server whose power is pulled', { skip, timeout: 240_000 }, () => {
  let farm: Farm;
  before(async () => {
    farm = await Farm.up();
  });
  after(async () => farm?.down());

  for (const victim of ['s2', 's1']) {
    const role = victim === 's1' ? 'leader' : 'follower';
    test(`${role}: its connections are reset when used, all others live on`, async () => {
      const survivors = everyone.filter((name) => name !== victim);
      const sniffer = await farm.lab.sniff();
      const kept = await onAll(waysOf(), (way) =>
        farm.load('keep', way, { count: 50, intervalMs: 500 }),
      );
      const fresh = await onAll(waysOf(), (way) =>
        onAll(['tcp', 'udp'] as const, (kind) =>
          farm.load(kind, way, { count: 25, first: 100, intervalMs: 500, timeoutMs: 300 }),
        ),
      );
      const all = [...kept, ...fresh.flat()];
      await onAll(all, (load) => everybody(load));
      const before = await onAll(kept, (load) => load.clients());
      await farm.host(victim).power();
      await farm.settled(survivors);
      await onAll(all, (load) => everybody(load));
      for (const [i, load] of kept.entries()) {
        const stats = await load.stop();
        const orphans = (before[i] ?? []).filter(({ server }) => server === victim).length;
        assert.ok(orphans > 0, 'some connections were with it');
        // One RST for each, and none for those of the survivors.
        assertUnharmed({ ...stats, resets: stats.resets - orphans });
        assert.equal(stats.moves, orphans, JSON.stringify(stats));
        assert.equal(stats.clientsByServer[victim] ?? 0, 0, JSON.stringify(stats));
      }
      for (const stats of await stopAll(fresh.flat())) {
        assert.equal(stats.doubles, 0, JSON.stringify(stats));
        assert.equal(stats.clientsByServer[victim] ?? 0, 0, JSON.stringify(stats));
      }
      assertSingle(await sniffer.stop());
      await farm.host(victim).boot();
      await farm.cluster.startAgent(farm.host(victim));
      await farm.members(everyone);
    });
  }
});
