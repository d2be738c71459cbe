import { HoldfastError } from '../errors.ts';
import type { VerifyStatus } from './face.ts';
import type { EngineAnswer } from './replica.ts';

/** Differences that are kept; more say nothing new, and are counted. */
const differencesMax = 1000;

/** One comparison of a mirror's servers: gathers what the engine's events say of it. */
export class Verification {
  /** Rejects with HF-MIRROR-013 where the comparison cannot come to its end. */
  readonly ended: Promise<VerifyStatus>;
  readonly #module: string;
  readonly #differences: EngineAnswer[] = [];
  #differing = 0;
  #figures: Readonly<Record<string, number>> = {};
  #running = true;
  #resolve: (status: VerifyStatus) => void = () => {};
  #reject: (error: HoldfastError) => void = () => {};

  constructor(module: string) {
    this.#module = module;
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Nobody may be waiting when it is cut off.
    this.ended.catch(() => undefined);
  }

  get status(): VerifyStatus {
    return {
      running: this.#running,
      figures: this.#figures,
      differences: [...this.#differences],
      differing: this.#differing,
    };
  }

  /** Takes an event of the engine in; false when it is of something else. */
  take(name: string, values: EngineAnswer): boolean {
    if (!this.#running) return false;
    if (name === 'differs') {
      this.#differing += 1;
      if (this.#differences.length < differencesMax) this.#differences.push(values);
      return true;
    }
    if (name !== 'verified' && name !== 'verifying') return false;
    this.#figures = numbersOf(values);
    if (name === 'verifying') return true;
    const { error, reason } = values;
    if ((error ?? '0') !== '0') this.fail(reason ?? `error ${error ?? ''}`);
    else {
      this.#running = false;
      this.#resolve(this.status);
    }
    return true;
  }

  /** It cannot come to its end. */
  fail(reason: string): void {
    if (!this.#running) return;
    this.#running = false;
    this.#reject(new HoldfastError('HF-MIRROR-013', { module: this.#module, reason }));
  }
}

function numbersOf(values: EngineAnswer): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).flatMap(([key, value]) =>
      /^\d+$/.test(value) ? [[key, Number(value)] as const] : [],
    ),
  );
}
