/**
 * `npm run bench -- write-latency [--quick] [--rounds N] [--on tmpfs|ext4] [--jobs A,B] [--sides A,B]
 * [--no-peers] [--json FILE]`: what a write costs that is on two servers when it returns. The same jobs on the
 * same file system bare, through the mount alone, replicated under each policy, and on GlusterFS
 * replica 2, in turn. docs/reference/benchmarks.md says what each figure includes.
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { type Backing, type BackingKind, mountBacking } from '../src/lab/backing.ts';
import { Lab } from '../src/lab/lab.ts';
import { environment, progress } from './environment.ts';
import { postgresVersion } from './write/databases.ts';
import { glusterSide, glusterVersion } from './write/gluster.ts';
import { holdfastSides } from './write/holdfast.ts';
import { type Figures, type Job, jobsOf, measure } from './write/jobs.ts';
import { bareSide, type Side } from './write/side.ts';
import { printTable, printTargets, type Row } from './write/tables.ts';

interface Options {
  readonly rounds: number;
  readonly scale: number;
  readonly kinds: readonly BackingKind[];
  readonly jobs: readonly string[] | null;
  readonly sides: readonly string[] | null;
  readonly peers: boolean;
  readonly json: string | null;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      on: { type: 'string' },
      jobs: { type: 'string' },
      sides: { type: 'string' },
      peers: { type: 'boolean', default: true },
      json: { type: 'string' },
    },
    allowNegative: true,
  });
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    throw new Error('--rounds is a number from 1 to 100');
  }
  if (values.on !== undefined && values.on !== 'tmpfs' && values.on !== 'ext4') {
    throw new Error('--on is tmpfs or ext4');
  }
  return {
    rounds,
    scale: values.quick ? 0.2 : 1,
    kinds: values.on === undefined ? ['tmpfs', 'ext4'] : [values.on],
    jobs: values.jobs?.split(',') ?? null,
    sides: values.sides?.split(',') ?? null,
    peers: values.peers,
    json: values.json ?? null,
  };
}

async function sidesOf(lab: Lab, backing: Backing, options: Options): Promise<readonly Side[]> {
  const sides = [
    await bareSide(lab.host('s1'), backing),
    ...(await holdfastSides(lab, backing)),
    ...(options.peers ? [await glusterSide(lab, backing)] : []),
  ];
  const wanted = options.sides;
  return wanted === null
    ? sides
    : sides.filter(({ title }) => title === 'bare' || wanted.some((word) => title.includes(word)));
}

/** One run of each job on each side per round, sides in turn, in the other direction each round. */
async function runAll(
  lab: Lab,
  jobs: readonly Job[],
  sides: readonly Side[],
  options: Options,
): Promise<readonly Row[]> {
  const runs = new Map<string, Figures[]>();
  for (let round = 0; round < options.rounds; round++) {
    for (const job of jobs) {
      for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
        progress(`round ${round + 1} of ${options.rounds}: ${job.title}, ${side.title}`);
        const figures = await measure(job, lab.host('s1'), side.dir);
        const key = `${job.name} ${side.title}`;
        runs.set(key, [...(runs.get(key) ?? []), figures]);
      }
    }
  }
  return jobs.flatMap((job) =>
    sides.map((side) => ({ job, side, runs: runs.get(`${job.name} ${side.title}`) ?? [] })),
  );
}

async function runOn(kind: BackingKind, options: Options): Promise<readonly Row[]> {
  progress(`${kind}: building the lab`);
  const lab = await Lab.up({ hosts: 2, clients: 0, offloads: true });
  const sides: Side[] = [];
  try {
    const backing = await mountBacking(lab, kind);
    sides.push(...(await sidesOf(lab, backing, options)));
    const jobs = jobsOf(options.scale).filter(
      ({ name }) => options.jobs === null || options.jobs.includes(name),
    );
    return await runAll(lab, jobs, sides, options);
  } finally {
    for (const side of sides.toReversed()) await side.stop().catch(() => {});
    await lab.down();
  }
}

async function main(): Promise<void> {
  const options = readOptions();
  if (process.getuid?.() !== 0) throw new Error('bench write-latency: needs root (mounts)');
  const loadAtStart = os.loadavg()[0] ?? 0;
  const results: Record<string, readonly Row[]> = {};
  for (const kind of options.kinds) {
    const rows = await runOn(kind, options);
    results[kind] = rows;
    progress('');
    printTable(kind, rows);
    printTargets(kind, rows);
  }
  const facts = environment(
    loadAtStart,
    `${options.peers ? glusterVersion() : 'none'}; ${postgresVersion()}`,
    `${options.rounds} rounds, sides in turn, direction changing; medians over rounds`,
  );
  for (const [name, value] of Object.entries(facts)) console.log(`${name.padEnd(10)}${value}`);
  if (options.json !== null) {
    writeFileSync(options.json, `${JSON.stringify({ environment: facts, results }, null, 2)}\n`);
  }
}

await main();
