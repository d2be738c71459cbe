/** quarantine list, restore, purge: on the server itself, as root. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { bytesText } from '../../config/values.ts';
import { parseClusterConfig, parseModuleConfig } from '../../config/index.ts';
import { HoldfastError } from '../../errors.ts';
import type { ModuleStatus } from '../../host/face.ts';
import {
  listQuarantine,
  purgeQuarantine,
  quarantineFolder,
  type QuarantineFolder,
  type RealDirectory,
  realDirectory,
  restoreQuarantine,
} from '../../host/quarantine.ts';
import { moduleDirs } from '../../module/name.ts';
import { plural, table, timestamp } from '../format.ts';
import { act, chosenModule, type CommonOptions, printJson, type Run, withJson } from '../run.ts';

interface RestoreOptions extends CommonOptions {
  readonly to?: string;
}

function withMirror(command: Command): Command {
  return withJson(command).option(
    '-m, --module <module>',
    'the mirror; may be left out where the node has only one module',
  );
}

/** Adds `quarantine`. */
export function quarantineCommands(program: Command, run: Run): void {
  const quarantine = program
    .command('quarantine')
    .description('what a resynchronisation took away from this server; on the server itself');
  const list = withMirror(
    quarantine
      .command('list')
      .description('show the folders, or the files of one')
      .argument('[folder]', 'YYYYMMDD-HHMMSS-epochN'),
  );
  act(run, list, async (options: CommonOptions, folder) => {
    const { name, directories } = await here(run, options, 'quarantine list');
    const found =
      folder === undefined
        ? listQuarantine(directories)
        : quarantineFolder(name, directories, folder);
    if (options.json === true) {
      printJson(
        run.io,
        found.map(({ folder: of, directory, files }) => ({ folder: of, directory, files })),
      );
    } else run.io.out(folder === undefined ? foldersText(found) : filesText(found));
  });
  const restore = withMirror(
    quarantine
      .command('restore')
      .description('copy files back to where they were, through the mount of the primary')
      .argument('<folder>', 'YYYYMMDD-HHMMSS-epochN')
      .argument('[paths...]', 'files or directories of it; without any, all'),
  ).option('--to <folder>', 'copy them to this folder instead, on any server');
  act(run, restore, async (options: RestoreOptions) => {
    const [folder, paths] = restore.processedArgs as [string, string[]];
    const { name, status, directories } = await here(run, options, 'quarantine restore');
    const isPrimary = status.state === 'PRIM' || status.state === 'ALONE';
    if (!isPrimary && options.to === undefined) {
      throw new HoldfastError('HF-MIRROR-023', { module: name, state: status.state });
    }
    const to = options.to === undefined ? null : resolve(options.to);
    const done = await restoreQuarantine(directories, { module: name, folder, paths, to });
    if (options.json === true) printJson(run.io, done);
    else run.io.out(done.map((path) => `${path}\n`).join(''));
  });
  const purge = withMirror(
    quarantine
      .command('purge')
      .description('remove a folder with all that is in it, for good')
      .argument('<folder>', 'YYYYMMDD-HHMMSS-epochN'),
  );
  act(run, purge, async (options: CommonOptions, folder = '') => {
    const { name, directories } = await here(run, options, 'quarantine purge');
    const count = await purgeQuarantine(name, directories, folder);
    if (options.json === true) printJson(run.io, { folder, files: count });
    else run.io.out(`${folder}: ${plural(count, 'file')} removed\n`);
  });
}

/** The mirror of this server that is meant, and where its directories really are. */
async function here(
  run: Run,
  options: CommonOptions,
  command: string,
): Promise<{
  readonly name: string;
  readonly status: ModuleStatus;
  readonly directories: readonly RealDirectory[];
}> {
  const client = run.io.connect();
  const name = await chosenModule(client, command, options.module);
  const status = await client.module(name);
  if (status.mode !== 'mirror') {
    throw new HoldfastError('HF-MIRROR-004', { module: name, verb: command });
  }
  const { replica } = status;
  const paths = replica?.directories ?? configured(run, name);
  const worker = replica === null ? null : Number(replica.engine['worker'] ?? 0);
  const directories = paths.map((path) => realDirectory(name, path, worker));
  return { name, status, directories };
}

/** The directories of a stopped mirror, by its installed configuration. HF-MIRROR-025. */
function configured(run: Run, module: string): readonly string[] {
  const { clusterXml } = run.io.paths;
  const { userconfig } = moduleDirs(run.io.paths, module);
  try {
    const { config: cluster } = parseClusterConfig(readFileSync(clusterXml, 'utf8'), {
      file: clusterXml,
    });
    const xml = readFileSync(userconfig, 'utf8');
    const parsed = cluster === null ? null : parseModuleConfig(xml, { name: module, cluster });
    const rfs = parsed?.config?.rfs;
    if (rfs) return rfs.directories.map(({ dir }) => dir);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('HF-MIRROR-025', { module, reason }, null, cause);
  }
  throw new HoldfastError('HF-MIRROR-025', { module, reason: `${userconfig} has errors` });
}

function foldersText(folders: readonly QuarantineFolder[]): string {
  if (folders.length === 0) return 'nothing is in the quarantine\n';
  const rows = folders.map(({ folder, directory, files }) => {
    const stored = files.filter((file) => file.stored !== null);
    const bytes = stored.reduce((sum, { size }) => sum + size, 0);
    const over = files.length - stored.length;
    return [folder, directory, String(stored.length), bytesText(bytes), String(over)];
  });
  return table(['FOLDER', 'DIRECTORY', 'FILES', 'SIZE', 'OVERWRITTEN'], rows, false);
}

function filesText(folders: readonly QuarantineFolder[]): string {
  const rows = folders.flatMap(({ directory, files }) =>
    files.map((file) => [
      file.reason,
      file.type,
      bytesText(file.size),
      timestamp(Number(file.mtime) * 1000),
      `${directory}/${file.path}`,
    ]),
  );
  return table(['REASON', 'TYPE', 'SIZE', 'CHANGED', 'PATH'], rows, false);
}
