/** Sets of nodes (bigint, bit n = node n) and sets of buckets (Uint8Array of bitmapBytes). */
import { bitmapBytes, bucketCount, nobody, nodeCountMax } from './farm-types.ts';

export function bitOf(node: number): bigint {
  return 1n << BigInt(node);
}

export function maskHas(mask: bigint, node: number): boolean {
  return (mask & bitOf(node)) !== 0n;
}

export function maskOf(nodes: Iterable<number>): bigint {
  let mask = 0n;
  for (const node of nodes) mask |= bitOf(node);
  return mask;
}

/** Node ids of a mask, lowest first. */
export function nodesOf(mask: bigint): number[] {
  const nodes: number[] = [];
  // Two 32-bit halves: shifting a bigint 64 times would be the slowest line of the machine.
  for (const [half, first] of [
    [Number(mask & 0xffffffffn), 0],
    [Number((mask >> 32n) & 0xffffffffn), 32],
  ] as const) {
    for (let bit = 0; bit < 32 && half >>> bit !== 0; bit++) {
      if (((half >>> bit) & 1) === 1) nodes.push(first + bit);
    }
  }
  return nodes;
}

/** Lowest node of a mask; nobody where it is empty. */
export function lowestOf(mask: bigint): number {
  return nodesOf(mask)[0] ?? nobody;
}

export function validMask(mask: bigint): boolean {
  return mask >= 0n && mask >> BigInt(nodeCountMax) === 0n;
}

export type Bitmaps = readonly Uint8Array[];

export function emptyMaps(groups: number): Uint8Array[] {
  return Array.from({ length: groups }, () => new Uint8Array(bitmapBytes));
}

export function fullMaps(groups: number): Uint8Array[] {
  return Array.from({ length: groups }, () => new Uint8Array(bitmapBytes).fill(255));
}

export function hasBucket(map: Uint8Array, bucket: number): boolean {
  return (((map[bucket >> 3] ?? 0) >> (bucket & 7)) & 1) === 1;
}

export function addBucket(map: Uint8Array, bucket: number): void {
  map[bucket >> 3] = (map[bucket >> 3] ?? 0) | (1 << (bucket & 7));
}

export function isEmpty(maps: Bitmaps): boolean {
  for (const map of maps) {
    for (const byte of map) if (byte !== 0) return false;
  }
  return true;
}

export function countBuckets(map: Uint8Array): number {
  let count = 0;
  for (let byte of map) {
    for (; byte !== 0; byte &= byte - 1) count++;
  }
  return count;
}

export function unionMaps(a: Bitmaps, b: Bitmaps): Uint8Array[] {
  return a.map((map, g) => map.map((byte, i) => byte | (b[g]?.[i] ?? 0)));
}

export function commonMaps(a: Bitmaps, b: Bitmaps): Uint8Array[] {
  return a.map((map, g) => map.map((byte, i) => byte & (b[g]?.[i] ?? 0)));
}

export function sameMaps(a: Bitmaps, b: Bitmaps): boolean {
  return a.length === b.length && a.every((map, g) => sameBytes(map, b[g]));
}

export function sameBytes(a: Uint8Array, b: Uint8Array | undefined): boolean {
  if (b === undefined || a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Per group, the buckets that the owner arrays give to a node. */
export function ownedBy(owners: readonly Uint8Array[], node: number): Uint8Array[] {
  return owners.map((owner) => {
    const map = new Uint8Array(bitmapBytes);
    for (let b = 0; b < bucketCount; b++) if (owner[b] === node) addBucket(map, b);
    return map;
  });
}
