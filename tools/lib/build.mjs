/** From a fresh checkout to dist/ and build/Release/. Each step is skipped when nothing has changed. */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import { dirname, join, relative } from 'node:path';
import { needNode, needPackages } from './machine.mjs';
import { quietly, root, say } from './step.mjs';

/** Every file below `folder` (none where it does not exist), sorted. */
export function filesBelow(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? filesBelow(path) : [path];
    })
    .sort();
}

function hashOf(files, salt = '') {
  const hash = createHash('sha256').update(salt);
  for (const file of files) {
    hash.update(`\0${relative(root, file)}\0`).update(readFileSync(file));
  }
  return hash.digest('hex');
}

function stampIs(path, value) {
  return existsSync(path) && readFileSync(path, 'utf8') === value;
}

/**
 * `npm ci` when node_modules does not come from this package-lock.json, or was built for another Node.
 * A stamp remembers the lock by content; without it npm's own record counts, when it is not older
 * than the lock (somebody ran `npm ci` or `npm install` by hand).
 */
function installModules() {
  const lock = join(root, 'package-lock.json');
  const stamp = join(root, 'node_modules/.holdfast-lock');
  const record = join(root, 'node_modules/.package-lock.json');
  const wanted = `${process.version} ${hashOf([lock])}`;
  if (stampIs(stamp, wanted)) return;
  const otherNode =
    existsSync(stamp) && !readFileSync(stamp, 'utf8').startsWith(`${process.version} `);
  const byHand = existsSync(record) && statSync(record).mtimeMs >= statSync(lock).mtimeMs;
  if (otherNode || !byHand) {
    const args = ['ci', '--no-audit', '--no-fund', '--no-progress', '--loglevel=error'];
    say('npm ci: packages of node_modules');
    quietly('npm ci', 'npm', args);
  }
  writeFileSync(stamp, wanted);
}

/** Where node-gyp finds Node's headers: beside node itself where they are, else node-gyp's default. */
function headerArgs() {
  const prefix = dirname(dirname(process.execPath));
  const header = join(prefix, 'include/node/node_version.h');
  if (process.env['npm_config_nodedir'] !== undefined || !existsSync(header)) return [];
  const text = readFileSync(header, 'utf8');
  const version = ['MAJOR', 'MINOR', 'PATCH']
    .map((part) => new RegExp(`define NODE_${part}_VERSION (\\d+)`).exec(text)?.[1])
    .join('.');
  return version === process.versions.node ? [`--nodedir=${prefix}`] : [];
}

function buildNative() {
  const sources = [...filesBelow(join(root, 'native')), join(root, 'binding.gyp')];
  const wrapper = join(root, 'node_modules/node-addon-api/package.json');
  const hash = hashOf([...sources, wrapper], process.version);
  const stamp = join(root, 'build/.holdfast-sources');
  if (stampIs(stamp, hash)) return;
  // Until the build has succeeded nothing may claim that it is up to date.
  rmSync(stamp, { force: true });
  const gyp = join(root, 'node_modules/node-gyp/bin/node-gyp.js');
  say('native build: the engines, a minute or two the first time');
  const jobs = String(os.availableParallelism());
  quietly('native configure', process.execPath, [gyp, 'configure', ...headerArgs()]);
  quietly('native build', 'make', ['-s', '-C', 'build', 'BUILDTYPE=Release', `-j${jobs}`]);
  writeFileSync(stamp, hash);
}

/** The TypeScript source that a file of dist/ was made of. */
function sourceOf(output) {
  const path = relative(join(root, 'dist'), output);
  return join(root, path.replace(/\.js(\.map)?$/, '.ts'));
}

/**
 * Makes dist/ hold nothing whose source is gone (a deleted test must not run), and makes the compiler
 * start over when an output is missing, which its incremental mode would not see.
 */
function tidyDist() {
  const dist = join(root, 'dist');
  const record = join(dist, '.tsbuildinfo');
  for (const output of filesBelow(dist)) {
    if (output !== record && !existsSync(sourceOf(output))) rmSync(output);
  }
  removeEmptyFolders(dist);
  const complete = ['src', 'test', 'bench']
    .flatMap((folder) => filesBelow(join(root, folder)))
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'))
    .every((file) => existsSync(join(dist, relative(root, file).replace(/\.ts$/, '.js'))));
  if (!complete) rmSync(record, { force: true });
}

function removeEmptyFolders(folder) {
  if (!existsSync(folder)) return;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) removeEmptyFolders(join(folder, entry.name));
  }
  if (readdirSync(folder).length === 0) rmdirSync(folder);
}

function buildTypeScript() {
  mkdirSync(join(root, 'dist'), { recursive: true });
  tidyDist();
  quietly('types and compile', process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.']);
}

/** Packages of the machine and of npm: what every other step stands on. */
export function prepare(groups) {
  needNode();
  needPackages(groups);
  installModules();
}

/** Everything that `node dist/…` needs. */
export function build(groups) {
  prepare(groups);
  buildTypeScript();
  buildNative();
}
