/** The import directions of the house: who may know whom. */
import { posix } from 'node:path';
import { type Finding, numbered, type Source } from './source.ts';

const leafs = ['errors', 'paths', 'version'];
const engines = ['native', 'config', ...leafs];
const workers = ['arbiter', 'module', 'checkers', 'alerts'];
const belowHost = ['core', ...engines, ...workers];

/**
 * Part of src/ -> the other parts it may import. A part is a folder, or a file at the top such as
 * errors.ts; errors.ts and errors/ are one. What is not listed (agent.ts) is a program: it
 * may import everything, and nobody imports it.
 */
export const directions: Readonly<Record<string, readonly string[]>> = {
  core: [],
  sim: ['core'],
  errors: [],
  paths: [],
  version: [],
  config: ['core', ...leafs],
  native: leafs,
  module: ['config', ...leafs],
  arbiter: ['core', 'config', ...leafs],
  checkers: ['module', ...engines],
  alerts: ['config', ...leafs],
  host: belowHost,
  api: ['host', ...belowHost],
  lab: ['api', 'host', ...belowHost],
  cli: ['lab', 'api', 'host', ...belowHost],
  demo: ['lab', 'api', 'host', ...belowHost],
};

/** Names that make a machine of core impure: time, chance, the outside. */
const impure =
  /\b(?:Date\b|Math\.random|performance\b|process\b|setTimeout|setInterval|setImmediate|queueMicrotask|console\b|fetch\(|crypto\b)/;

const importForm = /\b(?:from|import)\s*\(?\s*'([^']+)'/g;

/** The part of src/ that a path belongs to. */
function partOf(path: string): string {
  const [, first = ''] = path.split('/');
  return first.replace(/\.ts$/, '');
}

/** All imports of a source, also type-only and dynamic ones, with their line. */
export function importsOf(source: Source): { readonly line: number; readonly target: string }[] {
  const found: { line: number; target: string }[] = [];
  for (const match of withoutComments(source.text).matchAll(importForm)) {
    const line = source.text.slice(0, match.index).split('\n').length;
    found.push({ line, target: match[1] ?? '' });
  }
  return found;
}

/** Comments become blanks, so that lines and positions stay. */
export function withoutComments(text: string): string {
  const blank = (comment: string): string => comment.replace(/[^\n]/g, ' ');
  return text.replace(/\/\*[^]*?\*\//g, blank).replace(/(^|\s)\/\/.*$/gm, blank);
}

/** Imports against the directions, for files of src/. */
export function wrongImports(files: readonly Source[]): Finding[] {
  const findings: Finding[] = [];
  for (const source of files) {
    const own = partOf(source.path);
    for (const { line, target } of importsOf(source)) {
      const problem = problemOf(source.path, own, target);
      if (problem !== null) findings.push(`${source.path}:${line}: ${problem}`);
    }
  }
  return findings;
}

function problemOf(path: string, own: string, target: string): string | null {
  const allowed = directions[own];
  if (!target.startsWith('.')) {
    const pure = own === 'core' || own === 'sim';
    return pure ? `${own} imports nothing but core, not ${target}` : null;
  }
  const resolved = posix.join(posix.dirname(path), target);
  if (!resolved.startsWith('src/')) return `${target} is outside src/`;
  const other = partOf(resolved);
  if (directions[other] === undefined) return `nobody imports the program ${resolved}`;
  if (allowed === undefined || other === own || allowed.includes(other)) return null;
  return `${own} must not import ${other} (${target})`;
}

/** Uses of time, chance and the outside in files of src/core. */
export function impurities(files: readonly Source[]): Finding[] {
  const findings: Finding[] = [];
  for (const { path, text } of files) {
    for (const [line, code] of numbered(withoutComments(text))) {
      const found = impure.exec(code.replace(/'[^']*'|`[^`]*`/g, ''));
      if (found !== null) findings.push(`${path}:${line}: core must not use ${found[0]}`);
    }
  }
  return findings;
}

/**
 * Includes of the native engines: napi.h only in addon.cc; of other folders only common/. The tests
 * in native/test see everything.
 */
export function wrongIncludes(files: readonly Source[]): Finding[] {
  const findings: Finding[] = [];
  for (const { path, text } of files) {
    const [, engine = ''] = path.split('/');
    if (engine === 'test') continue;
    for (const [line, code] of numbered(withoutComments(text))) {
      const include = /^\s*#\s*include\s+(<|")([^>"]+)[>"]/.exec(code);
      if (include === null) continue;
      const [, form, target = ''] = include;
      if (/(^|\/)(napi|node_api|node|v8|uv)\.h$/.test(target) && !path.endsWith('/addon.cc')) {
        findings.push(`${path}:${line}: only addon.cc includes ${target}`);
      }
      const folder = posix.join(
        form === '"' && target.startsWith('.') ? posix.dirname(path) : 'native',
        target,
      );
      const other = target.includes('/') ? (folder.split('/')[1] ?? '') : engine;
      const isOurs = form === '"';
      if (isOurs && other !== engine && other !== 'common') {
        findings.push(`${path}:${line}: ${engine} must not include ${target}`);
      }
    }
  }
  return findings;
}
