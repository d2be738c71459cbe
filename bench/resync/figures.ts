/** What the resync bench makes of what it saw: which blocks changed, what was sent, how long the application waited. */
import { percentile } from '../failover/figures.ts';
import { median } from '../write/tables.ts';

/** The grain in which changes are noted; the tree changes in pieces of this size. */
export const blockBytes = 4096;

/** Numbers from 0 to below 1, the same for a seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The blocks that change: that part of all of them, at least one, each once, in order. */
export function chosenBlocks(blocks: number, part: number, seed: number): readonly number[] {
  const wanted = Math.min(blocks, Math.max(1, Math.round(blocks * part)));
  const random = randomOf(seed);
  const chosen: number[] = [];
  // Knuth, The Art of Computer Programming, vol. 2, algorithm S.
  for (let block = 0; chosen.length < wanted; block++) {
    if ((blocks - block) * random() < wanted - chosen.length) chosen.push(block);
  }
  return chosen;
}

export interface Run {
  readonly file: number;
  readonly offset: number;
  readonly bytes: number;
}

/** The blocks as ranges of files of `fileBytes`, neighbours together. */
export function runsOf(blocks: readonly number[], fileBytes: number): readonly Run[] {
  const runs: Run[] = [];
  for (const block of blocks) {
    const at = block * blockBytes;
    const file = Math.floor(at / fileBytes);
    const offset = at % fileBytes;
    const last = runs.at(-1);
    if (last?.file === file && last.offset + last.bytes === offset) {
      runs[runs.length - 1] = { ...last, bytes: last.bytes + blockBytes };
    } else {
      runs.push({ file, offset, bytes: blockBytes });
    }
  }
  return runs;
}

/** One write of the application. */
export interface Operation {
  /** When it began, on the clock that all processes of the machine share, ms. */
  readonly atMs: number;
  readonly us: number;
}

/** Waits of the writes that were under way at any time between the two moments, us. */
export function waitsWithin(
  operations: readonly Operation[],
  fromMs: number,
  toMs: number,
): readonly number[] {
  return operations
    .filter(({ atMs, us }) => atMs + us / 1000 >= fromMs && atMs <= toMs)
    .map(({ us }) => us);
}

/** Bytes that a network device has sent and received, from /proc/net/dev. */
export function wireBytes(text: string, device: string): number {
  for (const line of text.split('\n')) {
    const [name, rest] = line.split(':');
    if (name?.trim() !== device || rest === undefined) continue;
    const fields = rest.trim().split(/\s+/).map(Number);
    return (fields[0] ?? Number.NaN) + (fields[8] ?? Number.NaN);
  }
  throw new Error(`there is no device ${device}`);
}

/** One way back, without the application writing, or with it. */
export interface Pass {
  readonly changedBytes: number;
  /** What the resync was decided to be. */
  readonly kind: string;
  /** On the cable, both directions, everything included. */
  readonly wireBytes: number;
  /** Of the source's files. */
  readonly readBytes: number;
  /** From the peer's start to in sync. */
  readonly backMs: number;
  /** From the resync's first step to in sync. */
  readonly resyncMs: number;
}

/** The application's waits around a resync, us. */
export interface Waits {
  readonly alone: readonly number[];
  readonly during: readonly number[];
  readonly after: readonly number[];
}

/** Below this many writes a p99 says nothing. */
export const fewest = 100;

/** NaN where there were too few. */
export function p99(waits: readonly number[]): number {
  return waits.length < fewest ? Number.NaN : percentile(waits, 0.99);
}

/** The row of one part of the tree. */
export interface Row {
  readonly part: number;
  readonly kind: string;
  readonly changedBytes: number;
  readonly sentShare: number;
  readonly readShare: number;
  readonly backMs: number;
  /** Bytes changed per second of the resync. */
  readonly bytesPerS: number;
  readonly ofLink: number;
  readonly loadedMs: number;
  readonly loadedBytesPerS: number;
  readonly writes: number;
  readonly p99Alone: number;
  readonly p99During: number;
  readonly p99After: number;
  readonly p99Ratio: number;
}

const perS = ({ changedBytes, resyncMs }: Pass) => (changedBytes * 1000) / resyncMs;

/** Medians over the passes; the waits are those of all of them together. */
export function rowOf(
  part: number,
  quiet: readonly Pass[],
  loaded: readonly Pass[],
  waits: Waits,
  linkBytesPerS: number,
): Row {
  const of = (passes: readonly Pass[], pick: (pass: Pass) => number) => median(passes.map(pick));
  const bytesPerS = of(quiet, perS);
  return {
    part,
    kind: [...new Set(quiet.map(({ kind }) => kind))].join(', '),
    changedBytes: of(quiet, ({ changedBytes }) => changedBytes),
    sentShare: of(quiet, (pass) => pass.wireBytes / pass.changedBytes),
    readShare: of(quiet, (pass) => pass.readBytes / pass.changedBytes),
    backMs: of(quiet, ({ backMs }) => backMs),
    bytesPerS,
    ofLink: bytesPerS / linkBytesPerS,
    loadedMs: of(loaded, ({ resyncMs }) => resyncMs),
    loadedBytesPerS: of(loaded, perS),
    writes: waits.during.length,
    p99Alone: p99(waits.alone),
    p99During: p99(waits.during),
    p99After: p99(waits.after),
    p99Ratio: p99(waits.during) / p99(waits.alone),
  };
}

export interface Verdict {
  readonly what: string;
  readonly value: number;
  readonly target: string;
  /** Null: the figure does not exist in this run. */
  readonly isMet: boolean | null;
}

/** The figures that have a target. */
export function verdictsOf(rows: readonly Row[]): readonly Verdict[] {
  const most = (what: string, value: number, limit: number): Verdict => ({
    what,
    value,
    target: `<= ${limit}`,
    isMet: Number.isNaN(value) ? null : value <= limit,
  });
  return rows.flatMap((row) => {
    const part = `${(row.part * 100).toFixed(1)} % changed`;
    return [
      most(`${part}: bytes sent / bytes changed`, row.sentShare, 1.1),
      most(`${part}: bytes read / bytes changed`, row.readShare, 1.1),
      most(`${part}: p99 during the resync / alone`, row.p99Ratio, 1.5),
    ];
  });
}
