/** What the farm machine remembers, and the small questions that every part of it asks. */
import { type Bitmaps, bitOf, emptyMaps, lowestOf, maskHas } from './bits.ts';
import {
  type FarmConfig,
  type FarmEffect,
  type FarmTiming,
  type FollowMessage,
  nobody,
  type Reach,
  type StatusMessage,
  summaryFlag,
  type View,
  type ViewName,
} from './farm-types.ts';
import type { FarmRules } from './farm-rules.ts';

/** excluded: a rival view is announced within hearing; this node owns nothing until it is let in. */
export type FarmRole = 'stopped' | 'listening' | 'following' | 'leading' | 'excluded';

export interface Peer {
  readonly reach: Reach;
  /** When reach became what it is. */
  readonly reachMs: number;
  readonly boot: bigint;
  readonly hung: boolean;
  /** A lease that it had before it hung or restarted may last until then; 0: no such lease. */
  readonly lapseMs: number;
  readonly flags: number;
  readonly viewEpoch: number;
  readonly viewMembers: bigint;
  readonly status: StatusMessage | null;
  readonly statusMs: number;
  /** Its newest wish to follow this node, kept also while this node does not lead yet. */
  readonly follow: FollowMessage | null;
}

/** A node that takes this leader's views. */
export interface Follower {
  /** The last status that was learned from, and under which view of ours. */
  readonly learned: StatusMessage | null;
  readonly learnedEpoch: number;
  readonly startedMs: number;
  readonly followMark: number;
  readonly closeMark: number;
}

/** Connections that a member may still hold in buckets that moved away. */
export interface Holding {
  readonly maps: Bitmaps;
  /** View by which the newest of them were given up: older reports say nothing of them. */
  readonly epoch: number;
  readonly sinceMs: number;
}

/** What only the leader knows. */
export interface Lead {
  readonly followers: Readonly<Record<number, Follower>>;
  /** Buckets that a node may own, by all that is known. No entry for a node that serves: all. */
  readonly claims: Readonly<Record<number, Bitmaps>>;
  readonly holding: Readonly<Record<number, Holding>>;
  /** Members that can no longer be reached by all, and since when. */
  readonly cutMs: Readonly<Record<number, number>>;
  /** Newest view that any follower brought along. */
  readonly base: View | null;
  /** When it issued its last view; 0: none yet. */
  readonly issuedMs: number;
  readonly sentMs: number;
  readonly refusal: string;
  /** Counts changes of claims and holding. */
  readonly version: number;
  /** All that the current view was last compared with and found right. */
  readonly judged: string;
}

export interface FarmState {
  /** Belongs to the step under way; always null in a state that was returned. */
  readonly out: unknown;
  readonly config: FarmConfig;
  /** The other nodes, lowest id first. */
  readonly others: readonly number[];
  readonly nowMs: number;
  readonly role: FarmRole;
  readonly startedMs: number;
  readonly seq: number;
  readonly electable: boolean;
  /** No view of its own before this time: it may not have heard the others yet. */
  readonly listenUntilMs: number;
  readonly ready: boolean;
  readonly draining: boolean;
  readonly powers: readonly (number | null)[];
  readonly peers: Readonly<Record<number, Peer>>;
  readonly epochMax: number;
  readonly mark: number;
  readonly followMark: number;
  readonly closeMark: number;
  readonly follows: number;
  readonly followSentMs: number;
  /** Newest view taken; it contains this node. */
  readonly view: View | null;
  /** Since when this node stands for a view with no rival in sight; null: it does not. */
  readonly standsMs: number | null;
  /** Stood long enough: it may be given buckets. */
  readonly settled: boolean;
  readonly excludedBy: ViewName | null;
  readonly install: number;
  readonly installDone: number;
  /** When the last install was answered. */
  readonly installedMs: number;
  readonly installed: ViewName | null;
  /**
   * The view that heartbeats name: the one that the filter enforces, or is about to where it gives
   * nothing up. A table under the name of a view that takes something away from it would have its
   * lease renewed although others have those buckets by now.
   */
  readonly stands: { readonly epoch: number; readonly members: bigint } | null;
  /** Buckets that the filter may own: by the last table answered for and those under way. */
  readonly owned: Bitmaps;
  /** Buckets that the newest table owns / holds. */
  readonly wanted: Bitmaps;
  readonly held: Bitmaps;
  /** Buckets with connections, by the newest walk. */
  readonly sockets: Bitmaps;
  /** It stops owning by itself; closeMark rises when the filter has done it. */
  readonly closing: boolean;
  readonly lead: Lead | null;
  /** Canonical forms of the last announcement, table and status, to tell a change. */
  readonly announced: (FarmEffect & { readonly kind: 'announce' }) | null;
  readonly compiled: string;
  readonly told: StatusMessage | null;
  readonly toldMs: number;
}

/** A state being changed by one event, and the effects so far. Nested data is replaced, not changed. */
export type Work = { -readonly [K in Exclude<keyof FarmState, 'out'>]: FarmState[K] } & {
  readonly out: { effects: FarmEffect[]; readonly rules: FarmRules; hearing: Hearing | null };
};

/** Nodes that this node hears / in both directions / hears and which may accept clients. */
export interface Hearing {
  readonly heard: bigint;
  readonly both: bigint;
  readonly open: bigint;
}

/** Repetition of follow and view messages that may have been lost with a connection. */
export const retryMs = 200;
/** A status goes to every peer at least this often. */
export const statusMs = 1000;
/** On top of a peer's lease before its buckets are taken: clock rates, scheduling of the kernel. */
export const lapseMarginMs = 20;
/** The next view waits this many heartbeats for the members to enforce the last, if none died. */
export const patienceBeats = 2;
/** A node heard but not hearing may do so this many heartbeats before it is taken for one-way. */
export const oneWayBeats = 3;
/** A holder's report counts only this long after it gave up: a handshake without socket may be on. */
export const holdMinMs = 1000;

export const noPeer: Peer = {
  reach: 'silent',
  reachMs: 0,
  boot: 0n,
  hung: false,
  lapseMs: 0,
  flags: 0,
  viewEpoch: 0,
  viewMembers: 0n,
  status: null,
  statusMs: 0,
  follow: null,
};

export function groupsOf(state: { readonly config: FarmConfig }): number {
  return state.config.groups.length;
}

export function noMaps(state: { readonly config: FarmConfig }): Uint8Array[] {
  return emptyMaps(groupsOf(state));
}

export function peerOf(state: FarmState, node: number): Peer {
  return state.peers[node] ?? noPeer;
}

/** Is it there at all? A hung one is, as long as its lease may last. */
export function isAlive(peer: Peer, nowMs: number): boolean {
  return peer.reach !== 'silent' && !(peer.hung && nowMs >= peer.lapseMs);
}

/** Do packets and messages pass both ways, and is somebody there to answer? */
export function isBoth(peer: Peer): boolean {
  return peer.reach === 'both' && !peer.hung;
}

export function isRunning(peer: Peer): boolean {
  return (peer.flags & summaryFlag.running) !== 0;
}

/** May its filter accept new clients, by all that this node hears of it? */
export function mayServe(peer: Peer, nowMs: number): boolean {
  const open = (peer.flags & summaryFlag.open) !== 0;
  return isAlive(peer, nowMs) && (open || nowMs < peer.lapseMs);
}

/** … or at any moment, without another word: who stands for a view is opened by its leader. */
export function mayOpen(peer: Peer, nowMs: number): boolean {
  const stands = isRunning(peer) && peer.viewMembers !== 0n;
  return mayServe(peer, nowMs) || (isAlive(peer, nowMs) && stands);
}

/**
 * A peer that says nothing on its channel for this long is passed over, though its heartbeats come.
 * Longer than the agent deadline: a hung agent is found by its heartbeats, with its lease lapsed.
 */
export function statusExpiryMs(timing: FarmTiming): number {
  return timing.agentDeadlineMs + 2 * statusMs;
}

/** The status of a peer that can be relied on now; null: none. */
export function freshStatus(state: FarmState, node: number): StatusMessage | null {
  const peer = peerOf(state, node);
  const fresh = state.nowMs - peer.statusMs < statusExpiryMs(state.config.timing);
  return fresh && isAlive(peer, state.nowMs) && isRunning(peer) ? peer.status : null;
}

export function nameOf(view: View | null): ViewName | null {
  return view === null ? null : { epoch: view.epoch, leader: view.leader };
}

export function announcedName(peer: Peer): ViewName {
  return { epoch: peer.viewEpoch, leader: lowestOf(peer.viewMembers) };
}

/** The higher epoch wins, then the lower leader. */
export function isBetter(a: ViewName, b: ViewName | null): boolean {
  return b === null || a.epoch > b.epoch || (a.epoch === b.epoch && a.leader < b.leader);
}

export function sameName(a: ViewName | null, b: ViewName | null): boolean {
  return a?.epoch === b?.epoch && a?.leader === b?.leader;
}

/** Does the view give buckets to this node now, as far as marks say? */
export function viewOpens(state: FarmState): boolean {
  return state.view !== null && (state.view.marks[state.config.me] ?? -1) >= state.closeMark;
}

export function nextMark(work: Work): number {
  work.mark = Math.max(work.mark + 1, Math.floor(work.nowMs));
  return work.mark;
}

export function record(
  work: Work,
  kind: 'view' | 'transition' | 'refusal',
  text: string,
  data: Readonly<Record<string, unknown>> = {},
): void {
  work.out.effects.push({ kind: 'record', record: kind, text, data });
}

/** This node's own hearing; worked out once per step, after the event itself. */
export function ownHearing(work: Work): Hearing {
  if (work.out.hearing !== null) return work.out.hearing;
  let heard = 0n;
  let both = 0n;
  let open = 0n;
  for (const node of work.others) {
    const peer = peerOf(work, node);
    if (!isAlive(peer, work.nowMs)) continue;
    if (!isRunning(peer) && work.nowMs >= peer.lapseMs) continue;
    const bit = bitOf(node);
    heard |= bit;
    if (isBoth(peer)) both |= bit;
    if (mayOpen(peer, work.nowMs)) open |= bit;
  }
  work.out.hearing = { heard, both, open };
  return work.out.hearing;
}

/** Changes what the leader knows; a change of claims or holding asks for a look at the view. */
export function setLead(work: Work, change: Partial<Lead>): void {
  if (work.lead === null) return;
  const counts = change.claims !== undefined || change.holding !== undefined;
  work.lead = { ...work.lead, ...change, version: work.lead.version + (counts ? 1 : 0) };
}

export function withKey<T>(
  all: Readonly<Record<number, T>>,
  key: number,
  value: T,
): Record<number, T> {
  return { ...all, [key]: value };
}

export function withoutKey<T>(all: Readonly<Record<number, T>>, key: number): Record<number, T> {
  const { [key]: _gone, ...rest } = all;
  return rest;
}

export function nodeKeys(all: Readonly<Record<number, unknown>>): number[] {
  return Object.keys(all).map(Number);
}

export function isMember(view: View | null, node: number): boolean {
  return view !== null && maskHas(view.members, node);
}

export { nobody };
