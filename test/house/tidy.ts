/** Rules for single files: length, leftovers, errors, dependencies, links. */
import { posix } from 'node:path';
import { type Finding, numbered, type Source } from './source.ts';

export const maxLines = 500;

/** Files longer than maxLines that are right as they are, each with the reason. */
export const longFiles: Readonly<Record<string, string>> = {
  'src/sim/world.ts': 'one world: its checks read all of what its events change',
};

export function tooLong(files: readonly Source[]): Finding[] {
  return files
    .map(({ path, text }) => ({ path, lines: text.split('\n').length - 1 }))
    .filter(({ path, lines }) => lines > maxLines && longFiles[path] === undefined)
    .map(({ path, lines }) => `${path}: ${lines} lines; ${maxLines} are the most`);
}

/** Marks of unfinished work, tests that hide others, and paths of one person's machine. */
const leftovers: readonly (readonly [RegExp, string])[] = [
  [/\b(TODO|FIXME|XXX|HACK)\b/, 'finish it or leave it out'],
  [/\b(?:test|it|describe|suite)\.only\(/, 'this test hides all others'],
  [/(^|[\s'"`(=:])\/(work|home)\/\w/, 'a path of one machine'],
  [/^(<<<<<<<|>>>>>>>) /, 'a merge conflict'],
  [/\bdebugger\b;/, 'a breakpoint'],
];

export function leftoversIn(files: readonly Source[]): Finding[] {
  const findings: Finding[] = [];
  for (const { path, text } of files) {
    for (const [line, code] of numbered(text)) {
      for (const [form, why] of leftovers) {
        const found = form.exec(code);
        if (found !== null) findings.push(`${path}:${line}: ${found[0].trim()}: ${why}`);
      }
    }
  }
  return findings;
}

const chances: readonly (readonly [RegExp, string])[] = [
  [/from 'fast-check'/, 'fc comes from test/support/random.ts, with its seed'],
  [/HOLDFAST_SEED'|\bDate\.now\(\) %|\bMath\.random\(|\brandomInt\(/, 'use firstSeed'],
];

/** Tests choose by one seed (test/support/random.ts), so that a run of all tests judges the tree alone. */
export function ownChances(tests: readonly Source[]): Finding[] {
  return tests.flatMap(({ path, text }) =>
    [...numbered(text)].flatMap(([line, code]) =>
      chances.filter(([form]) => form.test(code)).map(([, why]) => `${path}:${line}: ${why}`),
    ),
  );
}

/** Its sentences are matched with those of src/core: test/errors/refusals.test.ts sees to its use. */
const matched = 'src/errors/refusal.ts:';

const codeForm = /^HF-[A-Z]+-\d{3}$/;

/**
 * Codes of the error registry: well-formed, in the file once and in one file only (objects spread
 * into one would hide a second), and used by a source outside the registry.
 */
export function wrongErrorCodes(registry: readonly Source[], users: readonly Source[]): Finding[] {
  const findings: Finding[] = [];
  const seen = new Map<string, string>();
  for (const { path, text } of registry) {
    for (const [line, code] of numbered(text)) {
      const key = /^ {2}'?([\w-]+)'?: \{/.exec(code)?.[1];
      if (key === undefined) continue;
      const here = `${path}:${line}`;
      if (!codeForm.test(key)) findings.push(`${here}: ${key} is no error code`);
      const before = seen.get(key);
      if (before !== undefined) findings.push(`${here}: ${key} is also at ${before}`);
      seen.set(key, here);
    }
  }
  const used = new Set(users.flatMap(({ text }) => text.match(/HF-[A-Z]+-\d{3}/g) ?? []));
  for (const [code, place] of seen) {
    if (!used.has(code) && !place.startsWith(matched))
      findings.push(`${place}: nothing uses ${code}`);
  }
  return findings;
}

export interface PackageJson {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly overrides?: Readonly<Record<string, string>>;
  readonly allowScripts?: Readonly<Record<string, boolean>>;
}

/** All dependencies with their versions. */
export function dependenciesOf(json: PackageJson): readonly (readonly [string, string])[] {
  return [json.dependencies, json.optionalDependencies, json.devDependencies].flatMap((list) =>
    Object.entries(list ?? {}),
  );
}

/** Versions are exact, and each name has its row in the table of docs/dependencies.md. */
export function wrongDependencies(
  json: PackageJson,
  apt: readonly string[],
  document: string,
): Finding[] {
  const findings: Finding[] = [];
  const rows = new Set(
    [...document.matchAll(/^\| *`([^`]+)`(?: ([\d.]+))? *\|/gm)].flatMap(([, name, version]) => [
      name,
      `${name} ${version}`,
    ]),
  );
  for (const [name, version] of dependenciesOf(json)) {
    if (!/^\d+\.\d+\.\d+$/.test(version)) findings.push(`${name}: ${version} is no exact version`);
    if (!rows.has(`${name} ${version}`)) {
      findings.push(`${name} ${version} has no row in docs/dependencies.md`);
    }
  }
  for (const name of apt) {
    if (!rows.has(name)) findings.push(`${name} (apt) has no row in docs/dependencies.md`);
  }
  return findings;
}

/** Packages among `names` that no source names in quotes: they are installed for nothing. */
export function unusedPackages(names: readonly string[], users: readonly Source[]): Finding[] {
  return names
    .filter((name) => !users.some(({ text }) => text.includes(`'${name}'`)))
    .map((name) => `nothing uses ${name}`);
}

/** The id that a heading gets, as on the usual forges. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[`*_]|\[|\]\([^)]*\)/g, '')
    .replace(/[^\p{L}\p{N}\s-]/gu, '')
    .trim()
    .replace(/\s/g, '-');
}

/** Links of Markdown files to files and headings that do not exist. `exists` takes a path. */
export function deadLinks(files: readonly Source[], exists: (path: string) => boolean): Finding[] {
  const byPath = new Map(files.map((file) => [file.path, file.text]));
  const findings: Finding[] = [];
  for (const { path, text } of files) {
    const prose = text.replace(/^```[^]*?^```/gm, (block) => block.replace(/[^\n]/g, ' '));
    for (const [line, code] of numbered(prose)) {
      for (const [, target = ''] of code.replace(/`[^`]*`/g, '').matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const [file = '', anchor] = target.split('#');
        const full = file === '' ? path : posix.join(posix.dirname(path), file);
        if (!exists(full)) findings.push(`${path}:${line}: ${target} does not exist`);
        const other = byPath.get(full);
        if (anchor === undefined || other === undefined) continue;
        const anchors = [...other.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
          anchorOf(title ?? ''),
        );
        if (!anchors.includes(anchor)) findings.push(`${path}:${line}: no heading for ${target}`);
      }
    }
  }
  return findings;
}
