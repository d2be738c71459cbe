/**
 * The fuzzers of the native engines: libFuzzer with ASan and UBSan, by clang. native/test/fuzz/
 * fuzzers.json names the sources of each; the fuzzer itself is native/test/fuzz/NAME_fuzz.cc. It starts
 * from test/fixtures/fuzz/NAME/ (kept inputs) and from what earlier runs found, in build/fuzz/NAME/.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
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

function buildFuzzer(name, sources) {
  const folder = join(root, 'build/fuzz', name);
  mkdirSync(join(folder, 'corpus'), { recursive: true });
  const binary = join(folder, 'fuzzer');
  const inputs = [`test/fuzz/${name}_fuzz.cc`, ...sources].map((file) => join(native, file));
  const made = spawnSync('clang++', [...flags, ...inputs, '-o', binary], { stdio: 'inherit' });
  if (made.error !== undefined) throw new StepError(`clang++: ${made.error.message}`);
  if (made.status !== 0) throw new StepError(`the fuzzer ${name} does not compile`);
  return { folder, binary };
}

/** Runs the named fuzzers (all without names) for so many seconds each. */
export function fuzz(names, seconds) {
  if (!Number.isInteger(seconds) || seconds < 1) {
    throw new StepError('--fuzz needs a number of seconds, 1 or more');
  }
  const all = JSON.parse(readFileSync(join(native, 'test/fuzz/fuzzers.json'), 'utf8'));
  for (const name of names.length > 0 ? names : Object.keys(all)) {
    if (all[name] === undefined) throw new StepError(`no fuzzer ${name}`);
    const { folder, binary } = buildFuzzer(name, all[name]);
    const kept = join(root, 'test/fixtures/fuzz', name);
    const args = [
      `-max_total_time=${seconds}`,
      '-max_len=2048',
      '-timeout=20',
      `-artifact_prefix=${folder}/`,
      join(folder, 'corpus'),
      ...(existsSync(kept) ? [kept] : []),
    ];
    const run = spawnSync(binary, args, { encoding: 'utf8' });
    if (run.status !== 0) {
      process.stderr.write(run.stderr ?? '');
      throw new StepError(
        `the fuzzer ${name} found something (its input lies in build/fuzz/${name})`,
      );
    }
    const runs = /Done (\d+) runs/.exec(run.stderr)?.[1] ?? '?';
    say(`fuzzer ${name}: ${runs} inputs in ${seconds} s`);
  }
  return 0;
}
