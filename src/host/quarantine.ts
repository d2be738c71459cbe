/**
 * What a resynchronisation took away from this server and did not remove: the folders
 * `.holdfast-quarantine/YYYYMMDD-HHMMSS-epochN` in the roots of a mirror's directories, which no
 * mount shows (docs/internals/resync.md). Names may be any bytes, so paths are buffers here.
 */
import { spawn } from 'node:child_process';
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { HoldfastError } from '../errors.ts';

const home = '.holdfast-quarantine';
const folderName = /^\d{8}-\d{6}-epoch\d+$/;
/** statfs(2). */
const fuseMagic = 0x65735546;

/** A line of a manifest. Bytes of `path` and `stored` that are no printable ASCII are %XX. */
export interface QuarantinedFile {
  readonly path: string;
  /** Below the folder; null: it was written over where it is, and is still there. */
  readonly stored: string | null;
  readonly type: string;
  readonly size: number;
  /** SECONDS.NANOSECONDS */
  readonly mtime: string;
  readonly reason: string;
  readonly ranges: readonly (readonly number[])[];
}

export interface QuarantineFolder {
  readonly folder: string;
  /** The replicated directory that it is of. */
  readonly directory: string;
  readonly files: readonly QuarantinedFile[];
}

/** A replicated directory: its path, and one that leads below what is mounted over it. */
export interface RealDirectory {
  readonly directory: string;
  readonly real: string;
}

const lineSchema: z.ZodType<QuarantinedFile> = z.object({
  path: z.string(),
  stored: z
    .string()
    .regex(/^files\//)
    .refine((stored) => !stored.split('/').includes('..'))
    .nullable()
    .default(null),
  type: z.string(),
  size: z.number(),
  mtime: z.string(),
  reason: z.string(),
  ranges: z.array(z.array(z.number())).default([]),
});

/** The bytes that a path of a manifest stands for. */
export function pathBytes(text: string): Buffer {
  const parts = text
    .split(/(%[0-9A-F]{2})/)
    .map((part) =>
      /^%[0-9A-F]{2}$/.test(part) ? Buffer.from(part.slice(1), 'hex') : Buffer.from(part, 'utf8'),
    );
  return Buffer.concat(parts);
}

function below(folder: string, path: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${folder}/`), path]);
}

/**
 * Where a replicated directory really is: below its mount, by a descriptor of the engine's worker;
 * `worker` null: nothing is mounted. HF-MIRROR-025.
 */
export function realDirectory(
  module: string,
  directory: string,
  worker: number | null,
): RealDirectory {
  if (worker === null) return { directory, real: directory };
  const failed = (reason: string) => new HoldfastError('HF-MIRROR-025', { module, reason });
  const open = `/proc/${worker}/fd`;
  let names: readonly string[] = [];
  try {
    names = readdirSync(open);
  } catch (error) {
    throw failed(error instanceof Error ? error.message : String(error));
  }
  for (const name of names) {
    const real = join(open, name);
    try {
      if (readlinkSync(real) === directory && statfsSync(real).type !== fuseMagic) {
        return { directory, real };
      }
    } catch {
      // Closed meanwhile.
    }
  }
  throw failed(`the engine (process ${worker}) does not have ${directory} open`);
}

function readManifest(path: string): QuarantinedFile[] {
  let text = '';
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    // The last one may be cut off by a loss of power.
    try {
      return line === '' ? [] : [lineSchema.parse(JSON.parse(line))];
    } catch {
      return [];
    }
  });
}

/** All folders, oldest first. */
export function listQuarantine(directories: readonly RealDirectory[]): QuarantineFolder[] {
  const found = directories.flatMap(({ directory, real }) => {
    let names: readonly string[] = [];
    try {
      names = readdirSync(join(real, home));
    } catch {
      // There is none.
    }
    return names
      .filter((name) => folderName.test(name))
      .map((folder) => ({
        folder,
        directory,
        files: readManifest(join(real, home, folder, 'manifest.jsonl')),
      }));
  });
  return found.toSorted((a, b) => (a.folder < b.folder ? -1 : a.folder > b.folder ? 1 : 0));
}

/** The folder in each of the directories that has it. HF-MIRROR-021. */
export function quarantineFolder(
  module: string,
  directories: readonly RealDirectory[],
  folder: string,
): (QuarantineFolder & { readonly place: string })[] {
  const all = listQuarantine(directories).filter((one) => one.folder === folder);
  if (all.length === 0) throw new HoldfastError('HF-MIRROR-021', { module, folder });
  return all.map((one) => {
    const at = directories.find(({ directory }) => directory === one.directory);
    return { ...one, place: join(at?.real ?? one.directory, home, folder) };
  });
}

/** Runs a program on two paths of any bytes. Resolves with what it says when it fails. */
function runOn(program: readonly string[], paths: readonly Buffer[]): Promise<string | null> {
  return new Promise((resolve, reject) => {
    const child = spawn('xargs', ['-0', ...program], { stdio: ['pipe', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (said.length < 4096) said += text;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve(code === 0 ? null : said.trim() || `exit ${code ?? '?'}`));
    child.stdin.on('error', () => undefined);
    child.stdin.end(Buffer.concat(paths.flatMap((path) => [path, Buffer.from([0])])));
  });
}

function isThere(path: Buffer): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** What is no part of a directory that is in the list too. */
function topmost(files: readonly QuarantinedFile[]): QuarantinedFile[] {
  const folders = new Set(files.filter(({ type }) => type === 'folder').map((f) => f.stored));
  return files.filter(({ stored }) => {
    if (stored === null) return false;
    for (let up = dirname(stored); up !== '.'; up = dirname(up)) {
      if (folders.has(up)) return false;
    }
    return true;
  });
}

export interface RestoreOptions {
  readonly module: string;
  readonly folder: string;
  /** Which files, as in the list or as they are called; none: all. */
  readonly paths: readonly string[];
  /** Where to; null: where they were, through the mount. */
  readonly to: string | null;
}

/**
 * Copies files out of the quarantine with all their attributes; they stay in it as well. Resolves
 * with the paths. Nothing is written over: HF-MIRROR-024 before the first is copied. HF-MIRROR-021,
 * -022.
 */
export async function restoreQuarantine(
  directories: readonly RealDirectory[],
  { module, folder, paths, to }: RestoreOptions,
): Promise<string[]> {
  const copies = quarantineFolder(module, directories, folder).flatMap((one) => {
    const chosen =
      paths.length === 0
        ? topmost(one.files)
        : one.files.filter(
            (f) =>
              f.stored !== null &&
              paths.some((path) => path === f.path || pathBytes(f.path).equals(Buffer.from(path))),
          );
    return topmost(chosen).map((file) => ({
      path: file.path,
      from: below(one.place, pathBytes(file.stored ?? '')),
      to: below(to ?? one.directory, pathBytes(file.path)),
    }));
  });
  const isMissing = (path: string): boolean =>
    !copies.some((c) => c.path === path || pathBytes(c.path).equals(Buffer.from(path)));
  const missing = paths.find(isMissing);
  if (missing !== undefined) {
    throw new HoldfastError('HF-MIRROR-022', { module, folder, path: missing });
  }
  const failed = (path: string, reason: string) =>
    new HoldfastError('HF-MIRROR-024', { path, reason });
  for (const copy of copies) {
    if (isThere(copy.to)) throw failed(copy.path, `${copy.to.toString('utf8')} exists`);
    if (!isThere(copy.from)) throw failed(copy.path, 'it is not in the folder any more');
  }
  for (const copy of copies) {
    const slash = copy.to.lastIndexOf('/');
    mkdirSync(copy.to.subarray(0, slash), { recursive: true });
    const reason = await runOn(['cp', '-a', '-T', '-n', '--'], [copy.from, copy.to]);
    if (reason !== null) throw failed(copy.path, reason);
  }
  return copies.map(({ path }) => path);
}

/** Removes a folder for good. HF-MIRROR-021, and -024 where something cannot be removed. */
export async function purgeQuarantine(
  module: string,
  directories: readonly RealDirectory[],
  folder: string,
): Promise<number> {
  const all = quarantineFolder(module, directories, folder);
  for (const { place } of all) {
    const reason = await runOn(['rm', '-rf', '--one-file-system', '--'], [Buffer.from(place)]);
    if (reason !== null) throw new HoldfastError('HF-MIRROR-024', { path: folder, reason });
  }
  return all.reduce((count, { files }) => count + files.filter((f) => f.stored).length, 0);
}
