import { TextDecoder } from 'node:util';
import { constants, crc32, deflateRawSync, inflateRawSync } from 'node:zlib';
import { HoldfastError } from '../errors.ts';

/*
 * The zip dialect of .safe archives (PKWARE APPNOTE 6.3): one disk, stored or deflated entries, no
 * encryption, no zip64. An archive is at most 64 MiB, so it is read whole and checked whole before the
 * first byte is written. The central directory is the only truth; local headers must agree with it.
 * Libraries were looked at: those with few dependencies either hide the attributes that betray a
 * symlink or check neither checksums nor overlapping entries, which is most of what is done here.
 */

export interface ZipEntry {
  /** Relative, with `/`; without the trailing `/` of a folder. */
  readonly name: string;
  readonly directory: boolean;
  /** Unix permission bits, 0 where the archive has none. */
  readonly mode: number;
  readonly data: Uint8Array;
}

export interface ZipLimits {
  readonly entries: number;
  readonly bytes: number;
}

const localSignature = 0x04034b50;
const centralSignature = 0x02014b50;
const endSignature = 0x06054b50;
const endSize = 22;
const centralSize = 46;
const localSize = 30;
const stored = 0;
const deflated = 8;
const madeByUnix = 3;
const utf8Flag = 0x0800;
const encryptedFlags = 0x2041;
const typeMask = 0o170000;
const typeNames: Readonly<Record<number, string>> = {
  0o120000: 'symbolic link',
  0o060000: 'block device',
  0o020000: 'character device',
  0o010000: 'named pipe',
  0o140000: 'socket',
};

interface CentralEntry extends Omit<ZipEntry, 'data'> {
  readonly method: number;
  readonly crc: number;
  readonly packedSize: number;
  readonly size: number;
  readonly offset: number;
}

/**
 * Reads an archive whole. Throws HF-MODULE-010 for what is no such archive, -011 to -016 for unsafe,
 * foreign, double, too many, too large or damaged entries.
 */
export function readZip(archive: Uint8Array, limits: ZipLimits): readonly ZipEntry[] {
  const bytes = Buffer.from(archive.buffer, archive.byteOffset, archive.byteLength);
  const { count, start, end } = findDirectory(bytes);
  if (count > limits.entries) {
    throw new HoldfastError('HF-MODULE-014', { count, limit: limits.entries });
  }
  const central = readDirectory(bytes, count, start, end);
  checkNames(central);
  let total = 0;
  for (const entry of central) {
    total += entry.size;
    if (total > limits.bytes) {
      throw new HoldfastError('HF-MODULE-015', { limit: limits.bytes, entry: entry.name });
    }
  }
  const byOffset = [...central].sort((a, b) => a.offset - b.offset);
  let free = 0;
  const unpacked = new Map<string, Uint8Array>();
  for (const entry of byOffset) {
    if (entry.offset < free) throw damaged(entry.name, 'it overlaps another entry');
    const from = dataStart(bytes, entry, start);
    free = from + entry.packedSize;
    if (free > start) throw damaged(entry.name, 'it ends beyond the entries');
    unpacked.set(entry.name, unpack(entry, bytes.subarray(from, free)));
  }
  return central.map(({ name, directory, mode }) => ({
    name,
    directory,
    mode,
    data: unpacked.get(name) ?? new Uint8Array(),
  }));
}

/** The end record stands last, followed only by its comment (at most 65535 bytes). */
function findDirectory(bytes: Buffer): { count: number; start: number; end: number } {
  const lowest = Math.max(0, bytes.length - endSize - 0xffff);
  for (let at = bytes.length - endSize; at >= lowest; at--) {
    if (bytes.readUInt32LE(at) !== endSignature) continue;
    if (at + endSize + bytes.readUInt16LE(at + 20) !== bytes.length) continue;
    const count = bytes.readUInt16LE(at + 10);
    const size = bytes.readUInt32LE(at + 12);
    const start = bytes.readUInt32LE(at + 16);
    if (bytes.readUInt16LE(at + 4) !== 0 || bytes.readUInt16LE(at + 8) !== count) {
      throw notArchive('it is one part of several');
    }
    if (count === 0xffff || start === 0xffffffff) throw notArchive('zip64 is not supported');
    if (start + size !== at) throw notArchive('its directory is not where the end record says');
    return { count, start, end: at };
  }
  throw notArchive('no end record; the file is no zip or is cut short');
}

function readDirectory(bytes: Buffer, count: number, start: number, end: number): CentralEntry[] {
  const entries: CentralEntry[] = [];
  let at = start;
  for (let i = 0; i < count; i++) {
    if (at + centralSize > end || bytes.readUInt32LE(at) !== centralSignature) {
      throw notArchive(`entry ${i + 1} of its directory is damaged`);
    }
    const nameSize = bytes.readUInt16LE(at + 28);
    const next =
      at + centralSize + nameSize + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
    if (next > end) throw notArchive(`entry ${i + 1} of its directory is damaged`);
    entries.push(readEntry(bytes, at, nameSize));
    at = next;
  }
  if (at !== end) throw notArchive('its directory holds more than the end record says');
  return entries;
}

function readEntry(bytes: Buffer, at: number, nameSize: number): CentralEntry {
  const flags = bytes.readUInt16LE(at + 8);
  const raw = bytes.subarray(at + centralSize, at + centralSize + nameSize);
  const text = decodeName(raw);
  const directory = text.endsWith('/');
  const name = directory ? text.slice(0, -1) : text;
  if ((flags & encryptedFlags) !== 0) throw damaged(name, 'it is encrypted');
  const unixMode = bytes[at + 5] === madeByUnix ? bytes.readUInt16LE(at + 40) : 0;
  const foreign = typeNames[unixMode & typeMask];
  if (foreign !== undefined) {
    throw new HoldfastError('HF-MODULE-012', { entry: printable(name), type: foreign });
  }
  return {
    name,
    directory,
    mode: unixMode & 0o777,
    method: bytes.readUInt16LE(at + 10),
    crc: bytes.readUInt32LE(at + 16),
    packedSize: bytes.readUInt32LE(at + 20),
    size: bytes.readUInt32LE(at + 24),
    offset: bytes.readUInt32LE(at + 42),
  };
}

/** UTF-8 whatever the flag says: Linux tools write it so, and a module needs no other characters. */
function decodeName(raw: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(raw);
  } catch {
    throw unsafeName(raw.toString('latin1'), 'it is not UTF-8');
  }
}

function checkNames(entries: readonly CentralEntry[]): void {
  const seen = new Set<string>();
  const files = new Set<string>();
  for (const { name, directory } of entries) {
    checkName(name);
    if (seen.has(name)) throw new HoldfastError('HF-MODULE-013', { entry: printable(name) });
    seen.add(name);
    if (!directory) files.add(name);
  }
  for (const { name } of entries) {
    for (let cut = name.lastIndexOf('/'); cut > 0; cut = name.lastIndexOf('/', cut - 1)) {
      if (files.has(name.slice(0, cut))) {
        throw unsafeName(name, 'a part of its path is a file of the archive');
      }
    }
  }
}

function checkName(name: string): void {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(name)) throw unsafeName(name, 'it has control characters');
  if (name.includes('\\')) throw unsafeName(name, 'it has a backslash');
  if (name.startsWith('/')) throw unsafeName(name, 'it is absolute');
  if (Buffer.byteLength(name) > 512) throw unsafeName(name, 'it is longer than 512 bytes');
  for (const part of name.split('/')) {
    if (part === '..') throw unsafeName(name, 'it leaves the module by ".."');
    if (part === '' || part === '.') throw unsafeName(name, 'it has an empty or "." part');
    if (Buffer.byteLength(part) > 255) throw unsafeName(name, 'a part is longer than 255 bytes');
  }
}

/** Where the entry's bytes begin, after its local header, which must name the same entry. */
function dataStart(bytes: Buffer, entry: CentralEntry, end: number): number {
  const at = entry.offset;
  if (at + localSize > end || bytes.readUInt32LE(at) !== localSignature) {
    throw damaged(entry.name, 'its local header is missing');
  }
  const nameEnd = at + localSize + bytes.readUInt16LE(at + 26);
  const localName = bytes.toString('utf8', at + localSize, nameEnd);
  if (localName !== (entry.directory ? `${entry.name}/` : entry.name)) {
    throw damaged(entry.name, 'its local header has another name');
  }
  if (bytes.readUInt16LE(at + 8) !== entry.method) {
    throw damaged(entry.name, 'its local header has another compression method');
  }
  return nameEnd + bytes.readUInt16LE(at + 28);
}

function unpack(entry: CentralEntry, packed: Buffer): Uint8Array {
  let data: Buffer;
  if (entry.method === stored) {
    data = packed;
  } else if (entry.method === deflated) {
    try {
      // One byte of room at least: zlib refuses a limit of 0. A bomb stops at the announced size.
      data = inflateRawSync(packed, { maxOutputLength: Math.max(1, entry.size) });
    } catch {
      throw damaged(entry.name, 'it does not inflate to the size announced');
    }
  } else {
    throw damaged(entry.name, `compression method ${entry.method} is not supported`);
  }
  if (data.length !== entry.size) throw damaged(entry.name, 'its size is not the one announced');
  if (crc32(data) !== entry.crc) throw damaged(entry.name, 'its checksum is wrong');
  if (entry.directory && data.length > 0) throw damaged(entry.name, 'it is a folder with content');
  return data;
}

/**
 * Packs entries in the order given. The same entries make the same bytes: times are 1980-01-01, the
 * first that the format knows.
 */
export function writeZip(entries: readonly ZipEntry[]): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const entry of entries) {
    const name = Buffer.from(entry.directory ? `${entry.name}/` : entry.name);
    const packed = deflateRawSync(entry.data, { level: constants.Z_BEST_COMPRESSION });
    const method = packed.length < entry.data.length ? deflated : stored;
    const body = method === deflated ? packed : Buffer.from(entry.data);
    // The 26 bytes that both headers share: version, flags, method, time, date, crc, sizes, lengths.
    const shared = Buffer.alloc(26);
    shared.writeUInt16LE(20, 0);
    shared.writeUInt16LE(utf8Flag, 2);
    shared.writeUInt16LE(method, 4);
    shared.writeUInt16LE(0x21, 8);
    shared.writeUInt32LE(crc32(entry.data), 10);
    shared.writeUInt32LE(body.length, 14);
    shared.writeUInt32LE(entry.data.length, 18);
    shared.writeUInt16LE(name.length, 22);
    const local = Buffer.alloc(4);
    local.writeUInt32LE(localSignature, 0);
    parts.push(local, shared, name, body);

    const head = Buffer.alloc(6);
    head.writeUInt32LE(centralSignature, 0);
    head.writeUInt16LE((madeByUnix << 8) | 20, 4);
    const tail = Buffer.alloc(14);
    const type = entry.directory ? 0o040000 : 0o100000;
    tail.writeUInt32LE(((type | entry.mode) << 16) >>> 0, 6);
    tail.writeUInt32LE(offset, 10);
    directory.push(head, shared, tail, name);
    offset += local.length + shared.length + name.length + body.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(endSize);
  end.writeUInt32LE(endSignature, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, central, end]);
}

function printable(name: string): string {
  return JSON.stringify(name.slice(0, 120)).slice(1, -1);
}

function notArchive(reason: string): HoldfastError {
  return new HoldfastError('HF-MODULE-010', { reason });
}

function unsafeName(name: string, reason: string): HoldfastError {
  return new HoldfastError('HF-MODULE-011', { entry: printable(name), reason });
}

function damaged(name: string, reason: string): HoldfastError {
  return new HoldfastError('HF-MODULE-016', { entry: printable(name), reason });
}
