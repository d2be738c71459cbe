/**
 * The loop of a mirror that decides for itself: events go into the reducer (core/mirror) one by one,
 * what it wants done is done strictly in order. Something that takes time holds up what follows it, and
 * nothing else: events go on being taken in meanwhile.
 */
import {
  type Durable,
  mirrorDeadline,
  type MirrorEffect,
  type MirrorEvent,
  type MirrorState,
  mirrorStep,
} from '../core/mirror.ts';
import { undone } from '../core/mirror-undone.ts';

/** An event without its time: that is when it is taken in. */
export type Untimed<E = MirrorEvent> = E extends MirrorEvent ? Omit<E, 'nowMs'> : never;
type Of<K extends MirrorEffect['kind']> = Extract<MirrorEffect, { kind: K }>;

/** How each effect is performed. What is answered by an event is answered by `PairLoop.take`. */
export interface PairActs {
  /** Null once it is durable; else why it is not. */
  readonly persist: (durable: Durable) => Promise<string | null>;
  readonly arbiter: (question: Of<'arbiterRead'> | Of<'arbiterSwap'>) => void;
  readonly send: (effect: Of<'send'>) => void;
  readonly engine: (effect: Of<'engine'>) => void;
  /** Resolves when the heartbeats say so. */
  readonly announce: (effect: Of<'announce'>) => Promise<void> | void;
  /** At once: the heartbeats say what they said, but this of the consent. */
  readonly consent: (on: boolean) => void;
  /** Resolves when it is in force. */
  readonly vip: (vip: Of<'vip'>['vip']) => Promise<void> | void;
  readonly run: (effect: Of<'run'>) => void;
  readonly cancel: () => void;
  readonly transition: (effect: Of<'transition'>) => void;
  readonly watch: (on: boolean) => void;
  readonly record: (effect: Of<'record'>) => void;
  /** Lets what was heard meanwhile come before a timer that ran out. */
  readonly poll: () => void;
  /** Kept before anything of it is done, for the agent that follows. */
  readonly keep: (state: MirrorState) => void;
  /** Something may have changed that is waited for, or shown. */
  readonly changed: () => void;
}

/** setTimeout waits for no longer than this. */
const waitMaxMs = 0x7fffffff;

export class PairLoop {
  readonly #acts: PairActs;
  readonly #nowMs: () => number;
  readonly #events: Untimed[] = [];
  #effects: MirrorEffect[] = [];
  #state: MirrorState;
  #timer: NodeJS.Timeout | null = null;
  #stepping = false;
  #performing = false;
  /** What the heartbeats say of the consent, and what the core wants them to. */
  #consents = false;
  #mayConsent = false;
  #ended = false;

  constructor(state: MirrorState, nowMs: () => number, acts: PairActs) {
    this.#state = state;
    this.#nowMs = nowMs;
    this.#acts = acts;
  }

  get state(): MirrorState {
    return this.#state;
  }

  /** Everything that was to be done is done, or waits for an event. */
  get idle(): boolean {
    return !this.#performing && this.#effects.length === 0 && this.#events.length === 0;
  }

  /** One more event; called from within another one, it comes after that. */
  take(event: Untimed): void {
    if (this.#ended) return;
    this.#events.push(event);
    this.#drain();
  }

  /** The heartbeats say so already, by a former agent. */
  assume(consents: boolean): void {
    this.#consents = this.#mayConsent = consents;
  }

  /** Another configuration: what the machine remembers stays. */
  reconfigure(config: MirrorState['config']): void {
    this.#state = { ...this.#state, config };
    this.take({ kind: 'tick' });
  }

  /** Nothing more is done; what is under way is not taken back. */
  end(): void {
    this.#ended = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #drain(): void {
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
        const [state, effects] = this.#step(next);
        this.#state = state;
        this.#acts.keep(state);
        this.#effects.push(...effects);
        this.#perform();
      }
    } finally {
      this.#stepping = false;
    }
    this.#arm();
    this.#acts.changed();
  }

  /**
   * A consent that is withdrawn is so before the moment from which the core counts the grace, and
   * does not wait for what else is to be done: the step is made again, by a time after that.
   */
  #step(untimed: Untimed): ReturnType<typeof mirrorStep> {
    const at = (): MirrorEvent => ({ ...untimed, nowMs: this.#nowMs() }) as MirrorEvent;
    const tried = mirrorStep(this.#state, at());
    const wanted = lastConsent(tried[1]) ?? this.#mayConsent;
    if (wanted || !this.#consents) {
      this.#mayConsent = wanted;
      return tried;
    }
    this.#acts.consent(false);
    this.#consents = false;
    const made = mirrorStep(this.#state, at());
    this.#mayConsent = lastConsent(made[1]) ?? this.#mayConsent;
    if (this.#mayConsent && !made[1].some(({ kind }) => kind === 'announce')) {
      this.#acts.consent(true);
      this.#consents = true;
    }
    return made;
  }

  #perform(): void {
    while (!this.#performing && !this.#ended) {
      const effect = this.#effects.shift();
      if (effect === undefined) return;
      const pending = this.#act(effect);
      if (pending === undefined) continue;
      this.#performing = true;
      void pending.then((why) => this.#performed(why ?? null));
    }
  }

  /** `why`: the state could not be made durable, so nothing that follows from it may be done. */
  #performed(why: string | null): void {
    this.#performing = false;
    if (this.#ended) return;
    if (why !== null) {
      // Not one by one: what they lead to belongs behind the last of them.
      const nowMs = this.#nowMs();
      for (const event of undone(this.#effects.splice(0), why)) this.#events.push(event(nowMs));
    }
    this.#perform();
    this.#drain();
  }

  /** Undefined: it is done. */
  #act(effect: MirrorEffect): Promise<string | null | void> | undefined {
    const acts = this.#acts;
    if (effect.kind === 'persist') return acts.persist(effect.durable);
    if (effect.kind === 'vip') return acts.vip(effect.vip) ?? undefined;
    if (effect.kind !== 'announce') {
      this.#actNow(effect);
      return undefined;
    }
    // One that waited for its turn while the consent was withdrawn does not give it again.
    this.#consents = effect.consent && this.#mayConsent;
    return acts.announce({ ...effect, consent: this.#consents }) ?? undefined;
  }

  #actNow(effect: Exclude<MirrorEffect, { kind: 'persist' | 'announce' | 'vip' }>): void {
    const acts = this.#acts;
    switch (effect.kind) {
      case 'arbiterRead':
      case 'arbiterSwap':
        acts.arbiter(effect);
        break;
      case 'send':
        acts.send(effect);
        break;
      case 'engine':
        acts.engine(effect);
        break;
      case 'run':
        acts.run(effect);
        break;
      case 'cancel':
        acts.cancel();
        break;
      case 'transition':
        acts.transition(effect);
        break;
      case 'watch':
        acts.watch(effect.on);
        break;
      case 'record':
        acts.record(effect);
        break;
    }
  }

  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const at = mirrorDeadline(this.#state);
    if (at === null || this.#ended) return;
    const ms = Math.min(waitMaxMs, Math.max(0, Math.ceil(at - this.#nowMs())));
    this.#timer = setTimeout(() => {
      this.#acts.poll();
      this.take({ kind: 'tick' });
    }, ms);
  }
}

/** What the newest announcement says; undefined: there is none. */
function lastConsent(effects: readonly MirrorEffect[]): boolean | undefined {
  const last = effects.findLast((effect) => effect.kind === 'announce');
  return last?.kind === 'announce' ? last.consent : undefined;
}
