/**
 * A register in a directory that several servers may have mounted. No locks: a lock on a network file
 * system is lost when its holder pauses, and the holder does not notice. Each record is a file of its
 * own, named by its number; link(2) gives it that name only if nobody has it. So link is the
 * compare-and-swap, and whoever paused before it has lost when he wakes up.
 *
 *     PATH/holdfast-register            made once by an operator: this is the directory
 *     PATH/CLUSTER/MODULE/000000000042  the newest has the greatest number
 *
 * All calls are synchronous; they may hang for as long as the file system does.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';
import { compare, isEqual, parseRecord, type RegisterQuestion } from './record.ts';

/** File that tells the directory from the empty mount point below it. */
export const markerName = 'holdfast-register';
const kind = 'holdfast register';
const digits = 12;
/** A record has some 250 bytes. */
const maxBytes = 4096;
/** Records kept: a server that lists the directory reads the newest before so many are added. */
const kept = 16;
/** Temporary files of servers that died; one that only paused finds its own gone, and begins anew. */
const temporaryMs = 3600_000;

/** Errors after which link(2) surely gave no name. */
const refusedLink = new Set([
  'EACCES',
  'EDQUOT',
  'EMLINK',
  'ENOENT',
  'ENOSPC',
  'ENOSYS',
  'ENOTDIR',
  'EOPNOTSUPP',
  'EPERM',
  'EROFS',
  'EXDEV',
]);

/** Nothing was changed; the message says why. */
class Refused extends Error {}

interface Newest {
  /** 0: there is none. */
  readonly number: number;
  readonly record: ArbiterRecord | null;
}

/** The calls that make a swap, for tests that look at them or make one fail. */
export interface StoreCalls {
  readonly fsync: (fd: number) => void;
  readonly link: (from: string, to: string) => void;
}

export class DirectoryStore {
  readonly #path: string;
  readonly #clusterId: string;
  readonly #isOwn: boolean;
  readonly #calls: StoreCalls;

  /** isOwn: on this server's own disk; the directory is made when it is missing. */
  constructor(
    path: string,
    clusterId: string,
    isOwn: boolean,
    calls: StoreCalls = { fsync: fsyncSync, link: linkSync },
  ) {
    this.#calls = calls;
    this.#path = path;
    this.#clusterId = clusterId;
    this.#isOwn = isOwn;
  }

  /** Never throws. */
  answer(question: RegisterQuestion): ArbiterAnswer {
    try {
      return question.kind === 'read'
        ? this.#read(question.module)
        : this.#swap(question.module, question.from, question.to);
    } catch (error) {
      // What may have changed something is answered where it happens.
      return { outcome: 'unreachable', why: reasonOf(error) };
    }
  }

  #read(module: string): ArbiterAnswer {
    const folder = this.#folder(module);
    const temporary = this.#refresh(folder);
    unlinkSync(temporary);
    return { outcome: 'record', record: this.#newest(folder, module).record };
  }

  #swap(module: string, from: ArbiterRecord | null, to: ArbiterRecord): ArbiterAnswer {
    const folder = this.#folder(module);
    const temporary = this.#refresh(folder);
    try {
      const held = this.#newest(folder, module);
      const found = compare(held.record, from, to);
      if (found === 'won') return { outcome: 'won' };
      if (found === 'lost') return { outcome: 'lost', record: held.record };
      const number = held.number + 1;
      const text = textOf({ cluster: this.#clusterId, module, number, record: to });
      this.#writeSynced(temporary, text);
      return this.#put(folder, module, temporary, { number, record: to });
    } finally {
      remove(temporary);
    }
  }

  /** Gives a written record its name. */
  #put(
    folder: string,
    module: string,
    temporary: string,
    next: { readonly number: number; readonly record: ArbiterRecord },
  ): ArbiterAnswer {
    const name = join(folder, nameOf(next.number));
    let isOurs = true;
    try {
      this.#calls.link(temporary, name);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? '';
      if (refusedLink.has(code)) throw error;
      // EEXIST: another's, or our own, when the answer was lost and the file system asked again.
      isOurs = false;
      if (code !== 'EEXIST') return { outcome: 'unknown', why: `link: ${reasonOf(error)}` };
    }
    try {
      this.#syncFolder(folder);
      // The folders are new, or may be.
      if (next.number === 1) this.#syncAbove(folder);
      const held = this.#newest(folder, module);
      if (held.number > next.number || !isOurs) {
        // Named late, below what others have added since: it counts no more.
        if (isEqual(held.record, next.record)) return { outcome: 'won' };
        return { outcome: 'lost', record: held.record };
      }
    } catch (error) {
      return { outcome: 'unknown', why: `after link: ${reasonOf(error)}` };
    }
    this.#prune(folder, next.number);
    return { outcome: 'won' };
  }

  /** The folder of a module, made when it is missing. */
  #folder(module: string): string {
    const marker = join(this.#path, markerName);
    if (this.#isOwn) mkdirSync(this.#path, { recursive: true, mode: 0o700 });
    else if (statSync(marker, { throwIfNoEntry: false }) === undefined) {
      throw new Refused(`${this.#path} has no file ${markerName}: is it mounted?`);
    }
    const folder = join(this.#path, this.#clusterId, module);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return folder;
  }

  #syncAbove(folder: string): void {
    this.#syncFolder(dirname(folder));
    this.#syncFolder(this.#path);
    if (this.#isOwn) this.#syncFolder(dirname(this.#path));
  }

  #syncFolder(folder: string): void {
    const fd = openSync(folder, 'r');
    try {
      this.#calls.fsync(fd);
    } finally {
      closeSync(fd);
    }
  }

  #writeSynced(path: string, text: string): void {
    const fd = openSync(path, 'r+');
    try {
      const bytes = Buffer.from(text);
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
      this.#calls.fsync(fd);
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Makes a temporary file. A network file system keeps what it knows of a directory for some seconds;
   * to have changed it oneself makes it look anew.
   */
  #refresh(folder: string): string {
    const temporary = join(folder, `.${randomBytes(9).toString('hex')}.tmp`);
    closeSync(openSync(temporary, 'wx', 0o600));
    return temporary;
  }

  /** The newest record, durable: what is told here must not be gone after a crash. */
  #newest(folder: string, module: string): Newest {
    for (let tries = 0; tries < 8; tries += 1) {
      const number = numbersIn(folder).at(-1) ?? 0;
      this.#syncFolder(folder);
      if (number === 0) return { number, record: null };
      const text = readSmall(join(folder, nameOf(number)));
      // Removed since the listing, as many newer ones came.
      if (text === null) continue;
      return { number, record: this.#parse(text, module, number) };
    }
    throw new Refused('the register is changed faster than it can be read');
  }

  #parse(text: string, module: string, number: number): ArbiterRecord {
    const bad = (reason: string): Refused =>
      new Refused(`record ${nameOf(number)} of ${module} is damaged: ${reason}`);
    const cut = text.indexOf('\n');
    const body = text.slice(cut + 1);
    let content: Content;
    try {
      const header = JSON.parse(text.slice(0, Math.max(cut, 0))) as Partial<Header> | null;
      if (header?.kind !== kind || header.version !== 1) throw bad('it is no record of version 1');
      if (header.crc32 !== checksum(body)) throw bad('wrong checksum');
      content = JSON.parse(body) as Content;
      content = { ...content, record: parseRecord(content.record) };
    } catch (error) {
      throw error instanceof Refused ? error : bad('it cannot be read');
    }
    const { cluster, module: of, number: written } = content;
    if (cluster !== this.#clusterId || of !== module) throw bad(`it is of ${cluster} ${of}`);
    if (written !== number) throw bad(`it is number ${written}`);
    return content.record;
  }

  /** Records and temporary files that nobody needs; what fails here is done the next time. */
  #prune(folder: string, newest: number): void {
    try {
      for (const number of numbersIn(folder)) {
        if (number <= newest - kept) remove(join(folder, nameOf(number)));
      }
      // Both times are of the clock of the file system's server.
      const nowMs = statSync(join(folder, nameOf(newest))).ctimeMs;
      for (const name of readdirSync(folder)) {
        if (!name.endsWith('.tmp')) continue;
        const found = statSync(join(folder, name), { throwIfNoEntry: false });
        if (found !== undefined && found.ctimeMs < nowMs - temporaryMs) remove(join(folder, name));
      }
    } catch {
      // The record is there, and that is all that was asked.
    }
  }
}

interface Header {
  readonly kind: string;
  readonly version: number;
  readonly crc32: string;
}

interface Content {
  readonly cluster: string;
  readonly module: string;
  readonly number: number;
  readonly record: ArbiterRecord;
}

const nameOf = (number: number): string => String(number).padStart(digits, '0');
const checksum = (text: string): string => crc32(text).toString(16).padStart(8, '0');

function textOf(content: Content): string {
  const body = `${JSON.stringify(content)}\n`;
  const header: Header = { kind, version: 1, crc32: checksum(body) };
  return `${JSON.stringify(header)}\n${body}`;
}

function numbersIn(folder: string): number[] {
  return readdirSync(folder)
    .filter((name) => name.length === digits && /^\d+$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);
}

/** Null: it is not there. */
function readSmall(path: string): string | null {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  try {
    const bytes = Buffer.alloc(maxBytes + 1);
    let size = 0;
    for (let got = -1; got !== 0 && size < bytes.length; size += got) {
      got = readSync(fd, bytes, size, bytes.length - size, null);
    }
    return bytes.toString('utf8', 0, size);
  } finally {
    closeSync(fd);
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // A leftover does no harm; it is removed after an hour.
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof Refused || !(error instanceof Error)) {
    return error instanceof Error ? error.message : String(error);
  }
  const { code, syscall, path } = error as NodeJS.ErrnoException;
  return code === undefined ? error.message : `${code}, ${syscall ?? 'call'} ${path ?? ''}`.trim();
}
