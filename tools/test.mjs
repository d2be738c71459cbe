/**
 * `npm test [-- PATTERN …]`: everything, from a fresh checkout: packages, build, lint, format, the
 * native engines' own tests, then the tests of dist/test/. With patterns: the build, then only the
 * test files whose path contains one of them.
 */
import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { build, filesBelow } from './lib/build.mjs';
import { lintAndFormat } from './lib/check.mjs';
import { inForeground, root, runMain, say, StepError } from './lib/step.mjs';

/** Tests that build a cluster in network namespaces: one at a time, on machines of two cores. */
const serialFolders = ['lab', 'e2e'];
const parallelFiles = 2;
const minuteMs = 60_000;

function testFiles(patterns) {
  return filesBelow(join(root, 'dist/test'))
    .filter((file) => file.endsWith('.test.js'))
    .filter((file) => {
      const path = relative(root, file).replace(/\.js$/, '.ts');
      return patterns.length === 0 || patterns.some((pattern) => path.includes(pattern));
    });
}

function isSerial(file) {
  return serialFolders.some((folder) => file.startsWith(join(root, 'dist/test', folder) + '/'));
}

/**
 * The events of both runs as one, with one summary: the runner ends each run by diagnostics
 * "tests 12", "pass 12", …; they are added up and come last.
 */
async function* inTurn(runs, verdict) {
  const totals = new Map();
  for (const start of runs) {
    for await (const event of start()) {
      // What is marked todo is known to be open and is counted as such.
      const isOpen = event.data?.todo !== undefined && event.data.todo !== false;
      if (event.type === 'test:fail' && !isOpen) verdict.failed = true;
      const count = /^(\w+) ([\d.]+)$/.exec(event.data?.message ?? '');
      if (event.type === 'test:diagnostic' && event.data.nesting === 0 && count !== null) {
        totals.set(count[1], (totals.get(count[1]) ?? 0) + Number(count[2]));
        continue;
      }
      if (event.type !== 'test:plan' || event.data.nesting > 0) yield event;
    }
  }
  for (const [name, total] of totals) {
    const message = `${name} ${name === 'duration_ms' ? total.toFixed(0) : total}`;
    yield { type: 'test:diagnostic', data: { nesting: 0, message } };
  }
}

async function runTests(files) {
  // Loaded here: an old Node, which lacks them, must get as far as the sentence about its version.
  const { run } = await import('node:test');
  const { spec: SpecReporter } = await import('node:test/reporters');
  const serial = files.filter(isSerial);
  const parallel = files.filter((file) => !isSerial(file));
  const runs = [];
  const timeout = 20 * minuteMs;
  if (parallel.length > 0) {
    runs.push(() => run({ files: parallel, concurrency: parallelFiles, timeout }));
  }
  if (serial.length > 0) runs.push(() => run({ files: serial, concurrency: 1, timeout }));
  const verdict = { failed: false };
  const report = Readable.from(inTurn(runs, verdict)).compose(new SpecReporter());
  for await (const text of report) process.stdout.write(text);
  return verdict.failed ? 1 : 0;
}

await runMain(async () => {
  const patterns = process.argv.slice(2);
  build(['build', 'lab', 'test']);
  if (patterns.length === 0) {
    lintAndFormat();
    if (existsSync(join(root, 'tools/native-tests.mjs'))) {
      const code = await inForeground(process.execPath, ['tools/native-tests.mjs']);
      if (code !== 0) throw new StepError(`the native tests failed (exit code ${code})`);
    }
  }
  const files = testFiles(patterns);
  if (files.length === 0) throw new StepError(`no test file matches ${patterns.join(' ')}`);
  say(`${files.length} test files${process.getuid() === 0 ? '' : ', without those for root'}`);
  // The runner starts each file as a process of its own, which takes these from the environment.
  process.env['NODE_OPTIONS'] = `${process.env['NODE_OPTIONS'] ?? ''} --enable-source-maps`.trim();
  return runTests(files);
});
