/** What is made of the probes' figures: the gap of one power pull, and percentiles over many. */
import type { ClientRecord } from '../../src/lab/clients.ts';

/** One pull, as the probing clients saw it. */
export interface Pull {
  readonly victim: string;
  /** Longest wait for an answer of any client that the pulled server had served. */
  readonly gapMs: number;
  /** How many clients the pulled server had served, and of how many. */
  readonly hit: number;
  readonly clients: number;
  /** Longest wait of any other client meanwhile. 0: there is no other client. */
  readonly othersMs: number;
  /** Longest wait of any client in the time before the pull, when nothing happened. */
  readonly quietMs: number;
  /** How late the prober was at worst: the gap is known to this precision only. */
  readonly lateMs: number;
}

/** The clients that a server served, by their place in the list. */
export function servedBy(records: readonly ClientRecord[], server: string): readonly number[] {
  return [...records.keys()].filter((index) => records[index]?.server === server);
}

/** True when each client of the pulled server has an answer of another one, and none waits on. */
export function isOver(
  records: readonly ClientRecord[],
  hit: readonly number[],
  victim: string,
): boolean {
  return hit.every((index) => records[index]?.server !== victim);
}

/**
 * The gaps of one pull, ms: of the clients in `hit`, and of all others. `records` is what the clients
 * say once the pull is over; their longest waits began to count shortly before it.
 */
export function gapsOf(
  records: readonly ClientRecord[],
  hit: readonly number[],
): { readonly gapMs: number; readonly othersMs: number } {
  if (hit.length === 0) throw new Error('the pulled server had no client: nothing was measured');
  const longest = (indexes: readonly number[]): number =>
    indexes.reduce((most, index) => Math.max(most, records[index]?.longestGapUs ?? 0), 0) / 1000;
  const others = [...records.keys()].filter((index) => !hit.includes(index));
  return { gapMs: longest(hit), othersMs: longest(others) };
}

/** The smallest value that is not less than a part q (above 0, at most 1) of all: nearest rank. */
export function percentile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN;
}

/** What a row of the table says of its pulls. */
export interface Summary {
  readonly pulls: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly maxMs: number;
  /** Part of the clients that were hit by a pull, on average. */
  readonly hitShare: number;
  readonly othersMaxMs: number;
  readonly quietMaxMs: number;
  readonly lateMaxMs: number;
}

export function summaryOf(pulls: readonly Pull[]): Summary {
  const gaps = pulls.map(({ gapMs }) => gapMs);
  const most = (pick: (pull: Pull) => number) => Math.max(...pulls.map(pick));
  const sum = (pick: (pull: Pull) => number) => pulls.reduce((all, pull) => all + pick(pull), 0);
  return {
    pulls: pulls.length,
    p50Ms: percentile(gaps, 0.5),
    p95Ms: percentile(gaps, 0.95),
    maxMs: percentile(gaps, 1),
    hitShare: sum(({ hit }) => hit) / sum(({ clients }) => clients),
    othersMaxMs: most(({ othersMs }) => othersMs),
    quietMaxMs: most(({ quietMs }) => quietMs),
    lateMaxMs: most(({ lateMs }) => lateMs),
  };
}
