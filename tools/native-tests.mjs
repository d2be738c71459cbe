/**
 * `node tools/native-tests.mjs [SUITE …] [--variant plain|asan|tsan]`: the engines' doctest binaries,
 * plainly, under ASan + UBSan, and under TSan. native/test/suites.json names the sources of each
 * suite (paths below native/, `*` allowed in file names; `flags` and `libs` for the compiler;
 * `program`: no tests but a program, which is built with sanitizers for tests of dist/test/ to run;
 * `threaded`: the test cases, as doctest's filter, that TSan is for; all where absent).
 * Objects are kept in build/native-tests/ and made anew when a file below native/ that they include
 * has changed. Plainly, the objects of the engine are those that ship.
 * `--fuzz SECONDS`: the fuzzers instead (tools/lib/fuzz.mjs), each for that long; names, if any, are
 * theirs. Without any argument both run, the fuzzers on so many inputs, the same ones each time.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fuzz, fuzzAlike } from './lib/fuzz.mjs';
import { root, runMain, say, StepError } from './lib/step.mjs';

const native = join(root, 'native');
const warnings = ['-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Werror'];
// -g1: the lines that a sanitizer names; more would cost a third of the compiler's time.
const common = [
  '-std=c++20',
  '-fno-exceptions',
  '-D_GNU_SOURCE',
  '-g1',
  `-I${native}`,
  ...warnings,
];
// doctest without exceptions: a failed REQUIRE ends the test case's binary.
const doctest = [
  '-DDOCTEST_CONFIG_NO_EXCEPTIONS_BUT_WITH_ALL_ASSERTS',
  '-DDOCTEST_CONFIG_SUPER_FAST_ASSERTS',
];
const variants = {
  plain: ['-O1'],
  asan: [
    '-O1',
    '-fsanitize=address,undefined',
    '-fno-sanitize-recover=all',
    '-fno-omit-frame-pointer',
  ],
  // GCC says that TSan does not model fences; what they order are atomics here.
  tsan: ['-O1', '-fsanitize=thread', '-Wno-tsan'],
};

function expand(pattern) {
  if (!pattern.includes('*')) return [pattern];
  const folder = dirname(pattern);
  const [head, tail] = basename(pattern).split('*');
  return readdirSync(join(native, folder))
    .filter((name) => name.startsWith(head) && name.endsWith(tail))
    .map((name) => join(folder, name))
    .sort();
}

/** Where the build of the product has put the object of a source; null: it has none. */
function shipped(source) {
  const path = join(root, 'build/Release/obj.target/replica_engine/native', source);
  const object = path.replace(/\.cc$/, '.o');
  return existsSync(object) ? object : null;
}

/** Brings those objects up to date. */
function makeShipped() {
  const args = ['-s', `-j${availableParallelism()}`, '-C', 'build', 'BUILDTYPE=Release'];
  const made = spawnSync('make', [...args, 'replica_engine'], { stdio: 'inherit', cwd: root });
  if (made.status !== 0) throw new StepError('the engine does not compile');
}

/** True when the object is newer than everything that its dependency file names. */
function fresh(object) {
  const list = object.replace(/\.o$/, '.d');
  if (!existsSync(object) || !existsSync(list)) return false;
  const made = statSync(object).mtimeMs;
  return readFileSync(list, 'utf8')
    .replace(/^[^:]*:/, '')
    .split(/[\s\\]+/)
    .filter((file) => file !== '')
    .every((file) => existsSync(file) && statSync(file).mtimeMs <= made);
}

function compile(source, object, flags) {
  const args = [...flags, '-MMD', '-c', join(native, source), '-o', object];
  return new Promise((done, fail) => {
    const child = spawn('g++', args, { stdio: 'inherit', cwd: root });
    child.on('error', (error) => fail(new StepError(`g++: ${error.message}`)));
    child.on('exit', (code) => {
      if (code === 0) done();
      else fail(new StepError(`native/${source} does not compile (${basename(dirname(object))})`));
    });
  });
}

async function inParallel(jobs) {
  const queue = [...jobs];
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) await job();
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

async function buildSuite(name, suite, variant) {
  // Objects are shared by the suites that compile with the same flags.
  const own = suite.flags === undefined ? '' : `-${name}`;
  const folder = join(root, 'build/native-tests', `${variant}${own}`);
  mkdirSync(folder, { recursive: true });
  const tests = suite.program ? [] : ['test/main.cc', ...suite.tests.flatMap(expand)];
  const flags = [...common, ...variants[variant], ...(suite.flags ?? [])];
  const sources = [...tests, ...(suite.sources ?? []).flatMap(expand)];
  const ships = variant === 'plain' && suite.flags === undefined;
  const objects = sources.map((source) => ({
    source,
    made: ships ? shipped(source) : null,
    object: join(folder, `${source.replaceAll('/', '-').replace(/\.cc$/, '')}.o`),
    // Tests may use what the compiler calls conversions in doctest's macros.
    flags: source.startsWith('test/') ? [...flags, ...doctest] : flags,
  }));
  const stale = objects.filter(({ made, object }) => made === null && !fresh(object));
  await inParallel(stale.map((o) => () => compile(o.source, o.object, o.flags)));
  const binary = join(folder, suite.program ? name : `${name}_test`);
  const inputs = objects.map(({ made, object }) => made ?? object);
  const linkedMs = existsSync(binary) ? statSync(binary).mtimeMs : 0;
  if (inputs.some((object) => statSync(object).mtimeMs > linkedMs)) {
    const args = [...variants[variant], ...inputs, '-o', binary, '-pthread', ...(suite.libs ?? [])];
    const link = spawnSync('g++', args, { stdio: 'inherit' });
    if (link.status !== 0) throw new StepError(`${basename(binary)} does not link (${variant})`);
  }
  return binary;
}

async function runBinary(binary, what, filter) {
  const started = Date.now();
  // TSan needs the address space as it expects it; newer kernels randomise more bits.
  const child = spawn('setarch', ['-R', binary, '--no-version', ...filter], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (errors += text));
  const ended = await new Promise((done, fail) => {
    child.on('error', fail);
    child.on('close', (code, signal) => done(signal ?? code));
  });
  if (ended !== 0) {
    process.stdout.write(out);
    process.stderr.write(errors);
    throw new StepError(
      `${what} failed (${typeof ended === 'number' ? `exit code ${ended}` : ended})`,
    );
  }
  const cases = /test cases:\s*(\d+)/.exec(out)?.[1] ?? '?';
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  say(`${what}: ${cases} test cases in ${seconds} s`);
}

await runMain(async () => {
  const suites = JSON.parse(readFileSync(join(native, 'test/suites.json'), 'utf8'));
  const args = process.argv.slice(2);
  const everything = args.length === 0;
  const fuzzAt = args.indexOf('--fuzz');
  if (fuzzAt >= 0) {
    const [, seconds] = args.splice(fuzzAt, 2);
    return fuzz(args, Number(seconds));
  }
  const at = args.indexOf('--variant');
  const only = at < 0 ? Object.keys(variants) : args.splice(at, 2).slice(1);
  const names = args.length > 0 ? args : Object.keys(suites);
  if (only.includes('plain') && existsSync(join(root, 'build/Makefile'))) makeShipped();
  // One binary runs while the next one is built.
  let running = Promise.resolve();
  for (const name of names) {
    if (suites[name] === undefined)
      throw new StepError(`no suite ${name} in native/test/suites.json`);
    for (const variant of only) {
      if (variants[variant] === undefined) throw new StepError(`no variant ${variant}`);
      if (suites[name].program && variant === 'plain') continue;
      const binary = await buildSuite(name, suites[name], variant);
      if (suites[name].program) continue;
      const threaded = variant === 'tsan' ? suites[name].threaded : undefined;
      const filter = threaded === undefined ? [] : [`--test-case=${threaded}`];
      await running;
      running = runBinary(binary, `native tests of ${name} (${variant})`, filter);
      running.catch(() => {}); // it is awaited, but perhaps later
    }
  }
  await running;
  return everything ? fuzzAlike() : 0;
});
