/**
 * The life of one farm or light module on one node, as SafeKit's users know it:
 *
 *            start           prestart ok        start_both ok       health up
 *   stopped ───────▶ prestart ─────────▶ starting ────────▶ opening ────────▶ serving
 *   STOP NotReady    WAIT Transient      UP Transient       UP Transient      UP Ready
 *      ▲                                                       ▲  health down    │
 *      │ poststop                                              └──── (action) ◀──┤
 *      │                                                                         │ stop
 *   poststop ◀─── forcing ◀─── stopping ◀──────────────────── closing ◀──────────┘
 *   STOP Trans.   (stop_both   (stop_both)   VIP closed and     the gate shuts
 *                  force)                    buckets given up
 *
 * Invariants
 * 1. The gate is open in `serving` only: a VIP answers only while the application does, and it is
 *    closed before the application is told to stop.
 * 2. One script at a time; each is answered by scriptDone before the next one runs.
 * 3. stop_both runs twice, the second time with `force`, before poststop.
 * 4. Automatic actions are counted; the one after maxloop within loopInterval stops the module.
 *
 * Pure: time comes with the events, scripts and gate are effects.
 */

import type {
  ModuleEffect,
  ModuleEvent,
  ModulePhase,
  ModuleSettings,
  ModuleState,
  ModuleVerb,
  ScriptAction,
} from './module-types.ts';

export type * from './module-types.ts';

/** Newest sentences kept for `why`. */
const whyMax = 8;
/** Automatic actions remembered; a greater maxloop than this is no limit anybody waits for. */
const loopsMax = 1000;

type Step = readonly [ModuleState, readonly ModuleEffect[]];

export function initialModule(settings: ModuleSettings): ModuleState {
  return {
    settings,
    phase: 'stopped',
    after: 'stop',
    action: 'stop',
    health: null,
    healthWhy: '',
    loops: [],
    closeByMs: null,
    why: [],
    pending: null,
  };
}

/** State and readiness as they are shown. */
export function shownState(phase: ModulePhase): {
  readonly state: 'STOP' | 'WAIT' | 'UP';
  readonly readiness: 'NotReady' | 'Transient' | 'Ready';
} {
  switch (phase) {
    case 'stopped':
      return { state: 'STOP', readiness: 'NotReady' };
    case 'prestart':
      return { state: 'WAIT', readiness: 'Transient' };
    case 'starting':
    case 'opening':
    case 'closing':
    case 'stopping':
    case 'forcing':
      return { state: 'UP', readiness: 'Transient' };
    case 'serving':
      return { state: 'UP', readiness: 'Ready' };
    case 'poststop':
      return { state: 'STOP', readiness: 'Transient' };
  }
}

/** When the machine wants a tick, or null. */
export function moduleDeadline(state: ModuleState): number | null {
  return state.phase === 'closing' ? state.closeByMs : null;
}

/** Automatic actions that count at this time. */
export function loopCount(state: ModuleState, nowMs: number): number {
  return countingLoops(state, nowMs).length;
}

export function stepModule(state: ModuleState, event: ModuleEvent): Step {
  switch (event.kind) {
    case 'command':
      return onCommand(state, event.verb, event.nowMs);
    case 'scriptDone':
      return onScriptDone(state, event);
    case 'health':
      return onHealth(state, event);
    case 'closed':
      return state.phase === 'closing' ? closingToStopping(state) : [state, []];
    case 'adopt':
      return adopt(state, event);
    case 'settings':
      return [{ ...state, settings: event.settings }, []];
    case 'tick':
      return state.phase === 'closing' && state.closeByMs !== null && event.nowMs >= state.closeByMs
        ? closingToStopping(state)
        : [state, []];
  }
}

function onCommand(state: ModuleState, verb: ModuleVerb, nowMs: number): Step {
  // What an administrator asks for starts a new count of automatic actions.
  const fresh: ModuleState = { ...state, loops: [], why: [] };
  switch (verb) {
    case 'start':
      if (state.phase === 'stopped') return stoppedToPrestart(fresh, 'start');
      if (isUpward(state.phase)) return [{ ...fresh, pending: null }, []];
      return refuse(state, 'start', 'it is being stopped');
    case 'stop':
      if (state.phase === 'stopped') return [fresh, []];
      return leave(fresh, 'stop', nowMs);
    case 'stopstart':
      if (state.phase === 'stopped') return stoppedToPrestart(fresh, 'stopstart');
      return leave(fresh, 'stopstart', nowMs);
    case 'restart':
      if (state.phase !== 'serving' && state.phase !== 'opening') {
        return refuse(state, 'restart', 'its application is not running');
      }
      return leave(fresh, 'restart', nowMs);
    case 'forcestop':
      return forceStop(fresh);
  }
}

function onScriptDone(
  state: ModuleState,
  event: { ok: boolean; why: string; nowMs: number },
): Step {
  switch (state.phase) {
    case 'prestart':
      if (state.pending !== null) return runPending(state, state.pending);
      if (event.ok) return prestartToStarting(state);
      return prestartToPoststop(blame(state, `prestart failed: ${event.why}`));
    case 'starting':
      if (state.pending !== null) return runPending(state, state.pending);
      if (event.ok) return startingToOpening(state);
      return automatic(
        blame(state, `start_both failed: ${event.why}`),
        'stopstart',
        event.why,
        event.nowMs,
      );
    case 'stopping':
      return stoppingToForcing(event.ok ? state : blame(state, `stop_both failed: ${event.why}`));
    case 'forcing':
      if (state.after === 'restart') return forcingToStarting(state);
      return forcingToPoststop(state);
    case 'poststop':
      return state.after === 'start' ? poststopToPrestart(state) : poststopToStopped(state);
    // A script that was cancelled by forcestop may answer late.
    case 'stopped':
    case 'opening':
    case 'serving':
    case 'closing':
      return [state, []];
  }
}

function onHealth(state: ModuleState, event: { up: boolean; why: string; nowMs: number }): Step {
  const known: ModuleState = { ...state, health: event.up, healthWhy: event.why };
  if (state.phase === 'opening') {
    return event.up ? openingToServing(known) : [known, []];
  }
  if (state.phase !== 'serving' || event.up) return [known, []];
  const [closed, effects] = servingToOpening(
    blame(known, `the application does not answer: ${event.why}`),
  );
  const { healthAction } = state.settings;
  if (healthAction === 'noaction' || healthAction === 'wait') return [closed, effects];
  const [next, more] = automatic(closed, healthAction, event.why, event.nowMs);
  return [next, [...effects, ...more]];
}

/** An action that nobody asked for; the one over the limit becomes a stop. */
function automatic(
  state: ModuleState,
  wanted: 'restart' | 'stopstart' | 'stop',
  why: string,
  nowMs: number,
): Step {
  const loops = [...countingLoops(state, nowMs), nowMs];
  const { maxloop, loopIntervalMs } = state.settings;
  const isOver = loopIntervalMs > 0 && loops.length > maxloop;
  const action = isOver ? 'stop' : wanted;
  const text = isOver
    ? `Action stop called by maxloop: ${maxloop} automatic actions within ${Math.round(loopIntervalMs / 1000)} s`
    : `Action ${action} called by health: ${why}`;
  const counted: ModuleState = {
    ...blame(state, text),
    loops: loops.slice(-loopsMax),
    after: action === 'restart' ? 'restart' : action === 'stopstart' ? 'start' : 'stop',
    action,
  };
  const [next, effects] =
    state.phase === 'starting' ? startingToStopping(counted) : upToClosing(counted, nowMs);
  const record: ModuleEffect = {
    kind: 'record',
    record: 'check',
    text,
    data: { action, loops: loops.length },
  };
  return [next, [record, ...effects]];
}

/** On the way down, from wherever it is. A start script that runs is waited for. */
function leave(state: ModuleState, verb: 'stop' | 'stopstart' | 'restart', nowMs: number): Step {
  const aimed: ModuleState = {
    ...state,
    after: verb === 'stop' ? 'stop' : verb === 'stopstart' ? 'start' : 'restart',
    action: verb,
  };
  switch (state.phase) {
    case 'stopped':
      return [state, []];
    case 'prestart':
    case 'starting':
      return [{ ...state, pending: verb }, []];
    case 'opening':
    case 'serving':
      return upToClosing(aimed, nowMs);
    case 'closing':
    case 'stopping':
    case 'forcing':
    case 'poststop':
      return [aimed, []];
  }
}

/** Whatever runs is cut short, and stop_both is only run with `force`. */
function forceStop(state: ModuleState): Step {
  const aimed: ModuleState = { ...state, after: 'stop', action: 'stop', pending: null };
  switch (state.phase) {
    case 'stopped':
      return [state, []];
    case 'opening':
    case 'serving':
    case 'closing': {
      const [next, effects] = transition(aimed, 'forcing', 'forcestop', [
        { kind: 'gate', open: false },
        { kind: 'watch', on: false },
      ]);
      return [next, [...effects, runScript('stop_both', next, true)]];
    }
    case 'prestart':
    case 'starting':
      return [{ ...aimed, pending: 'forcestop' }, [{ kind: 'cancel' }]];
    case 'stopping':
    case 'forcing':
    case 'poststop':
      // The cancelled script answers, and the way down goes on from there.
      return [aimed, [{ kind: 'cancel' }]];
  }
}

/** A start script has ended, and a stop was asked for meanwhile. */
function runPending(state: ModuleState, pending: NonNullable<ModuleState['pending']>): Step {
  const aimed: ModuleState = {
    ...state,
    pending: null,
    after: pending === 'stopstart' ? 'start' : 'stop',
    action: pending === 'stopstart' ? 'stopstart' : 'stop',
  };
  if (state.phase === 'prestart') return prestartToPoststop(aimed);
  if (pending !== 'forcestop') return startingToStopping(aimed);
  const [next, effects] = transition(aimed, 'forcing', 'forcestop', []);
  return [next, [...effects, runScript('stop_both', next, true)]];
}

function stoppedToPrestart(state: ModuleState, action: ScriptAction): Step {
  const asked: ModuleState = { ...state, after: 'start', action, pending: null };
  const [next, effects] = transition(asked, 'prestart', 'start', []);
  return [next, [...effects, runScript('prestart', next, false)]];
}

function prestartToStarting(state: ModuleState): Step {
  const [next, effects] = transition(state, 'starting', 'prestart is done', [
    { kind: 'farm', on: true },
  ]);
  return [next, [...effects, runScript('start_both', next, false)]];
}

function prestartToPoststop(state: ModuleState): Step {
  const isAgain = state.after === 'start' && state.action === 'stopstart' && state.why.length === 0;
  const [next, effects] = transition(
    { ...state, after: isAgain ? 'start' : 'stop' },
    'poststop',
    state.why[0] ?? 'stop',
    [],
  );
  return [next, [...effects, runScript('poststop', next, false)]];
}

function startingToOpening(state: ModuleState): Step {
  const started: ModuleState = { ...state, health: null, healthWhy: '' };
  const [next, effects] = transition(started, 'opening', 'start_both is done', [
    { kind: 'watch', on: true },
  ]);
  if (state.settings.hasHealth) return [next, effects];
  const [open, more] = openingToServing({ ...next, health: true });
  return [open, [...effects, ...more]];
}

function startingToStopping(state: ModuleState): Step {
  const [next, effects] = transition(state, 'stopping', state.why[0] ?? state.action, []);
  return [next, [...effects, runScript('stop_both', next, false)]];
}

function openingToServing(state: ModuleState): Step {
  return transition({ ...state, why: [] }, 'serving', 'the application answers', [
    { kind: 'gate', open: true },
  ]);
}

/** The application does not answer: no new client, and the health check says when it does again. */
function servingToOpening(state: ModuleState): Step {
  return transition(state, 'opening', state.why[0] ?? '', [{ kind: 'gate', open: false }]);
}

function upToClosing(state: ModuleState, nowMs: number): Step {
  const closing: ModuleState = { ...state, closeByMs: nowMs + state.settings.closeTimeoutMs };
  return transition(closing, 'closing', state.action, [
    { kind: 'watch', on: false },
    { kind: 'gate', open: false },
  ]);
}

function closingToStopping(state: ModuleState): Step {
  const [next, effects] = transition({ ...state, closeByMs: null }, 'stopping', state.action, []);
  return [next, [...effects, runScript('stop_both', next, false)]];
}

function stoppingToForcing(state: ModuleState): Step {
  const [next, effects] = transition(state, 'forcing', state.action, []);
  return [next, [...effects, runScript('stop_both', next, true)]];
}

function forcingToStarting(state: ModuleState): Step {
  const [next, effects] = transition(state, 'starting', 'restart', []);
  return [next, [...effects, runScript('start_both', next, false)]];
}

function forcingToPoststop(state: ModuleState): Step {
  const [next, effects] = transition(state, 'poststop', state.action, [
    { kind: 'farm', on: false },
  ]);
  return [next, [...effects, runScript('poststop', next, false)]];
}

function poststopToPrestart(state: ModuleState): Step {
  const [next, effects] = transition(state, 'prestart', 'stopstart', []);
  return [next, [...effects, runScript('prestart', next, false)]];
}

function poststopToStopped(state: ModuleState): Step {
  return transition({ ...state, after: 'stop', pending: null }, 'stopped', state.action, []);
}

/**
 * Takes over what a former agent left: the phase is entered again. Scripts may have run halfway;
 * SafeKit's scripts are written to be run twice, so the one of the phase runs again.
 */
function adopt(state: ModuleState, event: Extract<ModuleEvent, { kind: 'adopt' }>): Step {
  const was: ModuleState = {
    ...state,
    phase: event.phase,
    loops: event.loops,
    after: event.after,
    action: event.after === 'stop' ? 'stop' : 'start',
  };
  switch (event.phase) {
    case 'stopped':
      return [was, []];
    case 'prestart':
      return [was, [runScript('prestart', was, false)]];
    case 'starting':
      return [was, [{ kind: 'farm', on: true }, runScript('start_both', was, false)]];
    case 'opening':
      return [
        was,
        [
          { kind: 'farm', on: true },
          { kind: 'watch', on: true },
        ],
      ];
    case 'serving':
      return [
        { ...was, health: true },
        [
          { kind: 'farm', on: true },
          { kind: 'gate', open: true },
          { kind: 'watch', on: true },
        ],
      ];
    case 'closing':
    case 'stopping': {
      const stopping: ModuleState = { ...was, phase: 'stopping' };
      return [stopping, [{ kind: 'farm', on: true }, runScript('stop_both', stopping, false)]];
    }
    case 'forcing':
      return [was, [{ kind: 'farm', on: true }, runScript('stop_both', was, true)]];
    case 'poststop':
      return [was, [runScript('poststop', was, false)]];
  }
}

/** The one place that assigns the phase: one record for each change. */
function transition(
  state: ModuleState,
  to: ModulePhase,
  cause: string,
  effects: readonly ModuleEffect[],
): Step {
  const from = state.phase;
  const record: ModuleEffect = {
    kind: 'record',
    record: 'transition',
    text: `${shownText(from)} -> ${shownText(to)}: ${cause}`,
    data: { from, to, cause },
  };
  return [{ ...state, phase: to }, [record, ...effects]];
}

function shownText(phase: ModulePhase): string {
  const { state, readiness } = shownState(phase);
  return `${state}(${readiness}) ${phase}`;
}

function runScript(
  script: Extract<ModuleEffect, { kind: 'run' }>['script'],
  state: ModuleState,
  force: boolean,
): ModuleEffect {
  const { action } = state;
  const next = state.after === 'stop' ? 'STOP' : 'UP';
  const current = script === 'prestart' ? 'STOP' : script === 'start_both' ? 'WAIT' : 'UP';
  return {
    kind: 'run',
    script,
    current: script === 'poststop' ? 'WAIT' : current,
    next,
    action,
    force,
  };
}

function refuse(state: ModuleState, verb: ModuleVerb, why: string): Step {
  const text = `not carrying out ${verb}: ${why}`;
  const record: ModuleEffect = { kind: 'record', record: 'refusal', text, data: { verb, why } };
  return [blame(state, text), [record]];
}

function blame(state: ModuleState, text: string): ModuleState {
  return { ...state, why: [text, ...state.why.filter((old) => old !== text)].slice(0, whyMax) };
}

function isUpward(phase: ModulePhase): boolean {
  return phase === 'prestart' || phase === 'starting' || phase === 'opening' || phase === 'serving';
}

function countingLoops(state: ModuleState, nowMs: number): readonly number[] {
  const { loopIntervalMs } = state.settings;
  return state.loops.filter((at) => nowMs - at < loopIntervalMs);
}
