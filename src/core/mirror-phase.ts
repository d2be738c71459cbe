/**
 * The way up and the way down of a mirror: scripts, engine and virtual IP in their order. `ways` is
 * the diagram of mirror.ts; a pair that is not in it does not compile.
 */
import { automatic } from './mirror-loops.ts';
import { nextState, shownOf, shownText } from './mirror-shown.ts';
import {
  blame,
  clearTimer,
  has,
  isPrimary,
  isSecondary,
  orderEngine,
  peerName,
  say,
  setTimer,
  type Work,
} from './mirror-state.ts';
import type { Down, MirrorEvent, Phase, ScriptName } from './mirror-types.ts';

const ways = {
  stopped: ['prestart'],
  prestart: ['waiting', 'poststop'],
  waiting: ['secondOpening', 'primOpening', 'poststop'],
  secondOpening: ['secondStarting', 'secondClosing'],
  secondStarting: ['second', 'secondStopping', 'secondForcing'],
  second: ['secondStopping', 'secondForcing'],
  secondStopping: ['secondForcing'],
  secondForcing: ['secondClosing', 'primOpening', 'secondStarting'],
  secondClosing: ['waiting', 'poststop'],
  primOpening: ['primGrace', 'primClosing'],
  primGrace: ['primStarting', 'primClosing'],
  primStarting: ['primGate', 'primStopping', 'primForcing'],
  primGate: ['prim', 'primStopping', 'primForcing'],
  prim: ['primGate', 'primStopping', 'primForcing'],
  primStopping: ['primForcing'],
  primForcing: ['primClosing', 'primStarting'],
  primClosing: ['waiting', 'poststop'],
  poststop: ['stopped', 'prestart'],
} as const satisfies Record<Phase, readonly Phase[]>;

/** The one place that assigns the phase: one line of log for each change. */
function move<F extends Phase>(work: Work, from: F, to: (typeof ways)[F][number], why: string) {
  if (work.phase !== from) throw new Error(`not in ${from}, but in ${work.phase}`);
  const before = shownText(work);
  work.phase = to;
  work.out.cause = why;
  const epoch = work.durable.record?.epoch ?? 0;
  say(work, 'transition', `${before} ${from} -> ${shownText(work)} ${to}: ${why}`, {
    from,
    to,
    why,
    epoch,
  });
}

function run(work: Work, script: ScriptName, force = false): void {
  const { phase, action } = work;
  const current = phase === 'prestart' ? 'STOP' : phase.endsWith('Starting') ? 'WAIT' : null;
  work.out.effects.push({
    kind: 'run',
    script,
    current: current ?? (phase === 'poststop' ? 'WAIT' : shownOf(work).state),
    next: nextState(work, phase),
    action,
    force,
  });
}

export function toPrestart(work: Work, why: string): void {
  if (work.phase === 'stopped') move(work, 'stopped', 'prestart', why);
  else move(work, 'poststop', 'prestart', why);
  work.pendingDown = null;
  run(work, 'prestart');
}

/** It has no role. `ms`: how long the other one's word is waited for. */
function toWaiting(work: Work, ms: number): void {
  const { phase } = work;
  if (phase === 'prestart') move(work, phase, 'waiting', 'prestart is done');
  else if (phase === 'primClosing') move(work, phase, 'waiting', work.why[0] ?? work.action);
  else if (phase === 'secondClosing') move(work, phase, 'waiting', work.why[0] ?? work.action);
  work.after = 'stop';
  work.read = false;
  work.refusal = null;
  clearTimer(work, 'retry', 'headStart', 'leave', 'look');
  setTimer(work, 'ask', ms);
}

export function waitingToPrimOpening(work: Work, force: boolean, why: string): void {
  move(work, 'waiting', 'primOpening', why);
  openPrim(work, force);
}

function openPrim(work: Work, force: boolean): void {
  const epoch = work.durable.record?.epoch ?? 0;
  clearTimer(work, 'ask', 'headStart', 'retry');
  work.order = 'start';
  work.handOver = false;
  work.suspecting = false;
  work.refusal = null;
  work.engine = {
    ...work.engine,
    role: 'prim',
    peer: 'unknown',
    peerCopy: 'none',
    permit: epoch,
    alone: true,
  };
  work.out.effects.push({ kind: 'vip', vip: 'probe' });
  orderEngine(work, { what: 'prim', epoch, force });
}

export function waitingToSecondOpening(work: Work, floor: number, why: string): void {
  const way =
    work.order === 'secondFullsync'
      ? 'fullsync'
      : work.order === 'secondDiscard'
        ? 'discard'
        : 'plain';
  move(work, 'waiting', 'secondOpening', why);
  clearTimer(work, 'ask', 'retry');
  work.order = 'start';
  work.handOver = false;
  work.swapTried = false;
  work.suspecting = false;
  work.engine = { ...work.engine, role: 'second', peer: 'unknown', peerCopy: 'none' };
  orderEngine(work, { what: 'second', floor, way });
}

/** The old lease is over: the application may start here. */
export function primGraceToStarting(work: Work): void {
  move(work, 'primGrace', 'primStarting', 'the address is free');
  work.out.effects.push({ kind: 'vip', vip: 'on' });
  run(work, 'start_prim');
}

function primStartingToGate(work: Work): void {
  move(work, 'primStarting', 'primGate', 'start_prim is done');
  work.health = null;
  if (work.config.startMs > 0) setTimer(work, 'answer', work.config.startMs);
  work.out.effects.push({ kind: 'watch', on: true });
  if (!work.config.hasHealth) primGateToPrim(work);
}

export function primGateToPrim(work: Work): void {
  move(work, 'primGate', 'prim', 'the application answers');
  clearTimer(work, 'answer');
  work.why = [];
  work.out.effects.push({ kind: 'vip', vip: 'open' });
}

export function primToGate(work: Work, why: string): void {
  work.out.effects.push({ kind: 'vip', vip: 'shut' });
  move(work, 'prim', 'primGate', why);
}

function leavePrim(work: Work, forced: boolean, why: string): void {
  work.out.effects.push({ kind: 'vip', vip: 'shut' }, { kind: 'watch', on: false });
  clearTimer(work, 'answer');
  const to = forced ? 'primForcing' : 'primStopping';
  if (work.phase === 'prim') move(work, 'prim', to, why);
  else if (work.phase === 'primGate') move(work, 'primGate', to, why);
  else move(work, 'primStarting', to, why);
  run(work, 'stop_prim', forced);
}

function leaveSecond(work: Work, forced: boolean, why: string): void {
  const to = forced ? 'secondForcing' : 'secondStopping';
  if (work.phase === 'second') move(work, 'second', to, why);
  else move(work, 'secondStarting', to, why);
  clearTimer(work, 'leave', 'headStart');
  run(work, 'stop_second', forced);
}

/** A secondary that was granted the epoch: its scripts stop, and then it opens as primary. */
export function promote(work: Work, why: string): void {
  const down: Down = { after: 'prim', action: 'failover', forced: false };
  work.leaving = false;
  if (work.phase === 'secondStarting') {
    work.pendingDown = work.pendingDown ?? down;
    return;
  }
  if (work.phase !== 'second') return;
  work.pendingDown = null;
  work.after = 'prim';
  work.action = 'failover';
  leaveSecond(work, false, why);
}

function closePrim(work: Work, why: string): void {
  work.out.effects.push({ kind: 'vip', vip: 'off' });
  const { phase } = work;
  work.lapsed = false;
  if (phase === 'primForcing') move(work, phase, 'primClosing', why);
  else if (phase === 'primOpening') move(work, phase, 'primClosing', why);
  else if (phase === 'primGrace') move(work, phase, 'primClosing', why);
  clearTimer(work, 'look');
  orderEngine(work, { what: 'close' });
}

function closeSecond(work: Work, why: string): void {
  if (work.phase === 'secondForcing') move(work, 'secondForcing', 'secondClosing', why);
  else move(work, 'secondOpening', 'secondClosing', why);
  orderEngine(work, { what: 'close' });
}

function toPoststop(work: Work, why: string): void {
  const { phase } = work;
  if (phase === 'prestart') move(work, phase, 'poststop', why);
  else if (phase === 'waiting') move(work, phase, 'poststop', why);
  else if (phase === 'secondClosing') move(work, phase, 'poststop', why);
  else if (phase === 'primClosing') move(work, phase, 'poststop', why);
  clearTimer(work, 'ask', 'retry', 'headStart', 'leave', 'look');
  work.pendingDown = null;
  work.refusal = null;
  run(work, 'poststop');
}

/** The way down, from wherever it is. What runs must end first; `forced` cuts it short. */
export function goDown(work: Work, down: Down, why: string): void {
  switch (work.phase) {
    case 'stopped':
      return;
    case 'prestart':
    case 'secondStarting':
    case 'primStarting':
      work.pendingDown = further(work.pendingDown, down);
      if (down.forced) work.out.effects.push({ kind: 'cancel' });
      return;
    case 'secondOpening':
    case 'primOpening':
      work.pendingDown = further(work.pendingDown, down);
      return;
    case 'waiting':
      if (down.after === 'wait') return;
      aim(work, down);
      return toPoststop(work, why);
    case 'second':
      if (mustAskLeave(work, down)) return askLeave(work, down);
      aim(work, down);
      return leaveSecond(work, down.forced, why);
    case 'primGrace':
      aim(work, down);
      return closePrim(work, why);
    case 'primGate':
    case 'prim':
      aim(work, down);
      return leavePrim(work, down.forced, why);
    default:
      if (down.forced && !work.phase.endsWith('Closing')) work.out.effects.push({ kind: 'cancel' });
      if (!(work.after === 'stop' && down.after !== 'start')) aim(work, down);
  }
}

/** What leads further down goes before what leads back up. */
function further(old: Down | null, down: Down): Down {
  return old !== null && old.after === 'stop' && !down.forced ? old : down;
}

function aim(work: Work, down: Down): void {
  work.after = down.after;
  work.action = down.action;
  work.pendingDown = null;
}

/** The primary waits for this copy: it is told first, so that it goes on alone without a pause. */
function mustAskLeave(work: Work, down: Down): boolean {
  const { peer, durable, config } = work;
  if (down.forced || down.after === 'prim' || down.after === 'restart') return false;
  if (!has(durable.record, config.me) || !config.hasData) return false;
  if (work.engine.role === 'none') return false;
  return peer.reach === 'both' && peer.status?.role === 'primary';
}

function askLeave(work: Work, down: Down): void {
  if (!work.leaving) setTimer(work, 'leave', work.config.timing.leaveMs);
  work.leaving = true;
  work.pendingDown = further(work.pendingDown, down);
}

/** A secondary that asked for leave: the primary let it go, is no more, or took too long. */
export function secondToLeave(work: Work): void {
  const down = work.pendingDown;
  if (down === null || work.phase !== 'second') return;
  const waits = mustAskLeave(work, down) && work.timers.leave !== undefined;
  if (waits) return;
  aim(work, down);
  leaveSecond(work, down.forced, `${down.action}: ${peerName(work)} goes on without it`);
}

export function onScriptDone(work: Work, event: MirrorEvent & { kind: 'scriptDone' }): void {
  const { phase, pendingDown } = work;
  const failed = event.ok ? null : event.why;
  switch (phase) {
    case 'prestart':
      if (failed !== null) blame(work, `prestart failed: ${failed}`);
      if (pendingDown !== null || failed !== null) {
        aim(work, pendingDown ?? { after: 'stop', action: 'stop', forced: false });
        return toPoststop(work, work.why[0] ?? work.action);
      }
      return toWaiting(work, work.config.timing.askMs);
    case 'secondStarting':
      if (pendingDown === null && failed === null) {
        return move(work, phase, 'second', 'start_second is done');
      }
      return endStart(work, 'start_second', failed, leaveSecond);
    case 'primStarting':
      if (pendingDown === null && failed === null) return primStartingToGate(work);
      return endStart(work, 'start_prim', failed, leavePrim);
    case 'secondStopping':
      if (failed !== null) blame(work, `stop_second failed: ${failed}`);
      move(work, phase, 'secondForcing', work.action);
      return run(work, 'stop_second', true);
    case 'primStopping':
      if (failed !== null) blame(work, `stop_prim failed: ${failed}`);
      move(work, phase, 'primForcing', work.action);
      return run(work, 'stop_prim', true);
    case 'secondForcing':
      return secondForced(work);
    case 'primForcing':
      return primForced(work);
    case 'poststop':
      if (work.after === 'start') return toPrestart(work, work.action);
      move(work, phase, 'stopped', work.action);
      work.action = 'stop';
      work.leaving = false;
      clearTimer(work, 'status', 'retry', 'ask');
      return;
    default:
      // A script that was cut short may answer late.
      return;
  }
}

function endStart(
  work: Work,
  script: ScriptName,
  failed: string | null,
  leave: (work: Work, forced: boolean, why: string) => void,
): void {
  const down = work.pendingDown;
  if (failed !== null) blame(work, `${script} failed: ${failed}`);
  aim(work, down ?? automatic(work, 'stopstart', script));
  leave(work, down?.forced === true, work.why[0] ?? work.action);
}

/** Its scripts alone, and the engine was lost meanwhile: the whole of it begins anew. */
function regardEngine(work: Work): void {
  if (work.after !== 'restart' || work.engine.role !== 'none') return;
  aim(work, automatic(work, 'stopstart', 'the engine'));
}

function secondForced(work: Work): void {
  regardEngine(work);
  // Nothing is served under an epoch that the disk does not keep.
  if (work.after === 'prim' && work.unsaved) work.after = 'wait';
  if (work.after === 'prim') {
    move(work, 'secondForcing', 'primOpening', work.out.cause || 'failover');
    return openPrim(work, false);
  }
  if (work.after !== 'restart') return closeSecond(work, work.action);
  move(work, 'secondForcing', 'secondStarting', work.action);
  work.leaving = false;
  run(work, 'start_second');
}

/** Its scripts alone, and another server was granted the service meanwhile: it is not started here. */
function regardRecord(work: Work): void {
  const { record } = work.durable;
  if (work.after !== 'restart' || record === null || record.primary === work.config.me) return;
  aim(work, { after: 'wait', action: 'stopwait', forced: false });
}

function primForced(work: Work): void {
  regardEngine(work);
  regardRecord(work);
  if (work.after !== 'restart') return closePrim(work, work.action);
  move(work, 'primForcing', 'primStarting', work.action);
  work.after = 'stop';
  run(work, 'start_prim');
}

/** The engine has carried out what a phase waits for. */
export function onEngineOpened(work: Work, failed: string | null): void {
  const { phase, pendingDown } = work;
  if (phase !== 'secondOpening' && phase !== 'primOpening') return;
  if (failed !== null) blame(work, failed);
  const isUp = failed === null && pendingDown === null;
  if (phase === 'secondOpening') {
    if (!isUp) {
      aim(work, pendingDown ?? automatic(work, 'stopstart', 'the engine'));
      return closeSecond(work, work.why[0] ?? work.action);
    }
    move(work, phase, 'secondStarting', 'the engine is open');
    return run(work, 'start_second');
  }
  if (!isUp) {
    aim(work, pendingDown ?? automatic(work, 'stopstart', 'the engine'));
    return closePrim(work, work.why[0] ?? work.action);
  }
  // From here on what is acknowledged is here.
  if (work.copy !== 'failed') work.copy = 'inSync';
  move(work, phase, 'primGrace', 'the engine is open');
}

export function onEngineClosed(work: Work): void {
  const { phase, after } = work;
  if (phase !== 'secondClosing' && phase !== 'primClosing') return;
  // From here on nothing is acknowledged under this epoch, and no lease of it runs.
  const { record } = work.durable;
  if (phase === 'primClosing' && record?.primary === work.config.me) work.released = record.epoch;
  work.engine = { ...work.engine, role: 'none', peer: 'unknown', peerCopy: 'none', alone: false };
  work.suspecting = false;
  work.leaving = false;
  if (after === 'stop' || after === 'start') return toPoststop(work, work.why[0] ?? work.action);
  const { timing } = work.config;
  toWaiting(work, phase === 'primClosing' ? timing.handOverMs : timing.askMs);
}

/** An agent that takes over: what the former one waited for is asked for again. */
export function reenter(work: Work): void {
  const { phase, pendingDown } = work;
  const script = scriptOf[phase];
  const { engine } = work;
  if (engine.pending !== null) {
    work.engine = { ...engine, pending: null };
    orderEngine(work, engine.pending.order);
    work.engine = { ...work.engine, next: engine.next };
  }
  if (phase === 'primStarting' || phase === 'primGate' || phase === 'prim') {
    work.out.effects.push({ kind: 'vip', vip: phase === 'prim' ? 'open' : 'on' });
  }
  if (phase === 'primGate' || phase === 'prim') work.out.effects.push({ kind: 'watch', on: true });
  if (script === undefined) return;
  if (pendingDown?.forced === true && phase.endsWith('Starting')) return endForced(work);
  run(work, script, phase.endsWith('Forcing'));
}

/** The script that was to be cut short died with the agent. */
function endForced(work: Work): void {
  onScriptDone(work, { kind: 'scriptDone', nowMs: work.nowMs, ok: false, why: 'cut short' });
}

/** Scripts may have run halfway; they are written to be run twice, so that of the phase runs again. */
const scriptOf: Partial<Record<Phase, ScriptName>> = {
  prestart: 'prestart',
  secondStarting: 'start_second',
  secondStopping: 'stop_second',
  secondForcing: 'stop_second',
  primStarting: 'start_prim',
  primStopping: 'stop_prim',
  primForcing: 'stop_prim',
  poststop: 'poststop',
};

/** The application has lost its files, whatever else was going on then. */
export function settleEngine(work: Work): void {
  const { phase, engine, pendingDown } = work;
  if (engine.role !== 'none' || pendingDown !== null || !isUp(work)) return;
  if (phase === 'primOpening' || phase === 'secondOpening') return;
  goDown(work, automatic(work, 'stopstart', 'the engine'), work.why[0] ?? 'the engine is gone');
}

export const isUp = (work: Work): boolean => isPrimary(work) || isSecondary(work);
