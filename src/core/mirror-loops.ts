/** maxloop: what nobody asked for is counted, and the one over the limit becomes a stop. */
import { blame, loopsMax, say, type Work } from './mirror-state.ts';
import type { Down, MirrorAction, MirrorState } from './mirror-types.ts';

export type AutoAction = 'restart' | 'stopstart' | 'stop' | 'stopwait' | 'swap';

const afterOf: Readonly<Record<AutoAction, Down['after']>> = {
  restart: 'restart',
  stopstart: 'start',
  stop: 'stop',
  stopwait: 'wait',
  swap: 'wait',
};

/** Automatic actions that count now. */
export function loopCount(state: MirrorState): number {
  const { loopIntervalMs } = state.config;
  return state.loops.filter((at) => state.nowMs - at < loopIntervalMs).length;
}

/** The way down that an automatic action leads to; `by`: the checker, script or rule. */
export function automatic(work: Work, wanted: AutoAction, by: string): Down {
  const { maxloop, loopIntervalMs } = work.config;
  const loops = work.loops.filter((at) => work.nowMs - at < loopIntervalMs);
  work.loops = [...loops, work.nowMs].slice(-loopsMax);
  const isOver = loopIntervalMs > 0 && work.loops.length > maxloop;
  const action: AutoAction = isOver ? 'stop' : wanted;
  const text = isOver
    ? `Action stop called by maxloop: ${maxloop} automatic actions within ${Math.round(loopIntervalMs / 1000)} s`
    : `Action ${action === 'stopwait' ? 'wait' : action} called by ${by}`;
  blame(work, text);
  say(work, 'check', text, { action, by, loops: work.loops.length });
  return { after: afterOf[action], action: action satisfies MirrorAction, forced: false };
}
