import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from './durable.ts';

/** Files per module; with userlogKib of 2048 (the default) 32 MiB at most. */
export const maxUserlogs = 16;
/** A line longer than this is cut when shown. */
const maxLineBytes = 4096;

const fileSyntax = /^userlog_(\d{4}-\d{2}-\d{2}T\d{6}(?:\.\d{3})?(?:-\d+)?)_(.+)\.ulog$/;

/** An open user log. A script writes to the descriptor itself: no pipe ends with the agent. */
export interface Userlog {
  readonly path: string;
  readonly fd: number;
  close(): void;
}

/**
 * Opens `userlog_<date>T<time>_<script>.ulog` for one run of a script and removes the oldest files
 * beyond the bound; the newest of each script stays, because a daemon may still write to it.
 * Null when it cannot be written (full or read-only disk): scripts run without a log then.
 */
export async function openUserlog(
  folder: string,
  script: string,
  now: Date,
): Promise<Userlog | null> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o750 });
    await removeOldest(folder, maxUserlogs - 1);
    return createFile(folder, script, now);
  } catch {
    return null;
  }
}

function createFile(folder: string, script: string, now: Date): Userlog {
  const stamp = `${localDate(now)}T${localTime(now)}`;
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND;
  for (let again = 0; ; again++) {
    // Milliseconds and a number keep two runs within one second apart.
    const unique = again === 0 ? stamp : `${stamp}-${again}`;
    const path = join(folder, `userlog_${unique}_${script}.ulog`);
    try {
      const fd = openSync(path, flags, 0o640);
      return { path, fd, close: () => closeSync(fd) };
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST' || again >= 100) throw error;
    }
  }
}

/**
 * Keeps each user log of a folder within a bound: of a file that grew beyond it, the newer half
 * stays. Programs go on writing meanwhile (they append); lines written within these microseconds may
 * be lost, which beats a full disk. Returns how many files were cut.
 */
export async function boundUserlogs(folder: string, maxBytes: number): Promise<number> {
  let cut = 0;
  for (const name of await userlogNames(folder)) {
    if (boundFile(join(folder, name), maxBytes)) cut++;
  }
  return cut;
}

/** As boundUserlogs, for one file; true when it was cut. */
export function boundFile(path: string, maxBytes: number): boolean {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_APPEND);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
  try {
    const size = fstatSync(fd).size;
    if (size <= maxBytes) return false;
    const keep = Buffer.alloc(Math.floor(maxBytes / 2));
    const got = readSync(fd, keep, 0, keep.length, size - keep.length);
    const line = keep.indexOf(0x0a) + 1;
    ftruncateSync(fd, 0);
    writeSync(fd, `... ${size - got} bytes were cut here to keep the log bounded\n`);
    writeSync(fd, keep, line, got - line);
    return true;
  } finally {
    closeSync(fd);
  }
}

/** The last lines of all user logs of a module, oldest first, each with the script's name before it. */
export async function readUserlogs(folder: string, lines: number): Promise<readonly string[]> {
  const names = await userlogNames(folder);
  let found: string[] = [];
  for (const name of names.reverse()) {
    const script = fileSyntax.exec(name)?.[2] ?? '';
    const text = readTail(join(folder, name), lines * maxLineBytes).trimEnd();
    if (text === '') continue;
    const own = text.split('\n').slice(-lines);
    found = [...own.map((line) => `${script}: ${line.slice(0, maxLineBytes)}`), ...found];
    if (found.length >= lines) break;
  }
  return found.slice(-lines);
}

function readTail(path: string, wantedBytes: number): string {
  const fd = openSync(path, 'r');
  try {
    const size = fstatSync(fd).size;
    const bytes = Buffer.alloc(Math.min(size, wantedBytes, 1024 * 1024));
    const got = readSync(fd, bytes, 0, bytes.length, size - bytes.length);
    return bytes.toString('utf8', 0, got);
  } finally {
    closeSync(fd);
  }
}

async function removeOldest(folder: string, keep: number): Promise<void> {
  const names = await userlogNames(folder);
  const newest = new Map<string, string>();
  for (const name of names) newest.set(fileSyntax.exec(name)?.[2] ?? '', name);
  const protectedNames = new Set(newest.values());
  let surplus = names.length - keep;
  for (const name of names) {
    if (surplus <= 0) return;
    if (protectedNames.has(name)) continue;
    await rm(join(folder, name), { force: true });
    surplus--;
  }
}

/** Names sort by time. */
async function userlogNames(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => fileSyntax.test(name)).sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

function localDate(now: Date): string {
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
}

function localTime(now: Date): string {
  const millis = String(now.getMilliseconds()).padStart(3, '0');
  return `${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}.${millis}`;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}
