/** The records that a witness keeps, read from its folder beside it. Layout: native/witness/store.cc. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ArbiterRecord } from '../core/mirror-types.ts';
import { parseRecord } from './record.ts';
import { readRecord } from './witness-wire.ts';

export interface KeptRecord {
  readonly clusterId: string;
  readonly module: string;
  /** Null: the file is damaged. */
  readonly record: ArbiterRecord | null;
}

/** Offsets in a file, and its size. */
const at = { module: 32, record: 64, sha256: 96, size: 128 } as const;
const magic = Buffer.from('HFWTNIT1', 'latin1');

/** All records of all clusters, by name. Rejects with the errno error of a folder that cannot be read. */
export async function keptRecords(state: string): Promise<readonly KeptRecord[]> {
  const kept: KeptRecord[] = [];
  const clusters = (await readdir(state)).filter((name) => /^[0-9a-f]{16}$/.test(name));
  for (const clusterId of clusters.toSorted()) {
    const folder = join(state, clusterId, 'records');
    for (const module of (await namesIn(folder)).toSorted()) {
      const record = parseFile(await readFile(join(folder, module)), module);
      kept.push({ clusterId, module, record });
    }
  }
  return kept;
}

/** Names of records; those that were set aside and what is being written begin with a dot. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => !name.startsWith('.'));
  } catch (error) {
    // A cluster that joined while no witness ran.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function parseFile(bytes: Buffer, module: string): ArbiterRecord | null {
  if (bytes.length !== at.size || !bytes.subarray(0, 8).equals(magic)) return null;
  const digest = createHash('sha256').update(bytes.subarray(0, at.sha256)).digest();
  if (!digest.equals(bytes.subarray(at.sha256))) return null;
  const name = bytes.toString('latin1', at.module, at.record).replace(/\0+$/, '');
  if (name !== module) return null;
  try {
    return parseRecord(readRecord(bytes, at.record));
  } catch {
    return null;
  }
}
