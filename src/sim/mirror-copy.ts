/** A copy as it is on disk, and which of two goes on: the rules of native/replica/lineage.cc. */
import type { CopyState } from '../core/mirror-types.ts';

/** One change; its LSN is its place in the log, from 1 on. */
export interface Entry {
  readonly epoch: number;
  readonly id: number;
}

export interface EpochStart {
  readonly epoch: number;
  /** LSN before its first change. */
  readonly first: number;
  readonly node: number;
  readonly alone: boolean;
}

/** What survives a loss of power; of `log` what is up to `durable`, and by chance more. */
export interface CopyDisk {
  /** Nothing is acknowledged without the peer. */
  required: boolean;
  state: CopyState;
  role: 'none' | 'prim' | 'second';
  /** Stopped in order: nothing was in flight. */
  clean: boolean;
  history: readonly EpochStart[];
  log: Entry[];
  durable: number;
  /** prim: the peer does not follow; it counts again by the end of a resync only. */
  left: boolean;
  /** second: its content is to be replaced, by order. */
  anew: boolean;
  /** inconsistent: the whole state that the undo log leads back to. */
  base: readonly Entry[] | null;
}

export function blankCopy(): CopyDisk {
  return {
    required: true,
    state: 'none',
    role: 'none',
    clean: true,
    history: [],
    log: [],
    durable: 0,
    left: true,
    anew: false,
    base: null,
  };
}

export function addEpoch(disk: CopyDisk, start: EpochStart): void {
  const kept = disk.history.filter((entry) => entry.first <= start.first);
  disk.history = [...kept, start].slice(-128);
}

/** A loss of power: what was not durable is there up to some point. */
export function losePower(disk: CopyDisk, chance: () => number): void {
  const loose = disk.log.length - disk.durable;
  if (loose > 0) disk.log.length = disk.durable + Math.floor(chance() * (loose + 1));
  disk.durable = disk.log.length;
}

/** A resync that cannot go on: the state before it, which is whole and old. */
export function takeBack(disk: CopyDisk): void {
  disk.log = (disk.base ?? []).slice();
  disk.durable = disk.log.length;
  disk.base = null;
  disk.state = 'stale';
}

/** Where two logs stop being the same. */
export function commonEnd(a: readonly Entry[], b: readonly Entry[]): number {
  const end = Math.min(a.length, b.length);
  let at = 0;
  while (at < end && isSame(a[at], b[at])) at++;
  return at;
}

function isSame(a: Entry | undefined, b: Entry | undefined): boolean {
  return a !== undefined && b !== undefined && a.epoch === b.epoch && a.id === b.id;
}

/**
 * follow: it is in sync and takes part in acknowledging. catchUp: it lacks the end of the log.
 * state: what differs is stated. null: refused, since the target has what the source has not.
 */
export type Rejoin = 'follow' | 'catchUp' | 'state' | null;

export function rejoin(source: CopyDisk, target: CopyDisk): Rejoin {
  if (target.state === 'failed') return null;
  if (target.anew) return 'state';
  const place = target.state === 'inconsistent' ? (target.base ?? []) : target.log;
  const common = commonEnd(source.log, place);
  const wasPrimary = target.role === 'prim' && !target.clean;
  // What a pulled primary lost of its own disk the source has: its superblock knew how far it was.
  const isPrefix = wasPrimary && common === place.length;
  if (!isPrefix && aloneAfter(target, place.length, common, wasPrimary)) return null;
  if (wasPrimary || place.length > common) return isNewer(source, target, common) ? 'state' : null;
  if (target.state === 'inconsistent' || target.state === 'none') return 'state';
  return target.state === 'inSync' && source.required && !source.left ? 'follow' : 'catchUp';
}

function isNewer(source: CopyDisk, target: CopyDisk, common: number): boolean {
  if (source.log.length > common) return true;
  const known = (a: EpochStart): boolean =>
    target.history.some((b) => a.epoch === b.epoch && a.first === b.first && a.node === b.node);
  return source.history.some((start) => start.first >= common && !known(start));
}

/** Did it acknowledge alone what lies after `lsn`? noEnd: it may have more than it can say. */
function aloneAfter(disk: CopyDisk, length: number, lsn: number, noEnd: boolean): boolean {
  return disk.history.some((start, i) => {
    if (!start.alone || start.first > length) return false;
    const next = disk.history[i + 1];
    if (next !== undefined && next.first <= length) return next.first > lsn;
    return noEnd || length > lsn;
  });
}
