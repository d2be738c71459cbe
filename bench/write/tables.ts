/** The figures of write-latency as tables, and beside the targets. */
import type { BackingKind } from '../../src/lab/backing.ts';
import type { Figures, Job } from './jobs.ts';
import type { Side } from './side.ts';

export interface Row {
  readonly job: Job;
  readonly side: Side;
  readonly runs: readonly Figures[];
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  if (sorted.length % 2 === 1) return sorted[middle] ?? Number.NaN;
  return ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

const of = (row: Row, pick: (figures: Figures) => number | null) =>
  median(row.runs.map((run) => pick(run) ?? Number.NaN));

const us = (ns: number) => (Number.isNaN(ns) ? '' : (ns / 1000).toFixed(1));

function rate(row: Row): string {
  const value = of(row, ({ opsPerS }) => opsPerS);
  return row.job.name === 'sequential'
    ? `${((value * row.job.bytes) / 1e6).toFixed(0)} MB/s`
    : `${value.toFixed(0)} /s`;
}

/** How much better or worse than bare: time over time, or rate over rate. */
function ratioTo(bare: Row, row: Row): number {
  return row.job.merit === 'latency'
    ? of(row, ({ p50Ns }) => p50Ns) / of(bare, ({ p50Ns }) => p50Ns)
    : of(row, ({ opsPerS }) => opsPerS) / of(bare, ({ opsPerS }) => opsPerS);
}

const widths = [24, 10, 10, 13, 12, 9] as const;

const line = (cells: readonly string[]) =>
  console.log(
    cells
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[at] ?? 10)))
      .join(''),
  );

export function printTable(kind: BackingKind, rows: readonly Row[]): void {
  for (const job of new Set(rows.map((row) => row.job))) {
    line([`${kind}: ${job.title}`]);
    line(['', 'p50 us', 'p99 us', 'rate', 'CPU us/op', 'x bare']);
    const group = rows.filter((row) => row.job === job);
    const bare = group.find(({ side }) => side.title === 'bare');
    for (const row of group) {
      line([
        `  ${row.side.title}`,
        us(of(row, ({ p50Ns }) => p50Ns)),
        us(of(row, ({ p99Ns }) => p99Ns)),
        rate(row),
        of(row, ({ cpuUs }) => cpuUs).toFixed(1),
        bare === undefined ? '' : ratioTo(bare, row).toFixed(2),
      ]);
    }
    console.log('');
  }
}

/** The shipped policy; the targets are about it. */
const shipped = 'fsync, durable';

export function printTargets(kind: BackingKind, rows: readonly Row[]): void {
  const find = (job: string, side: string) =>
    rows.find((row) => row.job.name === job && row.side.title === side);
  const p50 = (job: string, side: string) => {
    const row = find(job, side);
    return row === undefined ? Number.NaN : of(row, ({ p50Ns }) => p50Ns) / 1000;
  };
  const perS = (job: string, side: string) => {
    const row = find(job, side);
    return row === undefined ? Number.NaN : of(row, ({ opsPerS }) => opsPerS);
  };
  const say = (what: string, value: number, target: string, isMet: boolean) => {
    if (Number.isNaN(value)) return;
    const verdict = isMet ? 'met' : 'MISSED';
    console.log(
      `${`${kind}: ${what}`.padEnd(66)}${value.toFixed(2).padStart(9)}  ${target.padEnd(10)}${verdict}`,
    );
  };
  // The peer's share is one O_DSYNC write to its journal.
  const slower = Math.max(p50('fdatasync', 'bare'), p50('dsync', 'bare'));
  const synced = p50('fdatasync', shipped) - slower;
  say(
    '4 KiB synced: added p50 over the slower of local and peer, us',
    synced,
    '<= 100',
    synced <= 100,
  );
  const buffered = p50('buffered', shipped) - p50('buffered', 'bare');
  say('4 KiB not synced: added p50, us', buffered, '<= 25', buffered <= 25);
  const sequential = perS('sequential', shipped) / perS('sequential', 'bare');
  say('sequential, share of bare', sequential, '>= 0.9', sequential >= 0.9);
  const pgbench = perS('pgbench', shipped) / perS('pgbench', 'bare');
  say('pgbench, share of bare', pgbench, '>= 0.8', pgbench >= 0.8);
  for (const job of ['fdatasync', 'dsync', 'small']) {
    const times = p50(job, 'GlusterFS replica 2') / p50(job, shipped);
    say(`${job}: times faster than GlusterFS replica 2`, times, '>= 5', times >= 5);
  }
  console.log('');
}
