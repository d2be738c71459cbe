/** The states of the explorer's world: plain data, never changed. */
import type { ArbiterRecord, Durable, Message } from '../core/mirror.ts';
import { isEqual } from './mirror-register.ts';

export interface PairBounds {
  readonly writes: number;
  /** Highest epoch that the arbiter lets be made. */
  readonly epochs: number;
  readonly crashes: number;
  /**
   * How often a server may take a living one for dead, the engines lose their connection, or an
   * answer of the arbiter be lost; all together.
   */
  readonly troubles: number;
  /**
   * Words of the agents are heard at once, and only a late one is a trouble. False: the newest is
   * heard whenever, and as often as, it comes.
   */
  readonly prompt: boolean;
}

export interface PairEngine {
  readonly role: 'none' | 'prim' | 'second';
  readonly epoch: number;
  /** prim: epoch of the newest order that let it acknowledge alone. */
  readonly permit: number;
  /** second: nothing of a lower epoch is taken; forgotten in a crash. */
  readonly floor: number;
  readonly required: boolean;
  readonly peerHas: number;
  /** What it has told of the peer's copy. */
  readonly told: 'none' | 'resync' | 'caughtUp' | 'inSync';
}

export interface PairNode {
  readonly up: boolean;
  /** Of the machine, in the local table. */
  readonly state: number;
  readonly engine: PairEngine;
  readonly durable: Durable;
  readonly copy: 'none' | 'inSync';
  readonly log: readonly number[];
  readonly session: number;
  /** What the arbiter was asked. */
  readonly asked: PairAsked | null;
  /** What it told last, and whether that may still be heard for the first time. */
  readonly word: Message | null;
  readonly fresh: boolean;
  readonly reach: 'unknown' | 'silent' | 'both';
}

export interface PairAsked {
  readonly from: ArbiterRecord | null;
  /** null: a read. */
  readonly to: ArbiterRecord | null;
  /** The swap was done. */
  readonly done: boolean;
  /** What the register held since it was asked, and does not any more: the answer may be that old. */
  readonly past: readonly (ArbiterRecord | null)[];
}

export type PairMessage =
  | {
      readonly kind: 'write' | 'have' | 'whole';
      readonly to: number;
      readonly epoch: number;
      readonly session: number;
      readonly at: number;
      readonly write: number;
    }
  | {
      readonly kind: 'sync';
      readonly to: number;
      readonly epoch: number;
      readonly session: number;
      readonly log: readonly number[];
    }
  /** A swap that may be done now, later or never. */
  | { readonly kind: 'swap'; readonly from: ArbiterRecord | null; readonly record: ArbiterRecord };

export interface PairState {
  readonly nodes: readonly [PairNode, PairNode];
  readonly record: ArbiterRecord | null;
  readonly connected: boolean;
  readonly messages: ReadonlyMap<string, PairMessage>;
  readonly acked: readonly number[];
  readonly writes: number;
  readonly crashes: number;
  readonly troubles: number;
}

export const noEngine: PairEngine = {
  role: 'none',
  epoch: 0,
  permit: 0,
  floor: 0,
  required: true,
  peerHas: 0,
  told: 'none',
};

export function nodeOf(state: PairState, i: number): PairNode {
  return i === 0 ? state.nodes[0] : state.nodes[1];
}

export function withNode(state: PairState, i: number, node: PairNode): PairState {
  const [a, b] = state.nodes;
  return { ...state, nodes: i === 0 ? [node, b] : [a, node] };
}

export function send(state: PairState, message: PairMessage): PairState {
  const key =
    message.kind === 'swap'
      ? `swap:${recordText(message.from)}:${recordText(message.record)}`
      : Object.values(message).join(':');
  if (state.messages.has(key)) return state;
  return { ...state, messages: new Map(state.messages).set(key, message) };
}

export function recordText(record: ArbiterRecord | null): string {
  if (record === null) return '-';
  return `${record.incarnation}.${record.epoch}.${record.primary}.${record.inSync.join('')}`;
}

/** The register changes while a server waits for its answer, which may be about what was before. */

export function noticing(state: PairState, i: number, record: ArbiterRecord): PairState {
  const node = nodeOf(state, i);
  const { asked } = node;
  if (asked === null || asked.done) return state;
  const done = isEqual(asked.to, record);
  const isNews = asked.to === null || isRefused(asked, state.record);
  const past = !done && isNews ? [...asked.past, state.record] : done ? [] : asked.past;
  return withNode(state, i, { ...node, asked: { ...asked, done, past } });
}

/** A swap that finds this is not done. */

export function isRefused({ from, to }: PairAsked, record: ArbiterRecord | null): boolean {
  return !isEqual(from, record) && !isEqual(to, record);
}

export function askedText(asked: PairAsked | null): string {
  if (asked === null) return '-';
  return [asked.from, asked.to, ...asked.past].map(recordText).join('>') + (asked.done ? '!' : '');
}

/** Without a trace in the world when nothing follows from it. */

/** For walks: what a healthy world does soon, and what is rare in it. */
export const pairWeights: Readonly<Record<string, number>> = {
  read: 8,
  won: 8,
  lost: 8,
  up: 4,
  hear: 2,
  write: 2,
  ack: 2,
  sync: 2,
  'timer grace': 8,
  'timer headStart': 3,
  'timer status': 0.1,
  'timer look': 0.3,
  'link up': 4,
  'link down': 0.3,
  'swap of': 4,
  'take sync': 4,
  'take write at': 2,
  'caught up': 6,
  'in sync': 6,
  silent: 0.3,
  'no answer': 0.2,
  crash: 0.1,
  'crash after': 0.02,
  unheard: 0.03,
  'not kept': 0.05,
};
