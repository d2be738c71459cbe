/**
 * What lies in a journal behind its end is left over from an earlier lap: well-formed records that
 * do not follow. A run of a second does not come to a second lap, so it is put there.
 */
import { open, readFile } from 'node:fs/promises';

const block = 4096;
const headSize = 48;
const maxRecord = 2 << 20;
/** How much of the older records is put behind the end. */
const most = 16 * block;

interface Head {
  readonly size: number;
  readonly lsn: number;
}

/** The record at `at` (docs/internals/replication.md: head of 48 bytes); null: there is none. */
function headAt(journal: Buffer, at: number): Head | null {
  if (at + headSize > journal.length) return null;
  const size = journal.readUInt32LE(at);
  const lsn = Number(journal.readBigUInt64LE(at + 8));
  const kind = journal.readUInt16LE(at + 40);
  const isRecord = size >= headSize && size <= maxRecord && kind >= 1 && kind <= 14 && lsn > 0;
  return isRecord && journal.readBigUInt64LE(at + 16) < 1000n ? { size, lsn } : null;
}

const blockUp = (at: number): number => Math.ceil(at / block) * block;

/** Copies older writes behind the end of a journal that is not in use. False: it has too few. */
export async function putOlderLap(path: string): Promise<boolean> {
  const journal = await readFile(path);
  const writes: { at: number; lsn: number }[] = [];
  for (let at = 0; at < journal.length; ) {
    const first = headAt(journal, at);
    if (first === null) break;
    writes.push({ at, lsn: first.lsn });
    let lsn = first.lsn;
    for (let head: Head | null = first; head !== null && head.lsn === lsn; lsn++) {
      at += head.size;
      head = headAt(journal, at);
    }
    at = blockUp(at);
  }
  const end = writes.at(-1);
  const from = writes[Math.floor(writes.length / 3)];
  if (end === undefined || from === undefined || end.at - from.at < block) return false;
  let behind = end.at;
  for (let head = headAt(journal, behind); head !== null; head = headAt(journal, behind)) {
    behind += head.size;
  }
  behind = blockUp(behind);
  const older = journal.subarray(from.at, Math.min(end.at, from.at + most));
  if (behind + older.length > journal.length) return false;
  const file = await open(path, 'r+');
  await file.write(older, 0, older.length, behind);
  await file.close();
  return true;
}
