/**
 * A mirror on one of its two servers.
 */
import { mirrorRules, type MirrorRules } from './mirror-rules.ts';
import type {
  Durable,
  MirrorConfig,
  MirrorEffect,
  MirrorEvent,
  MirrorState,
} from './mirror-types.ts';

export type * from './mirror-types.ts';
export { mirrorRules, type MirrorRule, type MirrorRules, without } from './mirror-rules.ts';

/** What a server that was never part of the mirror has on disk. */
export const blankDurable: Durable = {
  promised: 0,
  record: null,
  failover: true,
  pairPrimary: null,
};

/** A mirror that does not run here; `boot` or `adopt` must be the first event. */
export function mirrorInit(config: MirrorConfig): MirrorState {
  return {
    config,
    nowMs: 0,
    phase: 'stopped',
    after: 'stop',
    action: 'stop',
    order: 'start',
    durable: blankDurable,
    copy: 'none',
    read: false,
    arbiterWhy: null,
    arbiterBad: null,
    asked: null,
    unsure: null,
    arbiterId: 0,
    peer: { reach: 'unknown', boot: '', hung: false, heardMs: -1, status: null },
    engine: {
      role: 'none',
      pending: null,
      next: null,
      peer: 'unknown',
      peerCopy: 'none',
      alone: false,
    },
    engineId: 0,
    released: 0,
    dissentMs: null,
    lease: 'off',
    lapsed: false,
    leaving: false,
    yielding: false,
    swapTried: 0,
    hold: null,
    parked: null,
    veto: null,
    health: null,
    pendingDown: null,
    forced: false,
    loops: [],
    timers: {},
    why: [],
    told: { status: '', announce: '' },
  };
}

/**
 * One event. The effects are to be performed in order. `rules` is for the simulator's planted bugs.
 */
export function mirrorStep(
  state: MirrorState,
  event: MirrorEvent,
  _rules: MirrorRules = mirrorRules,
): readonly [MirrorState, readonly MirrorEffect[]] {
  return [{ ...state, nowMs: Math.max(state.nowMs, event.nowMs) }, []];
}

/**
 * When the next `tick` is due, on the events' clock; null: only an event can change anything. A
 * tick that is early or late does no harm. Timers act in a `tick` only.
 */
export function mirrorDeadline(state: MirrorState): number | null {
  const times = Object.values(state.timers);
  return times.length === 0 ? null : Math.min(...times);
}
