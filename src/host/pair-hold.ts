/**
 * Why a mirror is held back: its directories are not there, or a rule of its checkers says wait. Each
 * speaks for itself; the mirror goes on when neither holds it any more.
 */
type Holder = 'data' | 'checks';

export class PairHold {
  readonly #now: () => string | null;
  readonly #take: (why: string | null) => void;
  readonly #whys: Record<Holder, string | null> = { data: null, checks: null };

  /** now: what the machine goes by; take: gives it something else. */
  constructor(now: () => string | null, take: (why: string | null) => void) {
    this.#now = now;
    this.#take = take;
  }

  tell(who: Holder, why: string | null): void {
    this.#whys[who] = why;
    const first = this.#whys.data ?? this.#whys.checks;
    if (first !== this.#now()) this.#take(first);
  }

  /** What a former agent was held by: whose word it was is not known, and it stays until both spoke. */
  assume(why: string | null): void {
    this.#whys.data = why;
    this.#whys.checks = why;
  }
}
