/** What operators, checkers and rules ask for. */
import { handOver, swapObstacle } from './mirror-lead.ts';
import { automatic } from './mirror-loops.ts';
import { goDown, isUp, primGateToPrim, primToGate, toPrestart } from './mirror-phase.ts';
import { shownText } from './mirror-shown.ts';
import {
  blame,
  clearTimer,
  isPrimaryYet,
  isSecondary,
  persist,
  say,
  type Work,
} from './mirror-state.ts';
import type { Down, MirrorEvent, MirrorVerb, StartOrder } from './mirror-types.ts';

export function onOrder(work: Work, event: MirrorEvent & { kind: 'order' }): void {
  const { verb, auto } = event;
  if (auto !== null) return onAutomatic(work, verb, auto);
  work.out.ordered = true;
  // What an administrator asks for starts a new count of automatic actions.
  work.loops = [];
  work.why = [];
  switch (verb) {
    case 'start':
    case 'prim':
    case 'primforce':
    case 'second':
    case 'secondFullsync':
    case 'secondDiscard':
      return onStart(work, verb);
    case 'stop':
      return onStop(work, { after: 'stop', action: 'stop', forced: false });
    case 'forcestop':
      return onStop(work, { after: 'stop', action: 'stop', forced: true });
    case 'stopstart':
      if (work.phase === 'stopped') return onStart(work, 'start');
      return goDown(work, { after: 'start', action: 'stopstart', forced: false }, verb);
    case 'restart':
      return onRestart(work);
    case 'swap':
    case 'swapNosync':
      return onSwap(work, verb === 'swap');
    case 'failoverOn':
      persist(work, { failover: true });
      if (work.parked?.follow === true) work.parked = null;
      return;
    case 'failoverOff':
      return persist(work, { failover: false });
  }
}

/** Orders by the words of the command line, where those are others. */
const words: Readonly<Partial<Record<StartOrder, string>>> = {
  secondFullsync: 'second fullsync',
  secondDiscard: 'second discard',
};

function refuseOrder(work: Work, verb: string, why: string): void {
  const text = `not carrying out ${verb}: ${why}`;
  blame(work, text);
  say(work, 'refusal', text, { verb, why });
}

function onStart(work: Work, order: StartOrder): void {
  const { phase } = work;
  if (phase === 'stopped') {
    work.parked = null;
    work.order = order;
    work.action = 'start';
    return toPrestart(work, order);
  }
  if (phase === 'prestart' || phase === 'waiting') {
    work.parked = null;
    work.pendingDown = null;
    work.order = order;
    work.read = false;
    if (order !== 'start') clearTimer(work, 'ask', 'retry');
    return;
  }
  if (order === 'start') {
    if (isUp(work)) {
      // Taken back, as far as nothing had to end yet.
      work.parked = null;
      if (work.leaving) work.pendingDown = null;
      work.leaving = false;
      return;
    }
    if (phase === 'poststop') {
      work.after = 'start';
      work.order = 'start';
      return;
    }
    return refuseOrder(work, words[order] ?? order, 'it is being stopped');
  }
  // A secondary that cannot take over by itself: it lets go of its role, and does so by order.
  const isStuck = phase === 'second' && work.suspecting;
  if (isStuck && (order === 'prim' || order === 'primforce')) {
    work.order = order;
    return goDown(work, { after: 'wait', action: 'stopwait', forced: false }, order);
  }
  const has = isPrimaryYet(work)
    ? order.startsWith('prim')
    : isSecondary(work) && order === 'second';
  if (!has) refuseOrder(work, words[order] ?? order, `it is ${shownText(work)}`);
}

function onStop(work: Work, down: Down): void {
  work.parked = null;
  work.order = 'start';
  goDown(work, down, down.forced ? 'forcestop' : 'stop');
}

function onRestart(work: Work): void {
  const { phase } = work;
  if (phase !== 'prim' && phase !== 'primGate' && phase !== 'second') {
    return refuseOrder(work, 'restart', 'its application is not running');
  }
  goDown(work, { after: 'restart', action: 'restart', forced: false }, 'restart');
}

/** @see docs/internals/mirror-core.md: what `nosync` means. */
export function onSwap(work: Work, sync: boolean): void {
  const verb = sync ? 'swap' : 'swap nosync';
  if (isSecondary(work)) {
    work.out.effects.push({ kind: 'send', message: { kind: 'swap', sync } });
    return;
  }
  const obstacle = swapObstacle(work);
  if (obstacle !== null) return refuseOrder(work, verb, obstacle);
  persist(work, { home: work.config.peer });
  if (!sync) work.parked = { why: 'waits for `start`: swap nosync', follow: false };
  handOver(work, verb);
}

function onAutomatic(work: Work, verb: MirrorVerb, by: string): void {
  if (!isUp(work)) return;
  switch (verb) {
    case 'swap': {
      const obstacle = swapObstacle(work);
      if (obstacle !== null) return refuseOrder(work, verb, obstacle);
      const down = automatic(work, verb, by);
      if (down.action === 'swap') return handOver(work, by);
      return goDown(work, down, work.why[0] ?? by);
    }
    case 'restart':
      if (work.phase !== 'prim' && work.phase !== 'primGate' && work.phase !== 'second') return;
      return goDown(work, automatic(work, verb, by), by);
    case 'stopstart':
    case 'stop':
      return goDown(work, automatic(work, verb, by), by);
    default:
      return refuseOrder(work, verb, 'no rule may ask for it');
  }
}

/** `wait` of a checker: nothing runs here until it is lifted. */
export function onHold(work: Work, why: string | null): void {
  const was = work.hold;
  work.hold = why;
  // Nothing had to end yet.
  if (why === null && work.pendingDown?.forHold === true && work.leaving) {
    work.leaving = false;
    work.pendingDown = null;
  }
  if (why === null || was !== null || !isUp(work)) return;
  // What leads down already leads to where the hold is heeded.
  if (work.pendingDown === null) {
    goDown(work, { ...automatic(work, 'stopwait', why), forHold: true }, why);
  }
}

export function onHealth(work: Work, event: MirrorEvent & { kind: 'health' }): void {
  work.health = event.up;
  if (work.phase === 'primGate' && event.up) return primGateToPrim(work);
  if (work.phase !== 'prim' || event.up) return;
  const text = `the application does not answer: ${event.why}`;
  primToGate(work, text);
  onSilent(work, text);
}

/** It was started so long ago that it should have answered; who says so is the clock. */
export function onStartLimit(work: Work): void {
  if (work.phase !== 'primGate') return;
  const seconds = Math.round(work.config.startMs / 1000);
  onSilent(work, `the application does not answer: it was started ${seconds} s ago`);
}

function onSilent(work: Work, text: string): void {
  blame(work, text);
  const { healthAction } = work.config;
  if (healthAction === 'noaction' || healthAction === 'wait') return;
  const verb = healthAction === 'swap' && swapObstacle(work) !== null ? 'stopstart' : healthAction;
  onAutomatic(work, verb, 'health');
}

export function onCopy(work: Work, copy: Work['copy']): void {
  const was = work.copy;
  work.copy = copy;
  if (copy !== 'failed' || was === 'failed') return;
  blame(work, 'its copy has failed: a file or the journal could not be written');
}
