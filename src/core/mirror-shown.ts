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

/** Why it is as it is, for `holdfast why`: what matters most first; empty: all is well. */
export function mirrorWhy(state: MirrorState): readonly string[] {
  const peer = state.config.names[state.config.peer] ?? `node ${state.config.peer}`;
  const { arbiterBad, arbiterWhy, phase } = state;
  const why: string[] = [];
  if (state.refusal !== null) why.push(state.refusal);
  if (isPrimaryYet(state)) {
    if (state.copy === 'failed') why.push('this copy has failed: stop it, then mend the disk');
    if (isFrozen(state)) why.push(`synced writes wait for ${peer}`);
    if (state.lapsed) why.push('the address is silent: its lease ran out');
    if (phase === 'primGrace') why.push(`waits until the lease of ${peer} is surely over`);
    if (phase === 'primGate') why.push('waits for the application to answer');
  }
  if (phase === 'second' && state.refusal === null) {
    if (state.copy === 'failed') why.push('this copy has failed: stop it, then mend the disk');
    else if (!isInSync(state)) why.push(`this copy is not up to date yet with ${peer}`);
    if (!state.durable.failover) why.push(`failover is off: it will not take over from ${peer}`);
  }
  if (state.leaving) why.push(`asks ${peer} for leave to go`);
  if (phase === 'waiting' && state.refusal === null && state.timers.ask !== undefined) {
    why.push(`asks ${peer} who goes first`);
  }
  const arbiter =
    arbiterBad ?? (arbiterWhy === null ? null : `the arbiter does not answer: ${arbiterWhy}`);
  if (arbiter !== null && !why.some((text) => text.includes(arbiter))) {
    const isServing = isPrimaryYet(state) || isSecondaryYet(state);
    why.push(isServing ? `${arbiter}; service goes on, but no failure would be survived` : arbiter);
  }
  return [...why, ...state.why];
}
