/**
 * What the engine's superblock says of this server's copy, read while no engine runs. Its layout is
 * in docs/internals/replication.md; the engine alone writes it.
 */
import { readFileSync } from 'node:fs';
import type { CopyState } from '../core/mirror.ts';
import { errnoOf } from '../module/durable.ts';

export interface Superblock {
  readonly copy: CopyState;
  /** The highest epoch that this copy was told of: the engine takes no data of an older one. */
  readonly epoch: number;
}

const slotBytes = 4096;
const slots = 2;
const magic = 'HDFSUP01';
const at = { sequence: 8, crc: 16, epoch: 40, state: 48 } as const;
const states: readonly CopyState[] = ['none', 'inSync', 'stale', 'failed', 'inconsistent'];

/** No file: there never was a copy. One that cannot be read: the copy counts as failed. */
export function readSuperblock(path: string): Superblock {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    return { copy: errnoOf(error) === 'ENOENT' ? 'none' : 'failed', epoch: 0 };
  }
  let newest = 0n;
  let found: Superblock = { copy: 'failed', epoch: 0 };
  for (let index = 0; index < slots; index++) {
    const slot = bytes.subarray(index * slotBytes, (index + 1) * slotBytes);
    if (!isWhole(slot, index)) continue;
    const sequence = slot.readBigUInt64LE(at.sequence);
    const copy = states[slot.readUInt32LE(at.state)];
    if (sequence <= newest || copy === undefined) continue;
    newest = sequence;
    found = { copy, epoch: Number(slot.readBigUInt64LE(at.epoch)) };
  }
  return found;
}

function isWhole(slot: Buffer, index: number): boolean {
  if (slot.length !== slotBytes || slot.toString('latin1', 0, magic.length) !== magic) return false;
  if (slot.readBigUInt64LE(at.sequence) % BigInt(slots) !== BigInt(index)) return false;
  const copy = Buffer.from(slot);
  copy.writeUInt32LE(0, at.crc);
  return crc32c(copy) === slot.readUInt32LE(at.crc);
}

/** CRC-32C (RFC 3720, B.4): the polynomial reflected, all ones before and after. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 0 ? 0 : 0x82f63b78);
  }
  return ~crc >>> 0;
}
