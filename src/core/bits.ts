/** Sets of nodes (bigint, bit n = node n) and sets of buckets (Uint8Array of bitmapBytes). */
import { bitmapBytes, bucketCount, nobody, nodeCountMax } from './farm-types.ts';

const bits = Array.from({ length: 64 }, (_unused, node) => 1n << BigInt(node));

export function bitOf(node: number): bigint {
  return bits[node] ?? 0n;
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
    for (let i = 0; i < map.length; i++) if (map[i] !== 0) return false;
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
  return combine(a, b, (x, y) => x | y);
}

export function commonMaps(a: Bitmaps, b: Bitmaps): Uint8Array[] {
  return combine(a, b, (x, y) => x & y);
}

/** The buckets of a that are not in b. */
export function exceptMaps(a: Bitmaps, b: Bitmaps): Uint8Array[] {
  return combine(a, b, (x, y) => x & ~y);
}

function combine(a: Bitmaps, b: Bitmaps, op: (x: number, y: number) => number): Uint8Array[] {
  return a.map((map, g) => {
    const other = b[g];
    const result = new Uint8Array(map.length);
    for (let i = 0; i < map.length; i++) result[i] = op(map[i] ?? 0, other?.[i] ?? 0);
    return result;
  });
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
  return ownerMaps(owners).get(node) ?? emptyMaps(owners.length);
}

/** The same for all nodes that own anything, in one pass. */
export function ownerMaps(owners: readonly Uint8Array[]): Map<number, Uint8Array[]> {
  const all = new Map<number, Uint8Array[]>();
  for (const [g, owner] of owners.entries()) {
    let last = nobody;
    let map = new Uint8Array(0);
    for (let b = 0; b < bucketCount; b++) {
      const node = owner[b] as number;
      if (node === nobody) continue;
      // Neighbours mostly have the same owner: the lookup is rare.
      if (node !== last) {
        last = node;
        const maps = all.get(node) ?? emptyMaps(owners.length);
        all.set(node, maps);
        map = maps[g] as Uint8Array<ArrayBuffer>;
      }
      const i = b >> 3;
      map[i] = (map[i] as number) | (1 << (b & 7));
    }
  }
  return all;
}
