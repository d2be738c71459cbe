/**
 * `npm run bench -- farm-failover [--pulls N | --quick] [--lost N] [--json FILE]`: how long clients go without an
 * answer when a server loses its power, for a Holdfast farm and for keepalived at the same heartbeat
 * interval, interleaved in one run. docs/reference/benchmarks.md says what each figure includes.
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import type { ClusterTiming } from '../src/lab/cluster.ts';
import { environment, progress } from './environment.ts';
import { type Pull, type Summary, summaryOf } from './failover/figures.ts';
import { HoldfastRig } from './failover/holdfast.ts';
import { KeepalivedRig, keepalivedVersion } from './failover/keepalived.ts';
import { pullOf, type Rig } from './failover/rig.ts';

/** DESIGN target for the default timing: all clients answered by the survivors within this. */
const defaultMaxMs = 300;

/** As the product ships: heartbeats of 50 ms, and a server silent for 4 of them is lost. */
const shipped = { heartbeatMs: 50, lostCount: 4 } as const;

interface Contest {
  readonly heartbeatMs: number;
  readonly title: string;
  readonly timing: ClusterTiming;
}

/** A lease of three quarters of the silence that makes a peer suspect, which is the default. */
function contestOf(heartbeatMs: number, lostCount: number): Contest {
  const isShipped = heartbeatMs === shipped.heartbeatMs && lostCount === shipped.lostCount;
  const leaseMs = Math.floor((3 * heartbeatMs * lostCount) / 4);
  return {
    heartbeatMs,
    title: `Holdfast ${heartbeatMs} ms x ${lostCount}${isShipped ? ', default' : ''}`,
    timing: isShipped ? {} : { heartbeatMs, lostCount, leaseMs },
  };
}

interface Row {
  readonly title: string;
  readonly heartbeatMs: number;
  readonly isHoldfast: boolean;
  readonly summary: Summary;
  readonly pulls: readonly Pull[];
}

interface Options {
  readonly pulls: number;
  readonly lostCount: number;
  readonly json: string | null;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      pulls: { type: 'string' },
      quick: { type: 'boolean', default: false },
      lost: { type: 'string' },
      json: { type: 'string' },
    },
  });
  const pulls = Number(values.pulls ?? (values.quick ? 5 : 20));
  if (!Number.isInteger(pulls) || pulls < 1 || pulls > 1000) {
    throw new Error('--pulls is a number from 1 to 1000');
  }
  const lostCount = Number(values.lost ?? shipped.lostCount);
  if (!Number.isInteger(lostCount) || lostCount < 3 || lostCount > 20) {
    throw new Error('--lost is a number from 3 to 20');
  }
  return { pulls, lostCount, json: values.json ?? null };
}

const rigs: Rig[] = [];

async function downAll(): Promise<void> {
  await Promise.all(rigs.splice(0).map((rig) => rig.lab.down()));
}

/** Both at the same interval, one pull of each in turn, so that the machine's load is the same. */
async function run(contest: Contest, pulls: number): Promise<readonly Row[]> {
  const { heartbeatMs, title, timing } = contest;
  progress(`${title}: building both labs`);
  const rows = [];
  for (const [name, isHoldfast] of [
    [title, true],
    [`keepalived ${heartbeatMs} ms`, false],
  ] as const) {
    const rig = isHoldfast ? await HoldfastRig.up(timing) : await KeepalivedRig.up(heartbeatMs);
    rigs.push(rig);
    rows.push({ title: name, isHoldfast, rig, pulls: [] as Pull[] });
  }
  for (let number = 0; number < pulls; number++) {
    for (const row of rows) {
      const pull = await pullOf(row.rig, number);
      row.pulls.push(pull);
      progress(
        `${row.title}: pull ${number + 1} of ${pulls}, ${pull.victim}: ${ms(pull.gapMs)} ms`,
      );
      await row.rig.restore(row.rig.lab.host(pull.victim));
    }
  }
  await downAll();
  return rows.map((row) => ({
    title: row.title,
    heartbeatMs,
    isHoldfast: row.isHoldfast,
    summary: summaryOf(row.pulls),
    pulls: row.pulls,
  }));
}

const ms = (value: number) => value.toFixed(1);

const columns = ['p50', 'p95', 'max', 'x keepalived', 'clients hit', 'others max', 'quiet max'];

function print(rows: readonly Row[]): void {
  const width = Math.max(...rows.map(({ title }) => title.length)) + 2;
  const line = (title: string, cells: readonly string[]) =>
    console.log(
      title.padEnd(width) +
        cells
          .map((cell, at) => cell.padStart(Math.max(8, (columns[at] ?? '').length + 2)))
          .join(''),
    );
  line('', columns);
  for (const row of rows) {
    const { summary } = row;
    line(row.title, [
      ms(summary.p50Ms),
      ms(summary.p95Ms),
      ms(summary.maxMs),
      row.isHoldfast ? ratio(rows, row).toFixed(2) : '',
      `${(100 * summary.hitShare).toFixed(0)} %`,
      summary.hitShare === 1 ? '' : ms(summary.othersMaxMs),
      ms(summary.quietMaxMs),
    ]);
  }
  const late = Math.max(...rows.map(({ summary }) => summary.lateMaxMs));
  console.log(`the prober itself was late by ${ms(late)} ms at worst\n`);
}

/** Of the medians. */
function ratio(rows: readonly Row[], row: Row): number {
  const peer = rows.find((one) => !one.isHoldfast && one.heartbeatMs === row.heartbeatMs);
  return row.summary.p50Ms / (peer?.summary.p50Ms ?? Number.NaN);
}

function printTargets(rows: readonly Row[]): void {
  const say = (what: string, here: string, target: string, isMet: boolean) =>
    console.log(
      `${what.padEnd(46)}${here.padStart(8)}  ${target.padEnd(10)}${isMet ? 'met' : 'MISSED'}`,
    );
  for (const row of rows.filter(({ isHoldfast }) => isHoldfast)) {
    const { maxMs } = row.summary;
    if (row.title.endsWith('default')) {
      say('default timing, max, ms', ms(maxMs), `< ${defaultMaxMs}`, maxMs < defaultMaxMs);
    }
    const value = ratio(rows, row);
    const what = `heartbeats of ${row.heartbeatMs} ms: p50 / p50 of keepalived`;
    say(what, value.toFixed(2), '<= 1', value <= 1);
  }
}

async function main(): Promise<void> {
  const { pulls, lostCount, json } = readOptions();
  if (process.getuid?.() !== 0) {
    throw new Error('bench farm-failover: needs root (network namespaces, BPF)');
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void downAll().finally(() => process.exit(130)));
  }
  keepalivedVersion();
  const loadAtStart = os.loadavg()[0] ?? 0;
  const rows: Row[] = [];
  try {
    for (const heartbeatMs of [shipped.heartbeatMs, 10]) {
      rows.push(...(await run(contestOf(heartbeatMs, lostCount), pulls)));
    }
  } finally {
    await downAll();
    progress('');
  }
  const facts = environment(
    loadAtStart,
    keepalivedVersion(),
    'no seed: servers in turn; no warm-up: all pulls count',
  );
  console.log(
    `farm-failover: longest wait of any client when a server's power is pulled, ms; ${pulls} pulls each\n`,
  );
  print(rows);
  printTargets(rows);
  console.log('');
  for (const [name, value] of Object.entries(facts)) console.log(`${name.padEnd(12)}${value}`);
  if (json !== null) {
    writeFileSync(json, `${JSON.stringify({ bench: 'farm-failover', facts, rows }, null, 2)}\n`);
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
});
