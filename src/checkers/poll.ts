import { errnoOf } from '../module/durable.ts';

/** Clock, timers and chance of checkers; tests bring their own. */
export interface Timers {
  /** A clock that never jumps. */
  nowMs(): number;
  /** Calls back once after ms; the function returned prevents it. */
  after(ms: number, call: () => void): () => void;
  /** 0 to below 1; spreads checks of one period so that they do not coincide. */
  random(): number;
}

/** The process's own clock. Its timers do not keep the process alive. */
export const systemTimers: Timers = {
  nowMs: () => performance.now(),
  after: (ms, call) => {
    const timer = setTimeout(call, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};

/** Looks once: null when all is well, else why not. Must end soon after the signal. */
export type Probe = (signal: AbortSignal) => Promise<string | null>;

export interface PollOptions {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Failures in a row that make it down. */
  readonly failures: number;
  /** Time between two looks while it is not up, where it is to be found up quickly. */
  readonly eagerMs?: number;
  /** The first look comes at once instead of within the first 500 ms. */
  readonly promptly?: boolean;
  readonly timers: Timers;
  readonly probe: Probe;
  /** On change only. */
  onState(state: 'up' | 'down', reason: string): void;
}

export interface Poll {
  /** Looks now, or once more when a look is under way. */
  poke(): void;
  /** Ends it; resolves when a look under way has ended. No report comes after the call. */
  stop(): Promise<void>;
}

/** Part of the interval by which looks are spread. */
const jitter = 0.1;
const firstWithinMs = 500;

/**
 * Looks again and again, one look at a time. A look that is not done by its timeout counts as failed
 * at once; the next one waits until it has really ended.
 */
export function startPolling(options: PollOptions): Poll {
  const { timers } = options;
  let state: 'init' | 'up' | 'down' = 'init';
  let failed = 0;
  let stopped = false;
  let poked = false;
  let round: Promise<void> | null = null;
  let cancel = (): void => undefined;
  let abort: AbortController | null = null;

  const judge = (why: string | null): void => {
    failed = why === null ? 0 : failed + 1;
    const next = why === null ? 'up' : failed >= options.failures ? 'down' : state;
    if (next === state || next === 'init') return;
    state = next;
    options.onState(next, why ?? 'answers');
  };

  const look = async (): Promise<void> => {
    const begun = timers.nowMs();
    const controller = new AbortController();
    abort = controller;
    let noLimit = (): void => undefined;
    const late = new Promise<string>((resolve) => {
      noLimit = timers.after(options.timeoutMs, () => {
        resolve(`no answer within ${options.timeoutMs} ms`);
        controller.abort();
      });
    });
    const probing = options.probe(controller.signal).catch((error: unknown) => errnoOf(error));
    const why = await Promise.race([probing, late]);
    noLimit();
    if (!stopped) judge(why);
    await probing;
    abort = null;
    round = null;
    if (!stopped) schedule(timers.nowMs() - begun);
  };

  const begin = (): void => {
    poked = false;
    round = look();
  };

  const schedule = (elapsedMs: number): void => {
    const eager = state !== 'up' && options.eagerMs !== undefined;
    const interval = eager
      ? Math.min(options.eagerMs ?? 0, options.intervalMs)
      : options.intervalMs;
    const spread = interval * (1 + jitter * (2 * timers.random() - 1));
    cancel = timers.after(poked ? 0 : Math.max(0, spread - elapsedMs), begin);
  };

  const first = Math.min(firstWithinMs, options.intervalMs) * timers.random();
  cancel = timers.after(options.promptly === true ? 0 : first, begin);
  return {
    poke() {
      if (stopped) return;
      if (round !== null) {
        poked = true;
        return;
      }
      cancel();
      cancel = timers.after(0, begin);
    },
    async stop() {
      stopped = true;
      cancel();
      abort?.abort();
      await round;
    },
  };
}
