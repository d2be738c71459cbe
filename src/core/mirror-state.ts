/** The memory of a mirror's machine while it works on one event, and what every part of it needs. */
import type { MirrorRules } from './mirror-rules.ts';
import type {
  ArbiterRecord,
  Durable,
  EngineOrder,
  MirrorConfig,
  MirrorEffect,
  MirrorState,
  Phase,
  StatusMessage,
  TimerName,
} from './mirror-types.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export interface Work extends Mutable<MirrorState> {
  out: {
    readonly effects: MirrorEffect[];
    readonly rules: MirrorRules;
    /** Cause of the change that this event brings, for the line of log. */
    cause: string;
    /** The status is due, changed or not. */
    tell: boolean;
    /** An order is part of this event: its refusal is said, also when it is the same again. */
    ordered: boolean;
  };
}

/** Newest sentences kept for `why`. */
const whyMax = 8;
/** Automatic actions remembered; a greater maxloop than this is no limit anybody waits for. */
export const loopsMax = 1000;
/** Nothing is promised, nobody is primary. */
export const noEpoch = 0;

/** What a server that was never part of the mirror has on disk. */
export const blankDurable: Durable = {
  promised: 0,
  record: null,
  incarnation: 0,
  failover: true,
  home: null,
};

/** A mirror that does not run here; `boot` or `adopt` must be the first event. */
export function mirrorInit(config: MirrorConfig): MirrorState {
  return {
    config,
    nowMs: 0,
    bootMs: 0,
    phase: 'stopped',
    after: 'stop',
    action: 'stop',
    order: 'start',
    durable: blankDurable,
    unsaved: false,
    copy: 'none',
    read: false,
    arbiterWhy: null,
    arbiterBad: null,
    seen: null,
    asked: null,
    unsure: [],
    arbiterId: 0,
    peer: { reach: 'unknown', boot: '', hung: false, heardMs: -1, status: null },
    engine: {
      role: 'none',
      pending: null,
      next: null,
      peer: 'unknown',
      peerCopy: 'none',
      permit: noEpoch,
      alone: false,
    },
    engineId: 0,
    released: noEpoch,
    handOver: false,
    leaving: false,
    suspecting: false,
    dissentMs: null,
    lapsed: false,
    swapTried: false,
    hold: null,
    data: null,
    parked: null,
    veto: null,
    health: null,
    pendingDown: null,
    loops: [],
    timers: {},
    refusal: null,
    why: [],
    told: { status: '', announce: '', shown: '' },
  };
}

/** Phases in which the server holds the record's epoch and may acknowledge under it. */
const primary: readonly Phase[] = ['primOpening', 'primGrace', 'primStarting', 'primGate', 'prim'];
const primaryLeaving: readonly Phase[] = ['primStopping', 'primForcing', 'primClosing'];
const secondary: readonly Phase[] = ['secondOpening', 'secondStarting', 'second'];
const secondaryLeaving: readonly Phase[] = ['secondStopping', 'secondForcing', 'secondClosing'];

export const isPrimary = (state: { phase: Phase }): boolean => primary.includes(state.phase);
export const isSecondary = (state: { phase: Phase }): boolean => secondary.includes(state.phase);
/** Its application may run: what it writes must be acknowledged, also on the way down. */
export const mayWrite = (state: { phase: Phase }): boolean =>
  isPrimary(state) || state.phase === 'primStopping' || state.phase === 'primForcing';
/** It is, or is about to cease to be. */
export const isPrimaryYet = (state: { phase: Phase }): boolean =>
  isPrimary(state) || primaryLeaving.includes(state.phase);
export const isSecondaryYet = (state: { phase: Phase }): boolean =>
  isSecondary(state) || secondaryLeaving.includes(state.phase);

export const has = (record: ArbiterRecord | null, node: number): boolean =>
  record?.inSync.includes(node) === true;

/** (incarnation, epoch): which record came later. */
export function isLater(a: ArbiterRecord, b: ArbiterRecord | null): boolean {
  if (b === null) return true;
  if (a.incarnation !== b.incarnation) return a.incarnation > b.incarnation;
  return a.epoch > b.epoch;
}

export function isSame(a: ArbiterRecord | null, b: ArbiterRecord | null): boolean {
  if (a === null || b === null) return a === b;
  return (
    a.incarnation === b.incarnation &&
    a.epoch === b.epoch &&
    a.primary === b.primary &&
    a.inSync.length === b.inSync.length &&
    a.inSync.every((node, index) => node === b.inSync[index])
  );
}

/** The record that `node` writes after `from`. */
export function successor(
  from: ArbiterRecord,
  node: number,
  inSync: readonly number[],
  leaseMs: number,
): ArbiterRecord {
  const members = [...inSync].sort((a, b) => a - b);
  return { ...from, epoch: from.epoch + 1, primary: node, inSync: members, leaseMs };
}

export function nameOf(state: MirrorState, node: number): string {
  return state.config.names[node] ?? `node ${node}`;
}

export const peerName = (state: MirrorState): string => nameOf(state, state.config.peer);

/** This server's copy is one that a primary may start with. */
export function isWhole(state: MirrorState): boolean {
  return !state.config.hasData || state.copy === 'inSync';
}

/** The peer's word, when it is the word of a primary that this server may follow. */
export function primaryPeer(state: MirrorState): StatusMessage | null {
  const { status } = state.peer;
  const { record } = state.durable;
  if (status === null || status.role !== 'primary' || status.record === null) return null;
  if (status.record.primary !== state.config.peer) return null;
  if (record !== null && isLater(record, status.record)) return null;
  return status.record.epoch >= state.durable.promised ||
    status.record.incarnation > (record?.incarnation ?? 0)
    ? status
    : null;
}

export function setTimer(work: Work, name: TimerName, ms: number): void {
  work.timers = { ...work.timers, [name]: work.nowMs + ms };
}

export function clearTimer(work: Work, ...names: readonly TimerName[]): void {
  const kept = Object.entries(work.timers).filter(([name]) => !names.some((one) => one === name));
  if (kept.length < Object.keys(work.timers).length) work.timers = Object.fromEntries(kept);
}

export const isSet = (state: MirrorState, name: TimerName): boolean =>
  state.timers[name] !== undefined;

/** Durable before any effect that comes after it. */
export function persist(work: Work, change: Partial<Durable>): void {
  const next = { ...work.durable, ...change };
  if (!work.unsaved && JSON.stringify(next) === JSON.stringify(work.durable)) return;
  work.durable = next;
  work.unsaved = false;
  if (work.out.rules.promiseIsKept) work.out.effects.push({ kind: 'persist', durable: next });
}

/** One more swap of which nobody knows what became of it. */
export function doubt(work: Work, record: ArbiterRecord): void {
  if (!work.unsure.some((one) => isSame(one, record))) work.unsure = [...work.unsure, record];
}

/** Of each epoch there is one record: what would have to take its place is void. */
export function settleDoubts(work: Work, record: ArbiterRecord): void {
  if (work.unsure.length > 0) work.unsure = work.unsure.filter((one) => isLater(one, record));
}

/** A record that was won or read, or told by the primary that won it. */
export function noteRecord(work: Work, record: ArbiterRecord): void {
  const isNews = isLater(record, work.durable.record) || !work.out.rules.registerNeverOlder;
  settleDoubts(work, record);
  if (isNews) persist(work, { record, incarnation: floorOf(work, record) });
}

/** It is needed for all that is acknowledged or taken from here on. */
export function promise(
  work: Work,
  record: ArbiterRecord,
  home: number | null = work.durable.home,
): void {
  const promised = Math.max(work.durable.promised, record.epoch);
  settleDoubts(work, record);
  persist(work, { promised, record, home, incarnation: floorOf(work, record) });
}

const floorOf = (work: Work, record: ArbiterRecord): number =>
  Math.max(work.durable.incarnation, record.incarnation);

export function blame(work: Work, text: string): void {
  work.why = [text, ...work.why.filter((old) => old !== text)].slice(0, whyMax);
}

export function say(
  work: Work,
  record: (MirrorEffect & { readonly kind: 'record' })['record'],
  text: string,
  data: Readonly<Record<string, unknown>> = {},
): void {
  work.out.effects.push({ kind: 'record', record, text, data });
}

/**
 * Why it does not do what it would otherwise do: one record for each new reason, and the sentence
 * for `holdfast why`. null: nothing speaks against it any more.
 */
export function refuse(work: Work, text: string | null): void {
  if (text === work.refusal && !work.out.ordered) return;
  work.refusal = text;
  if (text !== null) say(work, 'refusal', text, { epoch: work.durable.record?.epoch ?? 0 });
}

/** The engine does one thing at a time; what is ordered meanwhile waits, the newest only. */
export function orderEngine(work: Work, order: EngineOrder): void {
  const { engine } = work;
  if (engine.pending !== null) {
    work.engine = { ...engine, next: order };
    return;
  }
  work.engineId += 1;
  work.engine = { ...engine, pending: { id: work.engineId, order }, next: null };
  work.out.effects.push({ kind: 'engine', id: work.engineId, order });
}
