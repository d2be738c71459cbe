/** Checks configuration files on this machine, without an agent. */
import { existsSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import {
  type ClusterConfig,
  conflictsBetween,
  type ModuleConfig,
  type Parsed,
  parseClusterConfig,
  parseModuleConfig,
  readConfigText,
} from '../config/index.ts';
import { type ErrorRecord, HoldfastError } from '../errors.ts';
import { isModuleName, moduleDirs } from '../module/name.ts';
import { listModules } from '../module/package.ts';
import type { Paths } from '../paths.ts';

export interface FileReport {
  readonly file: string;
  readonly ok: boolean;
  readonly errors: readonly ErrorRecord[];
  readonly warnings: readonly ErrorRecord[];
}

interface Wanted {
  readonly file: string;
  /** Name of the module that a userconfig.xml is checked as. */
  readonly module: string;
}

export interface ConfcheckOptions {
  readonly paths: Paths;
  /** Files to check, or names of installed modules; none: all that is installed. */
  readonly files: readonly string[];
  /** Only this module; for a file, the name it is checked as. */
  readonly module: string | null;
  /** The cluster.xml that modules are checked against; null: among `files`, else the installed one. */
  readonly cluster: string | null;
}

/** What is wrong with each file; all errors of all files. Throws HF-MODULE-001 for a bad name. */
export async function confcheck(options: ConfcheckOptions): Promise<readonly FileReport[]> {
  const wanted = await wantedFiles(options);
  const texts = wanted.map(({ file, module }) => ({ file, module, ...textOf(file) }));
  const isCluster = (text: string | null): boolean => text !== null && rootOf(text) === 'cluster';
  const clusterFile =
    options.cluster ?? texts.find(({ text }) => isCluster(text))?.file ?? options.paths.clusterXml;
  const context = new ClusterContext(clusterFile);
  const reports: FileReport[] = [];
  const modules: ModuleConfig[] = [];
  for (const { file, module, text, failure } of texts) {
    if (text === null) reports.push(report(file, [failure], []));
    else if (isCluster(text)) reports.push(reportOf(file, parseClusterConfig(text, { file })));
    else if (rootOf(text) !== null && rootOf(text) !== 'safe') {
      const wrong = new HoldfastError('HF-CLI-006', { file, root: rootOf(text) ?? '' });
      reports.push(report(file, [wrong], []));
    } else {
      const parsed = context.check(file, module, text);
      reports.push(reportOf(file, parsed));
      if (parsed.config !== null) modules.push(parsed.config);
    }
  }
  // Named files are often drafts of installed modules; only what is installed can be in conflict.
  const conflicts = options.files.length === 0 ? conflictsBetween(modules) : [];
  const last = reports.at(-1);
  if (conflicts.length > 0 && last !== undefined) {
    const records = conflicts.map((error) => error.toRecord());
    reports[reports.length - 1] = { ...last, ok: false, errors: [...last.errors, ...records] };
  }
  return reports;
}

/** The cluster that modules are checked against, read when the first module needs it. */
class ClusterContext {
  readonly #file: string;
  #cluster: ClusterConfig | HoldfastError | null = null;

  constructor(file: string) {
    this.#file = file;
  }

  check(file: string, module: string, text: string): Parsed<ModuleConfig> {
    this.#cluster ??= this.#read(file);
    if (this.#cluster instanceof HoldfastError) {
      return { config: null, errors: [this.#cluster], warnings: [] };
    }
    return parseModuleConfig(text, {
      file,
      name: module,
      cluster: this.#cluster,
      env: process.env,
    });
  }

  #read(file: string): ClusterConfig | HoldfastError {
    if (!existsSync(this.#file)) {
      return new HoldfastError('HF-CLI-010', { file, cluster: this.#file });
    }
    const { text, failure } = textOf(this.#file);
    if (text === null) return failure;
    const { config, errors } = parseClusterConfig(text, { file: this.#file });
    return config ?? errors[0] ?? new HoldfastError('HF-CLI-010', { file, cluster: this.#file });
  }
}

async function wantedFiles(options: ConfcheckOptions): Promise<readonly Wanted[]> {
  const { paths, files, module } = options;
  const installed = (name: string): Wanted => ({
    file: moduleDirs(paths, name).userconfig,
    module: name,
  });
  if (files.length > 0) {
    return files.map((file) => {
      const isModule = isModuleName(file) && !existsSync(file) && existsSync(installed(file).file);
      return isModule ? installed(file) : { file, module: module ?? nameOf(file) };
    });
  }
  const names = module === null ? await listModules(paths) : [module];
  const modules = names.map(installed);
  return module === null ? [{ file: paths.clusterXml, module: '' }, ...modules] : modules;
}

/** The module that a file belongs to by its place, as in shop/conf/userconfig.xml. */
function nameOf(file: string): string {
  const folder = dirname(file);
  const name = basename(folder) === 'conf' ? basename(dirname(folder)) : '';
  return isModuleName(name) ? name : 'module';
}

type Text =
  | { readonly text: string; readonly failure: null }
  | { readonly text: null; readonly failure: HoldfastError };

function textOf(file: string): Text {
  try {
    return { text: readConfigText(file === '-' ? '/dev/stdin' : file), failure: null };
  } catch (failure) {
    if (!(failure instanceof HoldfastError)) throw failure;
    return { text: null, failure };
  }
}

/** Name of the first element; null where there is none, which the parser will tell better. */
function rootOf(text: string): string | null {
  const bare = text.replace(/<!--[^]*?-->|<\?[^]*?\?>|<![A-Za-z][^>]*>/g, '');
  return /<([A-Za-z_][\w.-]*)/.exec(bare)?.[1] ?? null;
}

function report(
  file: string,
  errors: readonly HoldfastError[],
  warnings: readonly HoldfastError[],
): FileReport {
  const records = (list: readonly HoldfastError[]) => list.map((one) => one.toRecord());
  return { file, ok: errors.length === 0, errors: records(errors), warnings: records(warnings) };
}

function reportOf(file: string, parsed: Parsed<unknown>): FileReport {
  return report(file, parsed.errors, parsed.warnings);
}
