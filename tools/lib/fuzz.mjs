/**
 * The fuzzers of the native engines: libFuzzer with ASan and UBSan, by clang. native/test/fuzz/
 * fuzzers.json names the sources of each, and how many inputs `npm test` tries; the fuzzer itself is
 * native/test/fuzz/NAME_fuzz.cc. It starts from test/fixtures/fuzz/NAME/ (kept inputs) and from what
 * earlier runs found, in build/fuzz/NAME/.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { root, say, StepError } from './step.mjs';

const native = join(root, 'native');
const flags = [
  '-std=c++20',
  '-fno-exceptions',
  '-D_GNU_SOURCE',
  '-g',
  '-O1',
  `-I${native}`,
  '-fsanitize=fuzzer,address,undefined',
  '-fno-sanitize-recover=all',
  '-fno-omit-frame-pointer',
  '-pthread',
];

function fuzzers() {
  return JSON.parse(readFileSync(join(native, 'test/fuzz/fuzzers.json'), 'utf8'));
}

/** Runs a program; what it said on stderr and its exit code. */
function heard(program, args) {
  return new Promise((done, fail) => {
    const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'pipe'] });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text) => (said += text));
    child.on('error', (error) => fail(new StepError(`${program}: ${error.message}`)));
    child.on('close', (code) => done({ code, said }));
  });
}

async function buildFuzzer(name) {
  const sources = fuzzers()[name]?.sources;
  if (sources === undefined) throw new StepError(`no fuzzer ${name}`);
  const folder = join(root, 'build/fuzz', name);
  mkdirSync(folder, { recursive: true });
  const binary = join(folder, 'fuzzer');
  const inputs = [`test/fuzz/${name}_fuzz.cc`, ...sources].map((file) => join(native, file));
  const { code, said } = await heard('clang++', [...flags, ...inputs, '-o', binary]);
  process.stderr.write(said);
  if (code !== 0) throw new StepError(`the fuzzer ${name} does not compile`);
  return { folder, binary };
}

async function runFuzzer(name, { folder, binary }, corpus, limits) {
  mkdirSync(corpus, { recursive: true });
  const kept = join(root, 'test/fixtures/fuzz', name);
  const inputs = existsSync(kept) ? [corpus, kept] : [corpus];
  const args = [...limits, '-max_len=2048', '-timeout=20', `-artifact_prefix=${folder}/`];
  const startedMs = performance.now();
  const { code, said } = await heard(binary, [...args, ...inputs]);
  if (code !== 0) {
    process.stderr.write(said);
    throw new StepError(
      `the fuzzer ${name} found something (its input lies in build/fuzz/${name})`,
    );
  }
  const runs = /Done (\d+) runs/.exec(said)?.[1] ?? '?';
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  say(`fuzzer ${name}: ${runs} inputs in ${seconds} s`);
}

/** Runs the named fuzzers (all without names) for so many seconds each, from what they found before. */
export async function fuzz(names, seconds) {
  if (!Number.isInteger(seconds) || seconds < 1) {
    throw new StepError('--fuzz needs a number of seconds, 1 or more');
  }
  for (const name of names.length > 0 ? names : Object.keys(fuzzers())) {
    const made = await buildFuzzer(name);
    await runFuzzer(name, made, join(made.folder, 'corpus'), [`-max_total_time=${seconds}`]);
  }
  return 0;
}

/** All fuzzers at once, each on inputs that are the same every time: they judge the tree alone. */
export async function fuzzAlike() {
  await Promise.all(
    Object.entries(fuzzers()).map(async ([name, { inputs }]) => {
      const made = await buildFuzzer(name);
      const corpus = join(made.folder, 'alike');
      rmSync(corpus, { recursive: true, force: true });
      await runFuzzer(name, made, corpus, ['-seed=1', `-runs=${inputs}`]);
    }),
  );
  return 0;
}
