/**
 * Who serves which of the 4096 buckets of a group.
 *
 * shares: largest remainder on the powers; exact in doubles, as 2^24 x 4096 and 64 x 2^24 are far
 * below 2^53. table: from the previous one, with as few moves as the shares allow, so that a change
 * disturbs only the clients that it must. Both are functions of their arguments alone: every node
 * that computes them comes to the same result.
 */
import { bucketCount, nobody } from './farm-types.ts';

export const powerMax = 2 ** 24;

/** A node that may own buckets, and its power (integer, 0 to powerMax). */
export interface Weight {
  readonly node: number;
  readonly power: number;
}

/**
 * Buckets per node, in the order of `weights`; the sum is bucketCount, or 0 where all powers are 0.
 * `owned`: buckets that each has now. Where remainders are equal it decides, so that a tie moves
 * nothing; then the lower id.
 */
export function shares(weights: readonly Weight[], owned: readonly number[]): number[] {
  let total = 0;
  for (const { power } of weights) total += power;
  if (total === 0) return weights.map(() => 0);
  const rows = weights.map(({ node, power }, i) => {
    const exact = power * bucketCount;
    const remainder = exact % total;
    return { i, node, power, owned: owned[i] ?? 0, remainder, share: (exact - remainder) / total };
  });
  let left = bucketCount;
  for (const row of rows) left -= row.share;
  const order = rows
    .filter((row) => row.remainder > 0)
    .toSorted((a, b) => b.remainder - a.remainder || b.owned - a.owned || a.node - b.node);
  for (const row of order.slice(0, left)) row.share++;
  return rows.map((row) => row.share);
}

/**
 * The owner of each bucket. `previous`: the table before (nobody = 255 where a bucket is free); a
 * node without weight loses its buckets, one above its share loses those with the highest numbers.
 */
export function buildTable(weights: readonly Weight[], previous: Uint8Array): Uint8Array {
  const slotOf = new Int8Array(256).fill(-1);
  for (const [slot, { node }] of weights.entries()) slotOf[node] = slot;
  const owned = new Int32Array(weights.length);
  for (let b = 0; b < bucketCount; b++) {
    const slot = slotAt(slotOf, previous, b);
    if (slot >= 0) owned[slot] = (owned[slot] ?? 0) + 1;
  }
  const share = shares(weights, [...owned]);
  if (isFull(owned) && share.every((count, slot) => count === owned[slot])) return previous;
  const missing = Int32Array.from(share);
  const table = new Uint8Array(bucketCount).fill(nobody);
  for (let b = 0; b < bucketCount; b++) {
    const slot = slotAt(slotOf, previous, b);
    if (slot < 0 || missing[slot] === 0) continue;
    table[b] = previous[b] ?? nobody;
    missing[slot] = (missing[slot] ?? 0) - 1;
  }
  let next = 0;
  for (let b = 0; b < bucketCount; b++) {
    if (table[b] !== nobody) continue;
    while (next < weights.length && missing[next] === 0) next++;
    const weight = weights[next];
    if (weight === undefined) break;
    table[b] = weight.node;
    missing[next] = (missing[next] ?? 0) - 1;
  }
  return table;
}

/** The place in the list of weights of a bucket's owner; -1: none. */
function slotAt(slotOf: Int8Array, table: Uint8Array, bucket: number): number {
  return slotOf[table[bucket] ?? nobody] ?? -1;
}

function isFull(owned: Int32Array): boolean {
  let total = 0;
  for (const count of owned) total += count;
  return total === bucketCount;
}

/** How many buckets have different owners in two tables. */
export function movedBuckets(a: Uint8Array, b: Uint8Array): number {
  let moved = 0;
  for (let i = 0; i < bucketCount; i++) if (a[i] !== b[i]) moved++;
  return moved;
}
