/** module install, uninstall, package, list: archives and what is installed. */
import { existsSync, statSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Command } from 'commander';
import { HoldfastError } from '../../errors.ts';
import { packageFolder } from '../../module/package.ts';
import { packageRoot } from '../../version.ts';
import { moduleLine, stateCell, table } from '../format.ts';
import { cannotWrite, readBytes } from '../files.ts';
import {
  act,
  chosenModule,
  type CommonOptions,
  oneAgent,
  onNodes,
  printJson,
  type Run,
  withModule,
  withNodes,
} from '../run.ts';

interface InstallOptions extends CommonOptions {
  readonly replace?: boolean;
}

interface PackageOptions extends CommonOptions {
  readonly output?: string;
}

interface ListOptions extends CommonOptions {
  readonly templates?: boolean;
}

/** The ready-made modules of this package. */
const templates = join(packageRoot, 'modules');

/** Adds `module …`. */
export function moduleCommands(program: Command, run: Run): void {
  const module = program.command('module').description('install, pack, list and remove modules');
  installCommand(module, run);
  packageCommand(module, run);
  const uninstall = withModule(
    module.command('uninstall').description('remove a stopped module, its state and its history'),
  );
  act(run, uninstall, async (options: CommonOptions, argument) => {
    await onNodes(
      run,
      options,
      async (client) => {
        const name = await chosenModule(client, 'module uninstall', options.module ?? argument);
        await client.uninstallModule(name);
        return { name };
      },
      ({ name }) => `${name} is removed\n`,
    );
  });
  listCommand(module, run);
}

function installCommand(module: Command, run: Run): void {
  const command = withNodes(
    module
      .command('install')
      .description('install a .safe file, a folder with conf/ and bin/, or a ready-made module'),
  )
    .argument('<source>', 'the file, the folder, or the name of a ready-made module')
    .option('-m, --module <name>', 'the name it gets; without it, that of the file')
    .option('--replace', 'take the place of the installed module of that name');
  act(run, command, async (options: InstallOptions, source = '') => {
    const name = options.module ?? basename(source).replace(/\.safe$/, '');
    const archive = await archiveOf(name, source);
    await onNodes(
      run,
      options,
      (client) => client.installModule(name, archive, options.replace === true),
      (status) => moduleLine(status, run.io.color),
    );
  });
}

/** The archive of a file, a folder or a ready-made module. Throws HF-CLI-003, -007. */
async function archiveOf(name: string, source: string): Promise<Uint8Array> {
  for (const place of [source, join(templates, basename(source))]) {
    if (!existsSync(place)) continue;
    return statSync(place).isDirectory() ? packageFolder(name, place) : readBytes(place);
  }
  const known = (await templateNames()).join(', ');
  throw new HoldfastError('HF-CLI-007', { name: source, templates: known === '' ? 'none' : known });
}

async function templateNames(): Promise<readonly string[]> {
  if (!existsSync(templates)) return [];
  const entries = await readdir(templates, { withFileTypes: true });
  return entries
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort();
}

function packageCommand(module: Command, run: Run): void {
  const command = withModule(
    module.command('package').description('pack an installed module as a .safe file'),
  ).option('-o, --output <file>', 'the file to write; without it MODULE.safe');
  act(run, command, async (options: PackageOptions, argument) => {
    const client = oneAgent(run, options, 'module package');
    const name = await chosenModule(client, 'module package', options.module ?? argument);
    const file = options.output ?? `${name}.safe`;
    const archive = await client.packageModule(name);
    await writeFile(file, archive).catch(cannotWrite(file));
    if (options.json === true) printJson(run.io, { module: name, file, bytes: archive.length });
    else run.io.out(`${file}: ${archive.length} bytes\n`);
  });
}

/** First sentence of a ready-made module's description, where it has one. */
async function templateSummary(name: string): Promise<string> {
  const file = join(templates, name, 'README.md');
  if (!existsSync(file)) return '';
  const text = await readFile(file, 'utf8');
  const line = text.split('\n').find((one) => one !== '' && !one.startsWith('#'));
  return line ?? '';
}

function listCommand(module: Command, run: Run): void {
  const command = withNodes(
    module.command('list').description('list the installed modules'),
  ).option('--templates', 'list the ready-made modules of this package instead');
  act(run, command, async (options: ListOptions) => {
    if (options.templates === true) {
      const names = await templateNames();
      const list = await Promise.all(
        names.map(async (name) => ({ name, summary: await templateSummary(name) })),
      );
      if (options.json === true) printJson(run.io, list);
      else
        run.io.out(
          table(
            ['TEMPLATE', 'WHAT'],
            list.map((one) => [one.name, one.summary]),
            false,
          ),
        );
      return;
    }
    await onNodes(
      run,
      options,
      (client) => client.modules(),
      (modules) => {
        const rows = modules.map((one) => [
          one.name,
          one.mode,
          stateCell(one),
          one.signature.slice(0, 8),
        ]);
        if (rows.length === 0) return 'no module is installed\n';
        return table(['MODULE', 'MODE', 'STATE', 'CONFIGURATION'], rows, run.io.color);
      },
    );
  });
}
