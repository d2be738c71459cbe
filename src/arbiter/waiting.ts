import type { ArbiterAnswer } from '../core/mirror-types.ts';
import type { RegisterQuestion } from './record.ts';

interface Waits {
  readonly question: RegisterQuestion;
  readonly timer: NodeJS.Timeout;
  readonly resolve: (answer: ArbiterAnswer) => void;
  /** False while the question surely has not left. */
  mayLand: boolean;
}

/**
 * Questions that wait for an answer, each with a time limit. A swap that has left and is not answered
 * is `unknown`; what has not left, and a read, is `unreachable`.
 */
export class Waiting {
  readonly #limitMs: number;
  readonly #onLate: (id: number) => void;
  readonly #waits = new Map<number, Waits>();
  #lastId = 0;

  /** onLate: the time limit of a question came; it is answered already. */
  constructor(limitMs: number, onLate: (id: number) => void = () => undefined) {
    this.#limitMs = limitMs;
    this.#onLate = onLate;
  }

  /** A new question, which has not left yet. */
  add(question: RegisterQuestion): {
    readonly id: number;
    readonly answer: Promise<ArbiterAnswer>;
  } {
    this.#lastId = (this.#lastId % 0xffff_fffe) + 1;
    const id = this.#lastId;
    const answer = new Promise<ArbiterAnswer>((resolve) => {
      const timer = setTimeout(() => {
        this.giveUp(id, `no answer within ${this.#limitMs} ms`);
        this.#onLate(id);
      }, this.#limitMs);
      this.#waits.set(id, { question, timer, resolve, mayLand: false });
    });
    return { id, answer };
  }

  /** Those that have not left, oldest first. */
  unsent(): { readonly id: number; readonly question: RegisterQuestion }[] {
    return [...this.#waits]
      .filter(([, { mayLand }]) => !mayLand)
      .map(([id, { question }]) => ({ id, question }));
  }

  /** To be called before the first byte of a question leaves. */
  leaves(id: number): void {
    const waits = this.#waits.get(id);
    if (waits !== undefined) waits.mayLand = true;
  }

  questionOf(id: number): RegisterQuestion | null {
    return this.#waits.get(id)?.question ?? null;
  }

  /** An answer that comes too late, or twice, is nothing. */
  answer(id: number, answer: ArbiterAnswer): void {
    const waits = this.#waits.get(id);
    if (waits === undefined) return;
    this.#waits.delete(id);
    clearTimeout(waits.timer);
    waits.resolve(answer);
  }

  giveUp(id: number, why: string): void {
    const waits = this.#waits.get(id);
    if (waits === undefined) return;
    const isUnknown = waits.mayLand && waits.question.kind === 'swap';
    this.answer(id, { outcome: isUnknown ? 'unknown' : 'unreachable', why });
  }

  /** No answer comes any more, to any of them. */
  giveUpAll(why: string): void {
    for (const id of [...this.#waits.keys()]) this.giveUp(id, why);
  }
}
