/**
 * Exhaustive exploration, breadth first: every state that can be reached within the bounds is
 * visited once. States are known by a 64-bit hash of their canonical text: with n states the chance
 * that one is missed is below n² / 2^65 (a million states: 3 in 10^8). A trace is the shortest.
 */
import type { Chance } from './kit.ts';

export interface Move<S> {
  readonly name: string;
  readonly next: S;
}

export interface Exploration<S> {
  readonly start: S;
  /** All that can happen in this state; the same state gives the same list. */
  readonly moves: (state: S) => readonly Move<S>[];
  /** Two states with one text are one state. */
  readonly text: (state: S) => string;
  /** What must not be; null: fine. */
  readonly harm: (state: S) => string | null;
  readonly statesMax: number;
  /** Called once for each state, in the order of discovery. */
  readonly visit?: (state: S) => void;
}

export interface Explored<S> {
  readonly states: number;
  readonly steps: number;
  /** Length of the longest shortest path. */
  readonly depth: number;
  /** Every reachable state was visited. */
  readonly exhausted: boolean;
  readonly harm: string | null;
  readonly trace: readonly string[];
  /** Where the harm is. */
  readonly state: S | null;
}

export function explore<S>(exploration: Exploration<S>): Explored<S> {
  const { start, moves, text, harm, statesMax } = exploration;
  const known = new HashSet(statesMax);
  const parent = new Int32Array(statesMax);
  const ordinal = new Uint16Array(statesMax);
  let layer: { readonly state: S; readonly index: number }[] = [{ state: start, index: 0 }];
  known.add(text(start));
  exploration.visit?.(start);
  let steps = 0;
  let depth = 0;
  const found = (index: number, what: string | null, exhausted: boolean): Explored<S> => {
    const result = { states: known.size, steps, depth, exhausted, harm: what };
    if (what === null) return { ...result, trace: [], state: null };
    return { ...result, ...retrace(exploration, parent, ordinal, index) };
  };
  while (layer.length > 0) {
    const next: typeof layer = [];
    for (const { state, index } of layer) {
      const list = moves(state);
      for (const [i, move] of list.entries()) {
        steps++;
        if (!known.add(text(move.next))) continue;
        const at = known.size - 1;
        parent[at] = index;
        ordinal[at] = i;
        exploration.visit?.(move.next);
        const what = harm(move.next);
        if (what !== null) return found(at, what, false);
        if (known.size >= statesMax) return found(0, null, false);
        next.push({ state: move.next, index: at });
      }
    }
    if (next.length > 0) depth++;
    layer = next;
  }
  return found(0, null, true);
}

function retrace<S>(
  { start, moves }: Exploration<S>,
  parent: Int32Array,
  ordinal: Uint16Array,
  index: number,
): Pick<Explored<S>, 'trace' | 'state'> {
  const path: number[] = [];
  for (let at = index; at !== 0; at = parent[at] ?? 0) path.push(ordinal[at] ?? 0);
  const names: string[] = [];
  let state = start;
  for (const i of path.reverse()) {
    const move = moves(state)[i];
    if (move === undefined) throw new Error('the moves of a state changed');
    names.push(move.name);
    state = move.next;
  }
  return { trace: names, state };
}

export interface Walked<S> {
  /** Where the last walk ended. */
  readonly state: S;
  readonly walks: number;
  readonly steps: number;
  readonly harm: string | null;
  readonly trace: readonly string[];
}

/** Of a move: its name without numbers and what is told of it after a comma. */
function kindOf(name: string): string {
  const aside = name.indexOf(', ');
  return (aside < 0 ? name : name.slice(aside + 2)).replace(/ ?\d+/g, '');
}

/**
 * Random walks from the start, deeper than any exhaustion reaches. Each walk likes some kinds of
 * moves more than others: uniform ones do not get far. `weights`: what is likely, 1 where not given.
 */
export function walk<S>(
  { start, moves, harm }: Pick<Exploration<S>, 'start' | 'moves' | 'harm'>,
  chance: Chance,
  limits: { readonly walks: number; readonly depth: number },
  weights: Readonly<Record<string, number>> = {},
): Walked<S> {
  let steps = 0;
  let state = start;
  for (let n = 1; n <= limits.walks; n++) {
    const likes = new Map<string, number>();
    const weigh = (name: string): number => {
      const kind = kindOf(name);
      let like = likes.get(kind);
      if (like === undefined) {
        like = (weights[kind] ?? 1) * 2 ** chance.between(-2, 2);
        likes.set(kind, like);
      }
      return like;
    };
    state = start;
    const trace: string[] = [];
    for (let depth = 0; depth < limits.depth; depth++) {
      const list = moves(state);
      const likely = list.map(({ name }) => weigh(name));
      let left = chance.unit() * likely.reduce((sum, weight) => sum + weight, 0);
      const at = likely.findIndex((weight) => (left -= weight) < 0);
      const move = list[at];
      if (move === undefined) break;
      steps++;
      state = move.next;
      trace.push(move.name);
      const what = harm(state);
      if (what !== null) return { state, walks: n, steps, harm: what, trace };
    }
  }
  return { state, walks: limits.walks, steps, harm: null, trace: [] };
}

/** 64-bit hashes, open addressing. */
class HashSet {
  size = 0;
  readonly #mask: number;
  readonly #low: Uint32Array;
  readonly #high: Uint32Array;

  constructor(max: number) {
    const slots = 2 ** Math.ceil(Math.log2(max * 2));
    this.#mask = slots - 1;
    this.#low = new Uint32Array(slots);
    this.#high = new Uint32Array(slots);
  }

  /** True: it was not there. */
  add(text: string): boolean {
    const [low, high] = hash(text);
    let at = low & this.#mask;
    for (;;) {
      const there = this.#low[at] ?? 0;
      if (there === 0 && this.#high[at] === 0) break;
      if (there === low && this.#high[at] === high) return false;
      at = (at + 1) & this.#mask;
    }
    this.#low[at] = low;
    this.#high[at] = high;
    this.size++;
    return true;
  }
}

/** Two rounds of multiply and shift over the text; never [0, 0], which means empty. */
export function hash(text: string): readonly [number, number] {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(a ^ unit, 0x9e3779b1);
    b = Math.imul(b ^ unit, 0x5f356495);
  }
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ Math.imul(b ^ (b >>> 13), 0xc2b2ae35);
  b = Math.imul(b ^ (b >>> 16), 0x85ebca6b) ^ Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
  return [a >>> 0 || 1, b >>> 0];
}

/** One way, by the names of its moves: where it leads. Throws where a move is not possible. */
export function follow<S>(
  { start, moves }: Pick<Exploration<S>, 'start' | 'moves'>,
  names: readonly string[],
): S {
  let state = start;
  for (const [n, name] of names.entries()) {
    const list = moves(state);
    const move = list.find((one) => one.name === name);
    if (move === undefined) {
      const possible = list.map((one) => one.name).join(', ');
      throw new Error(`after ${n} moves no "${name}", but: ${possible}`);
    }
    state = move.next;
  }
  return state;
}
