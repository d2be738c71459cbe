import { randomBytes } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HoldfastError } from '../errors.ts';
import type { Paths } from '../paths.ts';
import { errnoOf, replaceFile, syncDirectory, writeSynced } from './durable.ts';
import { checkModuleName, isModuleName, type ModuleDirs, moduleDirs } from './name.ts';
import { readZip, writeZip, type ZipEntry } from './zip.ts';

/** A module holds scripts and configuration; the largest known ones have some dozens of files. */
export const maxEntries = 1000;
export const maxUnpackedBytes = 64 * 1024 * 1024;
/** Former configurations kept per module. */
export const keptConfigurations = 3;

const userconfig = 'conf/userconfig.xml';
const pairs = [
  ['start_prim', 'stop_prim'],
  ['start_both', 'stop_both'],
  ['start_second', 'stop_second'],
  ['start_sec', 'stop_sec'],
] as const;

/**
 * Checks a .safe archive without unpacking it to disk and returns its entries. Throws HF-MODULE-010
 * to -018.
 */
export function readPackage(name: string, archive: Uint8Array): readonly ZipEntry[] {
  checkModuleName(name);
  const entries = readZip(archive, { entries: maxEntries, bytes: maxUnpackedBytes });
  checkContent(name, entries);
  return entries;
}

/** The userconfig.xml inside an archive, for a check before it is installed. */
export function packagedConfig(name: string, archive: Uint8Array): string {
  const entry = readPackage(name, archive).find((one) => one.name === userconfig);
  return Buffer.from(entry?.data ?? []).toString('utf8');
}

/**
 * Installs an archive as module `name`: unpacked beside its place, made durable, then renamed. A crash
 * leaves the old module, the new one, or what `recoverModules` puts right. With replace, the former
 * userconfig.xml goes into the history. The caller has made sure that the module is stopped.
 */
export async function installPackage(
  paths: Paths,
  name: string,
  archive: Uint8Array,
  replace: boolean,
): Promise<void> {
  const dirs = moduleDirs(paths, name);
  const entries = readPackage(name, archive);
  const former = await readFormer(dirs);
  if (former.exists && !replace) throw new HoldfastError('HF-MODULE-003', { name });
  const nonce = randomBytes(6).toString('hex');
  const fresh = join(paths.modules, `.${name}.${nonce}.new`);
  const old = join(paths.modules, `.${name}.${nonce}.old`);
  try {
    await mkdir(paths.modules, { recursive: true, mode: 0o755 });
    await writeTree(fresh, entries);
    if (former.config !== null) await remember(dirs, former.config);
    if (former.exists) await rename(dirs.root, old);
    await rename(fresh, dirs.root);
    await syncDirectory(paths.modules);
  } catch (error) {
    await rm(fresh, { recursive: true, force: true }).catch(() => undefined);
    // Where this fails too, recoverModules does it at the next start.
    if (former.exists && !(await exists(dirs.root))) {
      await rename(old, dirs.root).catch(() => undefined);
    }
    throw new HoldfastError('HF-MODULE-020', { name, reason: errnoOf(error) }, null, error);
  }
  await rm(old, { recursive: true, force: true }).catch(() => undefined);
}

/** Packs an installed module as a .safe archive; the same module makes the same bytes. */
export async function packageModule(paths: Paths, name: string): Promise<Uint8Array> {
  const dirs = moduleDirs(paths, name);
  if (!(await exists(dirs.userconfig))) throw new HoldfastError('HF-MODULE-002', { name });
  return packageFolder(name, dirs.root);
}

/** Packs a folder that holds conf/ and bin/, such as one below `modules/`, as a .safe archive. */
export async function packageFolder(name: string, folder: string): Promise<Uint8Array> {
  const entries: ZipEntry[] = [];
  await collect(folder, '', entries);
  checkContent(name, entries);
  return writeZip(entries);
}

/** Removes an installed module, its state and its history; its user logs stay. */
export async function uninstallModule(paths: Paths, name: string): Promise<void> {
  const dirs = moduleDirs(paths, name);
  if (!(await exists(dirs.root))) throw new HoldfastError('HF-MODULE-002', { name });
  const old = join(paths.modules, `.${name}.${randomBytes(6).toString('hex')}.gone`);
  try {
    await rename(dirs.root, old);
    await syncDirectory(paths.modules);
    await rm(old, { recursive: true, force: true });
    await rm(dirs.state, { recursive: true, force: true });
  } catch (error) {
    throw new HoldfastError('HF-MODULE-020', { name, reason: errnoOf(error) }, null, error);
  }
}

/** Names of the installed modules, sorted. */
export async function listModules(paths: Paths): Promise<readonly string[]> {
  const names: string[] = [];
  for (const entry of await readdirOrNone(paths.modules)) {
    if (isModuleName(entry) && (await exists(moduleDirs(paths, entry).userconfig))) {
      names.push(entry);
    }
  }
  return names.sort();
}

/**
 * Ends what a crash interrupted: a module that was moved aside and not replaced comes back, leftovers
 * go. To be called once at start, before modules are read. Returns what was done, for the log.
 */
export async function recoverModules(paths: Paths): Promise<readonly string[]> {
  const done: string[] = [];
  const leftover = /^\.(.+)\.[0-9a-f]{12}\.(new|old|gone)$/;
  const entries = await readdirOrNone(paths.modules);
  for (const entry of entries) {
    const found = leftover.exec(entry);
    if (found === null) continue;
    const [, name = '', kind] = found;
    const path = join(paths.modules, entry);
    const place = join(paths.modules, name);
    if (kind === 'old' && isModuleName(name) && !(await exists(place))) {
      await rename(path, place);
      done.push(`module ${name} was put back after an interrupted installation`);
    } else {
      await rm(path, { recursive: true, force: true });
      done.push(`leftover ${entry} was removed`);
    }
  }
  if (done.length > 0) await syncDirectory(paths.modules);
  return done;
}

/** The userconfig.xml of an installed module. Throws HF-MODULE-002. */
export async function readUserconfig(paths: Paths, name: string): Promise<string> {
  try {
    return await readFile(moduleDirs(paths, name).userconfig, 'utf8');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw new HoldfastError('HF-MODULE-002', { name });
  }
}

/**
 * Stores a configuration (already checked) as the module's own; the former one goes into the history,
 * of which the last three are kept. Throws HF-MODULE-002, -020.
 */
export async function writeUserconfig(paths: Paths, name: string, xml: string): Promise<void> {
  const dirs = moduleDirs(paths, name);
  const former = await readUserconfig(paths, name);
  if (former === xml) return;
  try {
    await remember(dirs, former);
    await replaceFile(dirs.userconfig, xml, 0o644);
  } catch (error) {
    throw new HoldfastError('HF-MODULE-020', { name, reason: errnoOf(error) }, null, error);
  }
}

/** Former configurations, newest first. */
export async function configHistory(paths: Paths, name: string): Promise<readonly string[]> {
  const dirs = moduleDirs(paths, name);
  const texts: string[] = [];
  for (const number of (await historyNumbers(dirs)).reverse()) {
    texts.push(await readFile(historyFile(dirs, number), 'utf8'));
  }
  return texts;
}

async function remember(dirs: ModuleDirs, xml: string): Promise<void> {
  await mkdir(dirs.history, { recursive: true, mode: 0o711 });
  const numbers = await historyNumbers(dirs);
  await replaceFile(historyFile(dirs, (numbers.at(-1) ?? 0) + 1), xml, 0o600);
  for (const number of numbers.slice(0, Math.max(0, numbers.length + 1 - keptConfigurations))) {
    await rm(historyFile(dirs, number), { force: true });
  }
}

async function historyNumbers(dirs: ModuleDirs): Promise<number[]> {
  const numbers: number[] = [];
  for (const entry of await readdirOrNone(dirs.history)) {
    const found = /^userconfig\.(\d{1,9})\.xml$/.exec(entry);
    if (found !== null) numbers.push(Number(found[1]));
  }
  return numbers.sort((a, b) => a - b);
}

function historyFile(dirs: ModuleDirs, number: number): string {
  return join(dirs.history, `userconfig.${number}.xml`);
}

function checkContent(name: string, entries: readonly ZipEntry[]): void {
  const files = new Set<string>();
  for (const entry of entries) if (!entry.directory) files.add(entry.name);
  if (!files.has(userconfig)) throw new HoldfastError('HF-MODULE-017', { entry: userconfig });
  for (const [start, stop] of pairs) {
    if (files.has(`bin/${start}`) && !files.has(`bin/${stop}`)) {
      throw new HoldfastError('HF-MODULE-018', { name, start, stop });
    }
  }
}

/**
 * Writes entries below a new folder. Files of bin/ get the executable bits whatever the archive says:
 * archives made on Windows carry none. Set-id bits and write for others are never taken.
 */
async function writeTree(root: string, entries: readonly ZipEntry[]): Promise<void> {
  const folders = new Set<string>();
  await makeFolders(root, root, folders);
  for (const entry of entries) {
    const path = join(root, entry.name);
    await makeFolders(root, entry.directory ? path : dirname(path), folders);
    if (entry.directory) continue;
    const wanted = entry.mode === 0 ? 0o644 : (entry.mode & 0o755) | 0o600;
    await writeSynced(path, entry.data, entry.name.startsWith('bin/') ? wanted | 0o111 : wanted);
  }
  for (const folder of folders) await syncDirectory(folder);
}

async function makeFolders(root: string, path: string, known: Set<string>): Promise<void> {
  if (known.has(path)) return;
  if (path !== root) await makeFolders(root, dirname(path), known);
  await mkdir(path, { mode: 0o755 });
  await chmod(path, 0o755);
  known.add(path);
}

/** Reads what is below root/below into entries, folders before their content, sorted by name. */
async function collect(root: string, below: string, into: ZipEntry[]): Promise<void> {
  const listed = await readdir(join(root, below), { withFileTypes: true });
  for (const item of listed.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const name = below === '' ? item.name : `${below}/${item.name}`;
    if (into.length >= maxEntries) {
      throw new HoldfastError('HF-MODULE-014', { count: into.length + 1, limit: maxEntries });
    }
    if (item.isDirectory()) {
      into.push({ name, directory: true, mode: 0o755, data: new Uint8Array() });
      await collect(root, name, into);
    } else if (item.isFile()) {
      const { size, mode } = await stat(join(root, name));
      if (into.reduce((sum, entry) => sum + entry.data.length, size) > maxUnpackedBytes) {
        throw new HoldfastError('HF-MODULE-015', { limit: maxUnpackedBytes, entry: name });
      }
      const data = await readFile(join(root, name));
      into.push({ name, directory: false, mode: mode & 0o777, data });
    } else {
      throw new HoldfastError('HF-MODULE-012', { entry: name, type: 'link or special file' });
    }
  }
}

async function readFormer(dirs: ModuleDirs): Promise<{ exists: boolean; config: string | null }> {
  if (!(await exists(dirs.root))) return { exists: false, config: null };
  const config = (await exists(dirs.userconfig)) ? await readFile(dirs.userconfig, 'utf8') : null;
  return { exists: true, config };
}

async function readdirOrNone(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}
