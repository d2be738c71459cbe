/** What every simulated world needs: a seeded source of chance, a queue of future events, a verdict. */

/** What must never happen, happened. */
export class Violation extends Error {
  readonly rule: string;

  constructor(rule: string, text: string) {
    super(`${rule}: ${text}`);
    this.name = 'Violation';
    this.rule = rule;
  }
}

/** What every run of one seed comes to. */
export interface SeedResult {
  readonly seed: number;
  readonly ok: boolean;
  /** The rule that was broken; null: none. */
  readonly rule: string | null;
  readonly text: string;
  readonly events: number;
  readonly steps: number;
  readonly hash: number;
  readonly virtualMs: number;
  readonly trace: readonly string[];
}

/** The newest lines of what happened, and a hash over all of it. */
export class Trace {
  readonly #keep: number;
  readonly #lines: string[] = [];
  hash = 0;

  /** `keep`: so many lines are shown; up to four times as many are held. */
  constructor(keep: number) {
    this.#keep = keep;
  }

  add(nowMs: number, text: string): void {
    this.#lines.push(`${nowMs.toFixed(1)} ${text}`);
    if (this.#lines.length > 4 * this.#keep) this.#lines.splice(0, 2 * this.#keep);
  }

  mix(nowMs: number, value: number): void {
    this.hash = (Math.imul(this.hash ^ value, 0x01000193) ^ Math.floor(nowMs * 1000)) >>> 0;
  }

  last(): string[] {
    return this.#lines.slice(-this.#keep);
  }
}

/** mulberry32: 32 bits of state, good enough to draw faults, the same on every machine. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 <= x < 1. */
  unit(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  between(low: number, high: number): number {
    return low + (high - low) * this.unit();
  }

  /** 0 <= n < limit. */
  below(limit: number): number {
    return Math.floor(this.unit() * limit);
  }

  is(probability: number): boolean {
    return this.unit() < probability;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error('nothing to pick from');
    return item;
  }
}

interface Entry<T> {
  readonly at: number;
  readonly order: number;
  readonly item: T;
}

/** Binary heap by (time, order of insertion). */
export class Agenda<T> {
  readonly #heap: Entry<T>[] = [];
  #order = 0;

  get size(): number {
    return this.#heap.length;
  }

  push(at: number, item: T): void {
    const heap = this.#heap;
    const entry = { at, order: this.#order++, item };
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const up = (i - 1) >> 1;
      const parent = heap[up];
      if (parent === undefined || !before(entry, parent)) break;
      heap[i] = parent;
      i = up;
    }
    heap[i] = entry;
  }

  pop(): { readonly at: number; readonly item: T } | null {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return null;
    if (heap.length > 0) this.#sink(last);
    return first;
  }

  #sink(entry: Entry<T>): void {
    const heap = this.#heap;
    let i = 0;
    for (;;) {
      let down = 2 * i + 1;
      let child = heap[down];
      if (child === undefined) break;
      const right = heap[down + 1];
      if (right !== undefined && before(right, child)) {
        child = right;
        down++;
      }
      if (!before(child, entry)) break;
      heap[i] = child;
      i = down;
    }
    heap[i] = entry;
  }
}

function before<T>(a: Entry<T>, b: Entry<T>): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
