import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  assertSingle,
  assertUnharmed,
  Farm,
  modes,
  onAll,
  skip,
  stopAll,
  waysOf,
} from './support.ts';

describe('a farm of three servers', { skip, timeout: 240_000 }, () => {
  let farm: Farm;
  before(async () => {
    farm = await Farm.up();
  });
  after(async () => farm?.down());

  for (const kind of ['tcp', 'keep', 'udp'] as const) {
    test(`each request is answered exactly once, ${kind}`, async () => {
      const sniffer = await farm.lab.sniff();
      const loads = await onAll(waysOf(), (way) =>
        farm.load(kind, way, { intervalMs: 1000, ...(kind === 'keep' ? {} : { timeoutMs: 5000 }) }),
      );
      const stats = await onAll(loads, async (load) => {
        await load.until(({ answers }) => answers >= 500, 60_000);
        await load.pause();
        return load.until(({ waiting }) => waiting === 0, 10_000);
      });
      await stopAll(loads);
      const seen = await sniffer.stop();
      assertSingle(seen);
      for (const one of stats) {
        assertUnharmed(one);
        assert.equal(one.answers, one.requests);
        assert.equal(one.late + one.timeouts, 0, JSON.stringify(one));
        assert.deepEqual(Object.keys(one.servers).toSorted(), ['s1', 's2', 's3']);
      }
    });
  }
});
