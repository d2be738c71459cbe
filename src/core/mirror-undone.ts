/** What an agent is told of effects that were not performed. */
import type { MirrorEffect, MirrorEvent } from './mirror-types.ts';

/** An event without its time: that is taken when it is heard. */
export type Untimed = (nowMs: number) => MirrorEvent;

/** Answers for everything behind a state that could not be made durable, then that it could not. */
export function undone(effects: readonly MirrorEffect[], why: string): Untimed[] {
  const answers = effects.flatMap((effect): Untimed[] => {
    switch (effect.kind) {
      case 'arbiterRead':
      case 'arbiterSwap': {
        const { id } = effect;
        const answer = { outcome: 'unreachable', why } as const;
        return [(nowMs) => ({ kind: 'arbiter', nowMs, id, answer })];
      }
      case 'engine': {
        const { id } = effect;
        return [(nowMs) => ({ kind: 'engineDone', nowMs, id, ok: false, why })];
      }
      case 'run':
        return [(nowMs) => ({ kind: 'scriptDone', nowMs, ok: false, why })];
      default:
        return [];
    }
  });
  return [...answers, (nowMs) => ({ kind: 'persistFailed', nowMs, why })];
}
