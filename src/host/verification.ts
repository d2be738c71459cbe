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
    return this.statusBeside({});
  }

  /** The same, with how far it is by the engine's status. */
  statusBeside(engine: EngineAnswer): VerifyStatus {
    return {
      running: this.#running,
      figures: this.#running ? figuresOf(engine, 'verify_') : this.#figures,
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
    if (name !== 'verified') return false;
    const { error, reason } = values;
    if ((error ?? '0') !== '0') this.fail(reason ?? `error ${error ?? ''}`);
    else {
      this.#running = false;
      this.#figures = figuresOf(values, '');
      // Events may have been lost on the way; the engine has counted.
      this.#differing = Math.max(this.#differing, Number(values['differences'] ?? 0));
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

function figuresOf(values: EngineAnswer, prefix: string): Record<string, number> {
  return Object.fromEntries(
    ['files', 'bytes'].flatMap((key) => {
      const value = values[`${prefix}${key}`];
      return value === undefined ? [] : [[key, Number(value)] as const];
    }),
  );
}
