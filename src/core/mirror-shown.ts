/** What a mirror's state is called, for people and scripts. */
import { has, isPrimaryYet, isSecondaryYet, isWhole } from './mirror-state.ts';
import type { MirrorState, Phase, Readiness, ShownState } from './mirror-types.ts';

export interface Shown {
  readonly state: ShownState;
  readonly readiness: Readiness;
}

/** State and readiness as SafeKit's users know them. */
export function shownOf(state: MirrorState): Shown {
  return { state: stateOf(state), readiness: readinessOf(state) };
}

export function shownText(state: MirrorState): string {
  const { state: name, readiness } = shownOf(state);
  return `${name} (${readiness})`;
}

function stateOf(state: MirrorState): ShownState {
  if (isPrimaryYet(state)) return has(state.durable.record, state.config.peer) ? 'PRIM' : 'ALONE';
  if (isSecondaryYet(state)) return 'SECOND';
  return state.phase === 'stopped' || state.phase === 'poststop' ? 'STOP' : 'WAIT';
}

function readinessOf(state: MirrorState): Readiness {
  switch (state.phase) {
    case 'stopped':
      return 'NotReady';
    case 'waiting': {
      const isAsking = state.timers.ask !== undefined || state.asked !== null;
      return state.refusal === null && isAsking ? 'Transient' : 'NotReady';
    }
    case 'second':
      if (state.copy === 'failed' || state.suspecting) return 'NotReady';
      return isInSync(state) ? 'Ready' : 'Transient';
    case 'prim':
      return state.lapsed || isFrozen(state) ? 'Transient' : 'Ready';
    default:
      return 'Transient';
  }
}

/** The secondary: what is acknowledged is here, and the record says so. */
export function isInSync(state: MirrorState): boolean {
  if (!isWhole(state) || !has(state.durable.record, state.config.me)) return false;
  return !state.config.hasData || state.engine.peer === 'connected';
}

/** The primary: synced writes wait, since the peer is needed and is not there. */
export function isFrozen(state: MirrorState): boolean {
  const { config, durable, engine, peer } = state;
  if (!has(durable.record, config.peer)) return false;
  if (peer.reach === 'silent' || peer.reach === 'heard') return true;
  return config.hasData && (engine.peer === 'lost' || engine.peer === 'left');
}

/** State that a script is told it leads to, from where the module is. */
export function nextState(state: MirrorState, phase: Phase): ShownState {
  if (phase === 'prestart') return 'WAIT';
  if (phase === 'primStarting') return 'ALONE';
  if (phase === 'secondStarting') return 'SECOND';
  switch (state.after) {
    case 'prim':
      return 'ALONE';
    case 'wait':
      return state.action === 'swap' ? 'SECOND' : 'WAIT';
    case 'restart':
      return stateOf(state);
    case 'stop':
    case 'start':
      return 'STOP';
  }
}
