/** What one process does, in order: it waits while the process is stopped, and ends with it. */
const waitingMax = 100_000;

export class Lane {
  /** Number of the process: what was begun for an earlier one is not done any more. */
  life = 0;
  #pauses = 0;
  #waiting: (() => void)[] = [];

  get awake(): boolean {
    return this.#pauses === 0;
  }

  begin(): void {
    this.life++;
    this.#pauses = 0;
    this.#waiting = [];
  }

  end(): void {
    this.life++;
    this.#pauses = 0;
    this.#waiting = [];
  }

  pause(): void {
    this.#pauses++;
  }

  resume(): void {
    if (this.#pauses === 0) return;
    this.#pauses--;
    const { life } = this;
    while (this.#pauses === 0 && this.life === life) {
      const act = this.#waiting.shift();
      if (act === undefined) return;
      act();
    }
  }

  run(act: () => void): void {
    if (this.#pauses === 0) return act();
    if (this.#waiting.length >= waitingMax) throw new Error('a process waits for too much');
    this.#waiting.push(act);
  }
}
