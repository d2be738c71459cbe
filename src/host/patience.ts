/** Waiting for what a module becomes. */

export class Patience {
  readonly #nowMs: () => number;
  readonly #waiters = new Set<() => void>();
  #ended = false;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Something may be so now. */
  changed(): void {
    for (const look of [...this.#waiters]) look();
  }

  /** Nobody waits any more, now and later. */
  end(): void {
    this.#ended = true;
    this.changed();
  }

  isLate(byMs: number): boolean {
    return this.#nowMs() >= byMs;
  }

  /** Resolves when it is so; looked at after each change, and at `atMs`. */
  until(isSo: () => boolean, atMs = Infinity): Promise<void> {
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | null = null;
      const look = (): void => {
        if (!this.#ended && !isSo()) return;
        if (timer !== null) clearTimeout(timer);
        this.#waiters.delete(look);
        resolve();
      };
      if (atMs < Infinity) timer = setTimeout(look, atMs - this.#nowMs() + 1);
      this.#waiters.add(look);
      look();
    });
  }
}
