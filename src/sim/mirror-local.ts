/**
 * The real machine for an explorer: without time, and remembered. A timer that is set may end at any
 * moment, so of all times only which are set is kept; ids are counted from where they are; words for
 * people are left out. Then the states of one server are few, and each step is computed once.
 */
import {
  type ArbiterRecord,
  type CopyState,
  type Durable,
  type EngineOrder,
  type Message,
  mirrorInit,
  type MirrorEffect,
  type MirrorEvent,
  type MirrorRules,
  type MirrorState,
  mirrorStep,
  type PeerCopy,
  type StartOrder,
  type TimerName,
} from '../core/mirror.ts';
import { mirrorConfig } from './mirror-run.ts';

/** What happens to one server, without a time. */
export type LocalEvent =
  | { readonly kind: 'boot'; readonly durable: Durable; readonly copy: CopyState }
  /** Another agent goes on with what this one had. */
  | { readonly kind: 'adopt' }
  | { readonly kind: 'order'; readonly verb: StartOrder }
  | { readonly kind: 'record'; readonly record: ArbiterRecord | null }
  | { readonly kind: 'won' }
  | { readonly kind: 'lost'; readonly record: ArbiterRecord | null }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'peer'; readonly reach: 'silent' | 'both' }
  | { readonly kind: 'message'; readonly message: Message }
  | { readonly kind: 'engineDone' }
  | { readonly kind: 'enginePeer'; readonly peer: 'connected' | 'lost' }
  | {
      readonly kind: 'peerCopy';
      readonly copy: PeerCopy;
      readonly epoch: number;
      readonly alone: boolean;
    }
  | { readonly kind: 'copy'; readonly copy: CopyState }
  | { readonly kind: 'scriptDone' }
  | { readonly kind: 'health' }
  | { readonly kind: 'timer'; readonly timer: TimerName };

/** Effects that the world of the explorer knows; the others have no meaning without time. */
export type LocalEffect =
  | { readonly kind: 'persist'; readonly durable: Durable }
  | { readonly kind: 'read' }
  | { readonly kind: 'swap'; readonly from: ArbiterRecord | null; readonly to: ArbiterRecord }
  | { readonly kind: 'send'; readonly message: Message }
  | { readonly kind: 'engine'; readonly order: EngineOrder }
  | { readonly kind: 'run' };

export interface LocalStep {
  readonly state: number;
  readonly effects: readonly LocalEffect[];
}

const set = 1;
const later = 2;

export class LocalMachine {
  readonly rules: MirrorRules;
  readonly #states: MirrorState[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #values = new Map<string, number>();
  readonly #objects = new WeakMap<object, number>();
  readonly #steps = new Map<string, LocalStep>();

  constructor(rules: MirrorRules) {
    this.rules = rules;
  }

  /** A server that has just booted. */
  init(me: number): number {
    return this.#number(mirrorInit({ ...mirrorConfig(me), hasHealth: false }));
  }

  get(state: number): MirrorState {
    const found = this.#states[state];
    if (found === undefined) throw new Error(`no state ${state}`);
    return found;
  }

  get size(): number {
    return this.#states.length;
  }

  timers(state: number): TimerName[] {
    return Object.keys(this.get(state).timers) as TimerName[];
  }

  /** Equal values have equal numbers; one object is compared only once. */
  number(value: object | null): number {
    if (value === null) return 0;
    const known = this.#objects.get(value);
    if (known !== undefined) return known;
    const text = JSON.stringify(value);
    const number = this.#values.get(text) ?? this.#values.size + 1;
    this.#values.set(text, number);
    this.#objects.set(value, number);
    return number;
  }

  step(state: number, event: LocalEvent): LocalStep {
    const key = `${state} ${this.#eventText(event)}`;
    const known = this.#steps.get(key);
    if (known !== undefined) return known;
    const before = this.get(state);
    const [after, effects] = mirrorStep(beginning(before, event), timed(before, event), this.rules);
    const kept = effects.flatMap((effect) => localEffect(effect));
    const step = { state: this.#number(after), effects: kept };
    this.#steps.set(key, step);
    return step;
  }

  #eventText(event: LocalEvent): string {
    switch (event.kind) {
      case 'message':
        return `message ${this.number(event.message)}`;
      case 'record':
      case 'lost':
        return `${event.kind} ${this.number(event.record)}`;
      case 'boot':
        return `boot ${event.copy} ${this.number(event.durable)}`;
      default:
        return Object.values(event).join(' ');
    }
  }

  #number(state: MirrorState): number {
    const plain = canonical(state);
    const text = JSON.stringify({ ...plain, config: plain.config.me });
    const known = this.#numbers.get(text);
    if (known !== undefined) return known;
    this.#states.push(plain);
    this.#numbers.set(text, this.#states.length - 1);
    return this.#states.length - 1;
  }
}

/** What the event is given to. */
function beginning(state: MirrorState, event: LocalEvent): MirrorState {
  if (event.kind === 'timer') return onlyDue(state, event.timer);
  return event.kind === 'adopt' ? mirrorInit(state.config) : state;
}

/** Only that timer ends: the order of the others is anybody's guess. */
function onlyDue(state: MirrorState, timer: TimerName): MirrorState {
  const names = Object.keys(state.timers) as TimerName[];
  const timers = Object.fromEntries(names.map((name) => [name, name === timer ? set : later]));
  return { ...state, timers };
}

function canonical(state: MirrorState): MirrorState {
  const { asked, engine, peer } = state;
  const names = (Object.keys(state.timers) as TimerName[]).toSorted();
  return {
    ...state,
    nowMs: 0,
    timers: Object.fromEntries(names.map((name) => [name, set])),
    bootMs: 0,
    dissentMs: state.dissentMs === null ? null : 0,
    loops: [],
    why: [],
    refusal: state.refusal === null ? null : 'x',
    arbiterId: 0,
    asked: asked === null ? null : { ...asked, id: 0 },
    engineId: 0,
    engine: engine.pending === null ? engine : { ...engine, pending: { ...engine.pending, id: 0 } },
    peer: { ...peer, heardMs: Math.min(0, peer.heardMs) },
  };
}

function timed(state: MirrorState, event: LocalEvent): MirrorEvent {
  const nowMs = 0;
  const id = event.kind === 'engineDone' ? (state.engine.pending?.id ?? 0) : (state.asked?.id ?? 0);
  switch (event.kind) {
    case 'adopt':
      return { kind: 'adopt', nowMs, state, lapsed: false };
    case 'boot':
    case 'message':
    case 'enginePeer':
    case 'peerCopy':
    case 'copy':
      return { ...event, nowMs };
    case 'order':
      return { ...event, nowMs, auto: null };
    case 'record':
    case 'lost':
      return { kind: 'arbiter', nowMs, id, answer: { outcome: event.kind, record: event.record } };
    case 'won':
      return { kind: 'arbiter', nowMs, id, answer: { outcome: 'won' } };
    case 'unknown':
      return { kind: 'arbiter', nowMs, id, answer: { outcome: 'unknown', why: '' } };
    case 'peer':
      return { kind: 'peer', nowMs, reach: event.reach, boot: '1', hung: false, heardMs: 0 };
    case 'engineDone':
      return { kind: 'engineDone', nowMs, id, ok: true, why: '' };
    case 'scriptDone':
      return { kind: 'scriptDone', nowMs, ok: true, why: '' };
    case 'health':
      return { kind: 'health', nowMs, up: true, why: '' };
    case 'timer':
      return { kind: 'tick', nowMs: set };
  }
}

function localEffect(effect: MirrorEffect): LocalEffect[] {
  switch (effect.kind) {
    case 'persist':
      return [{ kind: 'persist', durable: effect.durable }];
    case 'arbiterRead':
      return [{ kind: 'read' }];
    case 'arbiterSwap':
      return [{ kind: 'swap', from: effect.from, to: effect.to }];
    case 'send':
      return [{ kind: 'send', message: effect.message }];
    case 'engine':
      return [{ kind: 'engine', order: effect.order }];
    case 'run':
      return [{ kind: 'run' }];
    default:
      return [];
  }
}
