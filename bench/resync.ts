/**
 * `npm run bench -- resync [--quick] [--rounds N] [--mib N] [--parts A,B] [--json FILE]`: what it costs to
 * be alone, and to come back. A tree on two hosts; one goes away, a part of the tree changes, it
 * comes back. docs/reference/benchmarks.md says what each figure includes.
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { mountBacking } from '../src/lab/backing.ts';
import { Lab } from '../src/lab/lab.ts';
import { environment, progress } from './environment.ts';
import { type Cost, CostRig } from './resync/cost.ts';
import { type Pass, rowOf, type Row, type Waits, waitsWithin } from './resync/figures.ts';
import { linkBytesPerS } from './resync/link.ts';
import { Rig } from './resync/rig.ts';
import { median } from './write/tables.ts';
import { printCosts, printRows, printVerdicts } from './resync/tables.ts';

interface Options {
  readonly rounds: number;
  readonly mib: number;
  readonly parts: readonly number[];
  /** The application runs for so long before and after a resync. */
  readonly aroundMs: number;
  readonly json: string | null;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      mib: { type: 'string' },
      parts: { type: 'string' },
      json: { type: 'string' },
    },
  });
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    throw new Error('--rounds is a number from 1 to 100');
  }
  const mib = Number(values.mib ?? (values.quick ? 128 : 1024));
  if (!Number.isInteger(mib) || mib < 16 || mib > 2048) {
    throw new Error('--mib is a number from 16 to 2048');
  }
  const parts = values.parts?.split(',').map(Number) ?? [0.1, 1, 10, 100];
  if (parts.some((part) => !(part > 0 && part <= 100))) {
    throw new Error('--parts are percentages, as 0.1,100');
  }
  return {
    rounds,
    mib,
    parts: parts.map((part) => part / 100),
    aroundMs: values.quick ? 1500 : 4000,
    json: values.json ?? null,
  };
}

/** What was seen of one part of the tree, over the rounds. */
class Seen implements Waits {
  readonly quiet: Pass[] = [];
  readonly loaded: Pass[] = [];
  readonly alone: number[] = [];
  readonly during: number[] = [];
  readonly after: number[] = [];
}

/** A part changes while the other side is away: once nobody writes on its way back, once under load. */
async function measurePart(
  rig: Rig,
  part: number,
  seed: number,
  aroundMs: number,
  seen: Seen,
): Promise<void> {
  await rig.part();
  const { changedBytes } = await rig.change(part, seed);
  seen.quiet.push(await rig.back(changedBytes));
  await rig.compare();
  await rig.part();
  const again = await rig.change(part, seed + 1);
  const { result, operations } = await rig.underLoad(aroundMs, () => rig.back(again.changedBytes));
  await rig.compare();
  seen.loaded.push(result);
  const { peerMs, fromMs, toMs } = result;
  // One by one: there may be more of them than a call takes arguments.
  for (const us of waitsWithin(operations, 0, peerMs)) seen.alone.push(us);
  for (const us of waitsWithin(operations, fromMs, toMs)) seen.during.push(us);
  for (const us of waitsWithin(operations, toMs, Number.POSITIVE_INFINITY)) seen.after.push(us);
}

interface Results {
  readonly linkBytesPerS: number;
  readonly rows: readonly Row[];
  readonly costs: readonly Cost[];
}

async function measure(lab: Lab, options: Options): Promise<Results> {
  const backing = await mountBacking(lab, 'ext4');
  const [first, second] = [lab.host('s1'), lab.host('s2')];
  progress(`filling a tree of ${options.mib} MiB`);
  const rig = await Rig.make(lab, backing, options.mib);
  const parts = new Map(options.parts.map((part) => [part, new Seen()]));
  const costs: Cost[] = [];
  const links: number[] = [];
  try {
    const cost = await CostRig.make(lab, backing, rig);
    try {
      for (let round = 0; round < options.rounds; round++) {
        const of = `round ${round + 1} of ${options.rounds}`;
        progress(`${of}: the link alone`);
        links.push(await linkBytesPerS(first, second, 2));
        progress(`${of}: noting what changes`);
        costs.push(...(await cost.round()));
        for (const [part, seen] of parts) {
          progress(`${of}: ${part * 100} % changed`);
          await measurePart(rig, part, 2 * round, options.aroundMs, seen);
        }
      }
    } finally {
      await cost.stop();
    }
  } finally {
    await rig.stop();
  }
  const link = median(links);
  const rows = [...parts].map(([part, seen]) => rowOf(part, seen.quiet, seen.loaded, seen, link));
  return { linkBytesPerS: link, rows, costs };
}

async function main(): Promise<void> {
  const options = readOptions();
  if (process.getuid?.() !== 0) throw new Error('bench resync: needs root (mounts)');
  const loadAtStart = os.loadavg()[0] ?? 0;
  progress('building the lab');
  const lab = await Lab.up({ hosts: 2, clients: 0, offloads: true });
  let results: Results;
  try {
    results = await measure(lab, options);
  } finally {
    await lab.down();
  }
  const { rows, costs } = results;
  progress('');
  const link = (results.linkBytesPerS / 1e6).toFixed(0);
  console.log(
    `resync: ${options.mib} MiB on ext4 in files of 1 MiB; link ${link} MB/s (one TLS stream)\n`,
  );
  printRows(rows);
  printCosts(costs);
  printVerdicts(rows);
  const facts = environment(
    loadAtStart,
    'none',
    `${options.rounds} rounds; the seed of what changes is the round; medians over rounds, waits together`,
  );
  for (const [name, value] of Object.entries(facts)) console.log(`${name.padEnd(10)}${value}`);
  if (options.json !== null) {
    writeFileSync(options.json, `${JSON.stringify({ environment: facts, results }, null, 2)}\n`);
  }
}

await main();
