import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bucketCount, nobody } from '../../src/core/farm-types.ts';
import { buildTable, movedBuckets, powerMax, shares, type Weight } from '../../src/core/table.ts';
import { fc } from '../support/random.ts';

const free = (): Uint8Array => new Uint8Array(bucketCount).fill(nobody);

function counts(table: Uint8Array): Map<number, number> {
  const result = new Map<number, number>();
  for (const owner of table) result.set(owner, (result.get(owner) ?? 0) + 1);
  return result;
}

const weights = (...powers: number[]): Weight[] => powers.map((power, node) => ({ node, power }));

const anyWeights = fc
  .uniqueArray(fc.integer({ min: 0, max: 63 }), { minLength: 1, maxLength: 12 })
  .chain((nodes) =>
    fc.tuple(
      ...nodes.map((node) =>
        fc
          .oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: powerMax }))
          .map((power) => ({ node, power })),
      ),
    ),
  );

describe('shares', () => {
  it('cascades with powers 64 x 64, 64, 1', () => {
    assert.deepEqual(shares(weights(64 * 64, 64, 1), [0, 0, 0]), [4032, 63, 1]);
  });

  it('splits evenly, the remainder to the lowest ids', () => {
    assert.deepEqual(shares(weights(1, 1, 1), [0, 0, 0]), [1366, 1365, 1365]);
  });

  it('gives the remainder of a tie to the one that has the bucket already', () => {
    assert.deepEqual(shares(weights(1, 1, 1), [1365, 1365, 1366]), [1365, 1365, 1366]);
  });

  it('gives nothing to anybody when all powers are zero', () => {
    assert.deepEqual(shares(weights(0, 0), [4096, 0]), [0, 0]);
  });

  it('is exact at the greatest powers', () => {
    assert.deepEqual(shares(weights(powerMax, powerMax - 1), [0, 0]), [2048, 2048]);
    const many = Array.from({ length: 64 }, (_unused, node) => ({ node, power: powerMax }));
    assert.deepEqual(new Set(shares(many, [])), new Set([64]));
  });

  it('is within one bucket of the exact share, and complete', () => {
    fc.assert(
      fc.property(anyWeights, (list) => {
        const result = shares(list, []);
        const total = list.reduce((sum, { power }) => sum + BigInt(power), 0n);
        const given = result.reduce((sum, share) => sum + share, 0);
        assert.equal(given, total === 0n ? 0 : bucketCount);
        for (const [i, { power }] of list.entries()) {
          const exact = BigInt(power) * BigInt(bucketCount);
          const low = total === 0n ? 0n : exact / total;
          const share = BigInt(result[i] ?? -1);
          const whole = total === 0n || exact % total === 0n;
          assert.ok(share === low || (!whole && share === low + 1n), `${share} for ${power}`);
        }
      }),
    );
  });
});

describe('buildTable', () => {
  it('gives every bucket to one of the nodes, by their shares', () => {
    const table = buildTable(weights(3, 1), free());
    assert.deepEqual(
      counts(table),
      new Map([
        [0, 3072],
        [1, 1024],
      ]),
    );
  });

  it('gives all to nobody when no node may serve', () => {
    assert.ok(
      buildTable(weights(0, 0), buildTable(weights(1, 1), free())).every((o) => o === nobody),
    );
    assert.ok(buildTable([], free()).every((owner) => owner === nobody));
  });

  it('moves only the buckets of a node that died', () => {
    const before = buildTable(weights(1, 1, 1), free());
    const after = buildTable(weights(1, 1), before);
    for (let b = 0; b < bucketCount; b++) {
      if (before[b] !== 2) assert.equal(after[b], before[b]);
      else assert.ok(after[b] === 0 || after[b] === 1);
    }
  });

  it('moves only the share of a node that joins', () => {
    const before = buildTable(weights(1, 1), free());
    const after = buildTable(weights(1, 1, 2), before);
    assert.equal(movedBuckets(before, after), 2048);
    assert.equal(counts(after).get(2), 2048);
  });

  it('changes nothing when nothing changed', () => {
    const before = buildTable(weights(5, 7, 11), free());
    assert.equal(movedBuckets(before, buildTable(weights(5, 7, 11), before)), 0);
  });

  it('moves no bucket that the shares do not ask for', () => {
    fc.assert(
      fc.property(anyWeights, anyWeights, (first, second) => {
        const before = buildTable(first, free());
        const after = buildTable(second, before);
        const had = counts(before);
        const has = counts(after);
        let least = 0;
        for (const [node, count] of had) least += Math.max(0, count - (has.get(node) ?? 0));
        assert.equal(movedBuckets(before, after), least);
      }),
    );
  });

  it('is a function of its arguments, whatever the order in which changes came', () => {
    fc.assert(
      fc.property(anyWeights, anyWeights, (first, second) => {
        const before = buildTable(first, free());
        assert.deepEqual(buildTable(second, before), buildTable(second, before.slice()));
      }),
      { numRuns: 30 },
    );
  });
});
