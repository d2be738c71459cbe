/**
 * Whether the directories of a mirror are those of its copy: one whose file system is not mounted looks
 * like one from which everything was removed. While they are not, nothing of the mirror runs here: it
 * claims nothing, so the other server may.
 */
import type { MirrorState, MirrorVerb } from '../core/mirror.ts';

/** Null: nothing is known against them; else why they cannot be used. */
export type LookAtData = (force: boolean) => Promise<string | null>;

/** How often it is looked while the mirror waits, so that it goes on by itself once all is there. */
const everyMs = 2000;
/** A disk that does not answer is not waited for by an order. */
const limitMs = 10_000;

export class PairData {
  readonly #look: LookAtData;
  readonly #state: () => MirrorState;
  readonly #told: (why: string | null) => void;
  readonly #timer: NodeJS.Timeout;
  /** Those under way, by whether they look for a primary by force. */
  readonly #looks = new Map<boolean, Promise<string | null>>();
  #ended = false;

  constructor(look: LookAtData, state: () => MirrorState, told: (why: string | null) => void) {
    this.#look = look;
    this.#state = state;
    this.#told = told;
    this.#timer = setInterval(() => void this.#again(), everyMs).unref();
  }

  /**
   * Why the directories cannot be used for what is to be ordered; null: nothing is known against them;
   * undefined: an engine has them, and holds them.
   */
  async found(verb: MirrorVerb): Promise<string | null | undefined> {
    if (hasEngine(this.#state())) return undefined;
    // What is there becomes the copy, whatever it is.
    return verb === 'secondFullsync' ? null : this.#looked(verb === 'primforce');
  }

  /** Tells the machine. What forbids an order is told before it, what allows one behind it. */
  tell(why: string | null | undefined): void {
    const now = this.#state();
    if (why === undefined || this.#ended || hasEngine(now) || now.data === why) return;
    this.#told(why);
  }

  async #again(): Promise<void> {
    const { phase, order } = this.#state();
    if (phase !== 'waiting' && phase !== 'prestart') return;
    const why = await this.found(order);
    if (this.#state().order === order) this.tell(why);
  }

  end(): void {
    this.#ended = true;
    clearInterval(this.#timer);
  }

  async #looked(force: boolean): Promise<string | null> {
    // One that hangs is joined, not followed by others.
    const look = this.#looks.get(force) ?? this.#look(force);
    this.#looks.set(force, look);
    const done = look.finally(() => this.#looks.delete(force));
    let timer: NodeJS.Timeout | null = null;
    const late = new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve('its directories do not answer'), limitMs);
    });
    try {
      return await Promise.race([done, late]);
    } finally {
      if (timer !== null) clearTimeout(timer);
    }
  }
}

function hasEngine({ engine }: MirrorState): boolean {
  return engine.role !== 'none' || engine.pending !== null;
}
