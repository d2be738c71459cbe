/**
 * `node tools/lib/tests.mjs FILE …`: runs compiled test files, which tools/test.mjs has chosen, in the
 * surroundings that it has made.
 */
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { run } from 'node:test';
import { spec as SpecReporter } from 'node:test/reporters';
import { root, runMain } from './step.mjs';

const timeoutMs = 20 * 60_000;

/** They watch all labs of the machine, load it, or measure: alone. */
const alone = /^lab\/(lab-|pair-calm|fault-rows)/;

/**
 * One group after the other, of each so many files at a time. A cluster in network namespaces waits
 * more than it works: two of them leave a third of two cores.
 */
const groups = [
  { atOnce: 2, has: (name) => !name.startsWith('lab/') },
  { atOnce: 2, has: (name) => name.startsWith('lab/') && !alone.test(name) },
  { atOnce: 1, has: (name) => alone.test(name) },
];

/** What takes longest begins first, so that no file runs on by itself at the end. */
const longest = [
  'replica/nemesis',
  'replica/prefix',
  'sim/mirror',
  'lab/replica-apps',
  'lab/fault-network',
  'lab/replica-kill',
  'lab/farm-moves',
  'lab/pair-apps',
  'lab/fault-agent',
  'lab/replica-distant',
  'lab/farm-power',
];

function nameOf(file) {
  return relative(join(root, 'dist/test'), file).replace(/\.test\.js$/, '');
}

/** Place in the order; the others follow, as they were. */
function place(file) {
  const at = longest.indexOf(nameOf(file));
  return at < 0 ? longest.length : at;
}

/**
 * The events of all groups as one, with one summary: the runner ends each run by diagnostics
 * "tests 12", "pass 12", …; they are added up and come last.
 */
async function* inTurn(runs, verdict) {
  const totals = new Map();
  for (const options of runs) {
    for await (const event of run({ ...options, timeout: timeoutMs })) {
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

await runMain(async () => {
  const files = process.argv.slice(2).toSorted((one, other) => place(one) - place(other));
  const runs = groups
    .map(({ atOnce, has }) => ({
      files: files.filter((file) => has(nameOf(file))),
      concurrency: atOnce,
    }))
    .filter((each) => each.files.length > 0);
  // The runner starts each file as a process of its own, which takes these from the environment.
  process.env['NODE_OPTIONS'] = `${process.env['NODE_OPTIONS'] ?? ''} --enable-source-maps`.trim();
  const verdict = { failed: false };
  const report = Readable.from(inTurn(runs, verdict)).compose(new SpecReporter());
  for await (const text of report) process.stdout.write(text);
  return verdict.failed ? 1 : 0;
});
