/** What the failover bench makes of its probes' figures. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  gapsOf,
  isOver,
  percentile,
  type Pull,
  servedBy,
  summaryOf,
} from '../../bench/failover/figures.ts';
import type { ClientRecord } from '../../src/lab/clients.ts';
import { fc } from '../support/random.ts';

/** Clients by the server that answered them last and their longest wait, ms. */
function records(...clients: readonly (readonly [string | null, number])[]): ClientRecord[] {
  return clients.map(([server, gapMs], index) => ({
    addr: `10.50.100.${index + 1}`,
    server,
    answers: 100,
    moves: 0,
    lastAnswerUs: 1_000_000,
    longestGapUs: gapMs * 1000,
    waitingSinceUs: 0,
  }));
}

function pull(gapMs: number, values: Partial<Pull> = {}): Pull {
  return {
    victim: 's1',
    gapMs,
    hit: 10,
    clients: 30,
    othersMs: 1,
    quietMs: 1,
    lateMs: 0.1,
    ...values,
  };
}

describe('one pull', () => {
  const before = records(['s1', 1], ['s2', 1], ['s1', 2], ['s3', 1], [null, 0]);
  const hit = servedBy(before, 's1');

  test('those are hit whom the pulled server served', () => assert.deepEqual(hit, [0, 2]));

  test('over when each of them was answered by another server', () => {
    assert.equal(isOver(before, hit, 's1'), false);
    assert.equal(isOver(records(['s2', 9], ['s2', 1], ['s1', 2]), hit, 's1'), false);
    assert.equal(isOver(records(['s2', 9], ['s1', 1], ['s3', 9]), hit, 's1'), true);
  });

  test('its gap is the longest wait of those that were hit, the others apart', () => {
    const after = records(['s2', 201], ['s2', 3], ['s3', 208.5], ['s3', 12], ['s2', 0]);
    assert.deepEqual(gapsOf(after, hit), { gapMs: 208.5, othersMs: 12 });
  });

  test('a server that takes 40 ms longer is seen as such, whichever client it hits', () => {
    const slow = (at: number) => {
      const gaps = [201, 3, 208, 12, 0].map((gap, index) => gap + (index === at ? 40 : 0));
      return gapsOf(records(...gaps.map((gap) => ['s2', gap] as const)), hit).gapMs;
    };
    assert.deepEqual([slow(0), slow(2)], [241, 248]);
    // Waits of clients of other servers are not the pull's.
    assert.deepEqual([slow(1), slow(3)], [208, 208]);
  });

  test('where nobody was hit there is no figure', () => {
    assert.throws(() => gapsOf(records(['s2', 5]), []), /nothing was measured/);
  });
});

describe('percentiles', () => {
  test('nearest rank', () => {
    const twenty = Array.from({ length: 20 }, (_, at) => 20 - at);
    assert.deepEqual(
      [0.5, 0.95, 1].map((q) => percentile(twenty, q)),
      [10, 19, 20],
    );
    assert.deepEqual(
      [0.5, 0.95, 1].map((q) => percentile([7], q)),
      [7, 7, 7],
    );
    assert.deepEqual(
      [0.5, 0.95, 1].map((q) => percentile([30, 9, 100], q)),
      [30, 100, 100],
    );
  });

  test('no values, no percentile', () => assert.ok(Number.isNaN(percentile([], 0.5))));

  test('a part q of the values is not above it, and it is one of them', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 1, maxLength: 50 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        (values, q) => {
          const at = percentile(values, q);
          const below = values.filter((value) => value < at).length;
          const notAbove = values.filter((value) => value <= at).length;
          const rank = q * values.length;
          return values.includes(at) && below < rank && notAbove >= rank;
        },
      ),
    );
  });
});

describe('a row', () => {
  const base = Array.from({ length: 20 }, (_, at) => pull(180 + at));

  test('percentiles over its pulls', () => {
    const { pulls, p50Ms, p95Ms, maxMs } = summaryOf(base);
    assert.deepEqual([pulls, p50Ms, p95Ms, maxMs], [20, 189, 198, 199]);
  });

  test('40 ms more in each pull are 40 ms more in each percentile', () => {
    const slow = summaryOf(base.map((one) => pull(one.gapMs + 40)));
    assert.deepEqual([slow.p50Ms, slow.p95Ms, slow.maxMs], [229, 238, 239]);
  });

  test('one slow pull of 20 is the maximum and nothing else', () => {
    const slow = summaryOf(base.map((one, at) => (at === 4 ? pull(500) : one)));
    assert.deepEqual([slow.p50Ms, slow.maxMs], [190, 500]);
    assert.ok(slow.p95Ms < 200);
  });

  test('the share of clients that were hit, and the worst of all other times', () => {
    const summary = summaryOf([
      pull(200, { hit: 8, othersMs: 4, quietMs: 9, lateMs: 3 }),
      pull(210, { hit: 13, othersMs: 6, quietMs: 2, lateMs: 1 }),
    ]);
    assert.equal(summary.hitShare, 21 / 60);
    assert.deepEqual([summary.othersMaxMs, summary.quietMaxMs, summary.lateMaxMs], [6, 9, 3]);
  });
});
