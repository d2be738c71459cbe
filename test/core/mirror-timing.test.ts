/** The chain of deadlines of each shipped profile keeps its order. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mirrorProfiles, mirrorTiming, timingFaults } from '../../src/core/mirror.ts';

describe('mirror: timing', () => {
  for (const [name, pace] of Object.entries(mirrorProfiles)) {
    it(`${name}: suspicion, head start, lease and grace follow one another`, () => {
      assert.deepEqual(timingFaults(pace), []);
      const timing = mirrorTiming(pace);
      assert.ok(pace.suspectMs < timing.suspectMs + timing.headStartMs);
      // The incumbent has its head start before its lease ends; the grace outlives the lease.
      assert.ok(timing.suspectMs + timing.headStartMs < timing.leaseMs);
      assert.ok(timing.graceMs >= timing.leaseMs * 1.01 + 50);
      // A secondary claims while a starting server waits for its word.
      assert.ok(timing.askMs > timing.headStartMs + 2 * timing.retryMs);
    });
  }

  it('default and fast: the address is free in time', () => {
    assert.ok(mirrorTiming(mirrorProfiles.default).graceMs <= 1700);
    assert.ok(mirrorTiming(mirrorProfiles.fast).graceMs <= 400);
  });

  it('a pace without room is refused, with the reason', () => {
    const what = (pace: Parameters<typeof timingFaults>[0], arbiterMs = 0) =>
      timingFaults(pace, arbiterMs).map((fault) => fault.what);
    const { default: pace } = mirrorProfiles;
    assert.deepEqual(what({ ...pace, leaseMs: 900 }), ['lease_below_suspect']);
    assert.deepEqual(what({ ...pace, heartbeatMs: 300 }), ['suspect_below_heartbeats']);
    assert.deepEqual(what({ ...pace, leaseMs: 1020 }), ['no_room_for_the_arbiter']);
    assert.deepEqual(what(pace, 200), ['no_room_for_the_arbiter']);
  });
});
