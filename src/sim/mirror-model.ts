/**
 * The abstract protocol of the mirror: epoch-CAS with a register, two nodes, messages that are
 * never removed (so lost, delayed, duplicated and reordered in every way), crashes, late reads.
 * No time, no disk that forgets, no lease: data only. It is what core/mirror.ts is compared with.
 *
 * Nodes are bits: 1 and 2. A log is the writes in order.
 */
import type { Move } from './explore.ts';

export interface ModelNode {
  readonly up: boolean;
  readonly primary: boolean;
  readonly epoch: number;
  readonly promised: number;
  readonly log: readonly number[];
  readonly sync: boolean;
  readonly session: number;
  /** Nodes whose durability an acknowledgement needs. */
  readonly required: number;
  /** How much of the log the other has acknowledged. */
  readonly peerHas: number;
}

export interface ModelRegister {
  readonly epoch: number;
  readonly primary: number;
  readonly inSync: number;
}

interface OfRegister extends ModelRegister {
  readonly kind: 'value' | 'swapped';
  readonly to: number;
}

interface OfSwap extends ModelRegister {
  readonly kind: 'swap';
  readonly from: number;
  readonly expect: number;
}

interface OfStream {
  readonly to: number;
  readonly epoch: number;
  readonly session: number;
}

interface OfWrite extends OfStream {
  readonly kind: 'write';
  readonly at: number;
  readonly write: number;
}

interface OfPlace extends OfStream {
  readonly kind: 'have' | 'whole';
  readonly at: number;
}

interface OfSync extends OfStream {
  readonly kind: 'sync';
  readonly log: readonly number[];
}

export type ModelMessage = OfRegister | OfSwap | OfWrite | OfPlace | OfSync;

export interface ModelState {
  readonly nodes: readonly [ModelNode, ModelNode];
  readonly register: ModelRegister;
  readonly messages: ReadonlyMap<string, ModelMessage>;
  readonly acked: readonly number[];
  readonly writes: number;
  readonly crashes: number;
}

export interface ModelBounds {
  readonly writes: number;
  readonly epochs: number;
  readonly crashes: number;
}

/** One rule that can be taken away. */
export const modelMutants = [
  'ack before the peer is durable',
  'alone without the register',
  'takeover without the register',
  'the register stores no inSync',
  'required shrinks on a read',
  'join before the node is required',
  'join before caught up',
  'a short sync is accepted',
  'the receiver checks neither epoch nor session',
  'the promised epoch is not durable',
  'the register is rolled back',
] as const;
export type ModelMutant = (typeof modelMutants)[number];

export const modelStart: ModelState = {
  nodes: [
    node({ primary: true, epoch: 1, required: 3 }),
    node({ primary: false, epoch: 0, required: 0 }),
  ],
  register: { epoch: 1, primary: 0, inSync: 3 },
  messages: new Map(),
  acked: [],
  writes: 0,
  crashes: 0,
};

function node(some: { primary: boolean; epoch: number; required: number }): ModelNode {
  return { up: true, promised: 1, log: [], sync: true, session: 1, peerHas: 0, ...some };
}

export function modelText(state: ModelState): string {
  const one = (n: ModelNode): string =>
    [n.up, n.primary, n.epoch, n.promised, n.log, n.sync, n.session, n.required, n.peerHas].join();
  const { register: r } = state;
  const messages = [...state.messages.keys()].toSorted().join(' ');
  const counts = [r.epoch, r.primary, r.inSync, state.writes, state.crashes].join();
  return [one(state.nodes[0]), one(state.nodes[1]), counts, state.acked, messages].join('|');
}

/** What must not be: an acknowledged write missing where it may be needed, two primaries. */
export function modelHarm({ nodes, register, acked }: ModelState): string | null {
  for (const [i, n] of nodes.entries()) {
    const missing = acked.find((write) => !n.log.includes(write));
    if (missing === undefined) continue;
    if (((register.inSync >> i) & 1) === 1) return `write ${missing} missing on ${i}, in sync`;
    if (n.primary && n.epoch === register.epoch && register.primary === i) {
      return `write ${missing} missing on the primary ${i}`;
    }
  }
  const [a, b] = nodes;
  return a.primary && b.primary && a.epoch === b.epoch ? 'two primaries in one epoch' : null;
}

export function modelMoves(
  state: ModelState,
  bounds: ModelBounds,
  mutant: ModelMutant | null = null,
): Move<ModelState>[] {
  const moves = new Moves(state, bounds, mutant);
  for (const i of [0, 1]) moves.ofNode(i);
  moves.ofRegister();
  return moves.list;
}

/** A message's text is its identity. */
function keyOf(message: ModelMessage): string {
  return Object.values(message).join(':');
}

class Moves {
  readonly list: Move<ModelState>[] = [];
  readonly state: ModelState;
  readonly bounds: ModelBounds;
  readonly mutant: ModelMutant | null;

  constructor(state: ModelState, bounds: ModelBounds, mutant: ModelMutant | null) {
    this.state = state;
    this.bounds = bounds;
    this.mutant = mutant;
  }

  #add(name: string, change: Partial<ModelState>): void {
    this.list.push({ name, next: { ...this.state, ...change } });
  }

  #with(i: number, next: ModelNode): Pick<ModelState, 'nodes'> {
    const [a, b] = this.state.nodes;
    return { nodes: i === 0 ? [next, b] : [a, next] };
  }

  #has(message: ModelMessage): boolean {
    return this.state.messages.has(keyOf(message));
  }

  #sent(message: ModelMessage): Pick<ModelState, 'messages'> {
    if (this.#has(message)) return { messages: this.state.messages };
    return { messages: new Map(this.state.messages).set(keyOf(message), message) };
  }

  /** Sends it, unless it is on its way already: that would be the same state. */
  #send(name: string, message: ModelMessage): void {
    if (!this.#has(message)) this.#add(name, this.#sent(message));
  }

  ofNode(i: number): void {
    const n = this.state.nodes[i];
    if (n === undefined) return;
    const { crashes } = this.state;
    const down = { primary: false, epoch: 0, required: 0, peerHas: 0 };
    if (!n.up) return this.#add(`restart ${i}`, this.#with(i, { ...n, ...down, up: true }));
    if (crashes < this.bounds.crashes) {
      const next = this.#with(i, { ...n, ...down, up: false });
      this.#add(`crash ${i}`, { ...next, crashes: crashes + 1 });
    }
    this.#send(`read ${i}`, { kind: 'value', to: i, ...this.state.register });
    if (n.primary) this.#serve(i, n);
    else if (n.sync) this.#takeOver(i, n);
    for (const message of this.state.messages.values()) {
      if ('to' in message && message.to === i) this.#take(i, n, message);
    }
  }

  #serve(i: number, n: ModelNode): void {
    const [me, peer] = [1 << i, 1 << (1 - i)];
    const { writes, acked } = this.state;
    const { epoch, session } = n;
    const both = (n.required & peer) !== 0;
    if (writes < this.bounds.writes) {
      const write = writes + 1;
      const log = [...n.log, write];
      const repl = { kind: 'write', to: 1 - i, epoch, session, at: log.length, write } as const;
      const sent = both ? this.#sent(repl) : {};
      this.#add(`write ${i}`, { ...this.#with(i, { ...n, log }), ...sent, writes: write });
    }
    const next = n.log.findIndex((write) => !acked.includes(write));
    if (next >= 0) {
      const has = !both || n.peerHas > next || this.mutant === 'ack before the peer is durable';
      const all = [...acked, n.log[next] ?? 0].toSorted((a, b) => a - b);
      if (has) this.#add(`ack ${i}`, { acked: all });
    }
    if (both && epoch < this.bounds.epochs) {
      const next1 = { epoch: epoch + 1, primary: i, inSync: me };
      this.#send(`degrade ${i}`, { kind: 'swap', from: i, expect: epoch, ...next1 });
    }
    const alone = { ...n, required: me, peerHas: 0 };
    if (both && this.mutant === 'alone without the register') {
      this.#add(`alone ${i}`, this.#with(i, alone));
    }
    if (both && this.mutant === 'required shrinks on a read') {
      for (const m of this.state.messages.values()) {
        if (m.kind === 'value' && m.to === i && m.epoch === epoch && m.inSync === me) {
          this.#add(`shrink ${i}`, this.#with(i, alone));
        }
      }
    }
    if (!both) {
      const { log } = n;
      this.#send(`sync ${i}`, { kind: 'sync', to: 1 - i, epoch, session: epoch, log });
    }
  }

  #takeOver(i: number, n: ModelNode): void {
    const me = 1 << i;
    for (const m of this.state.messages.values()) {
      if (m.kind !== 'value' || m.to !== i) continue;
      const counts = (m.inSync & me) !== 0 || this.mutant === 'the register stores no inSync';
      if (!counts || m.epoch < n.promised || m.epoch >= this.bounds.epochs) continue;
      const next = { epoch: m.epoch + 1, primary: i, inSync: me };
      this.#send(`take over ${i}`, { kind: 'swap', from: i, expect: m.epoch, ...next });
    }
    const epoch = n.promised + 1;
    if (this.mutant === 'takeover without the register' && epoch <= this.bounds.epochs) {
      const next = { ...n, primary: true, epoch, promised: epoch, required: me, peerHas: 0 };
      this.#add(`take ${i}`, this.#with(i, next));
    }
  }

  #take(i: number, n: ModelNode, m: ModelMessage): void {
    switch (m.kind) {
      case 'value':
        if (n.primary && m.epoch > n.epoch && m.primary !== i) {
          const next = { ...n, primary: false, epoch: 0, required: 0, peerHas: 0 };
          this.#add(`step down ${i}`, this.#with(i, next));
        }
        return;
      case 'swapped':
        return this.#swapped(i, n, m);
      case 'write':
        return this.#takeWrite(i, n, m);
      case 'have':
        if (n.primary && m.session === n.session && (n.required & (1 << (1 - i))) !== 0) {
          if (m.at > n.peerHas && m.epoch <= n.epoch) {
            this.#add(`have ${i}`, this.#with(i, { ...n, peerHas: m.at }));
          }
        }
        return;
      case 'sync':
        return this.#takeSync(i, n, m);
      case 'whole':
        return this.#join(i, n, m);
      case 'swap':
        return;
    }
  }

  #swapped(i: number, n: ModelNode, m: OfRegister): void {
    const { epoch, inSync } = m;
    if (epoch <= n.promised) return;
    const me = 1 << i;
    if (n.primary && epoch === n.epoch + 1) {
      const next = { ...n, epoch, promised: epoch };
      if (inSync === me) {
        this.#add(`degraded ${i}`, this.#with(i, { ...next, required: me, peerHas: 0 }));
      } else if ((n.required & (1 << (1 - i))) !== 0) {
        this.#add(`joined ${i}`, this.#with(i, next));
      }
    } else if (!n.primary && inSync === me && n.sync) {
      const durable = this.mutant !== 'the promised epoch is not durable';
      const promised = durable ? epoch : n.promised;
      const next = { ...n, primary: true, epoch, promised, required: me, peerHas: 0 };
      this.#add(`promote ${i}`, this.#with(i, next));
    }
  }

  #takeWrite(i: number, n: ModelNode, m: OfWrite): void {
    const checks = this.mutant !== 'the receiver checks neither epoch nor session';
    const fits = !checks || (m.epoch >= n.promised && m.session === n.session);
    if (n.primary || !n.sync || !fits || n.log.length !== m.at - 1) return;
    const next = { ...n, promised: Math.max(n.promised, m.epoch), log: [...n.log, m.write] };
    const { epoch, session, at } = m;
    const have = this.#sent({ kind: 'have', to: 1 - i, epoch, session, at });
    this.#add(`take write ${i}`, { ...this.#with(i, { ...next, primary: false }), ...have });
  }

  #takeSync(i: number, n: ModelNode, m: OfSync): void {
    const { epoch, session, log } = m;
    const longer = session === n.session && log.length >= n.log.length;
    const fresh = session > n.session || longer || this.mutant === 'a short sync is accepted';
    if (epoch < n.promised || !fresh || (n.primary && epoch <= n.epoch)) return;
    if (log.join() === n.log.join() && session === n.session && !n.primary) return;
    const promised = Math.max(n.promised, epoch);
    const down = { primary: false, epoch: 0, required: 0, peerHas: 0 };
    const next = { ...n, ...down, promised, log, sync: true, session };
    const whole = this.#sent({ kind: 'whole', to: 1 - i, epoch, session, at: log.length });
    this.#add(`take sync ${i}`, { ...this.#with(i, next), ...whole });
  }

  /** First the node is required, then the register says that it is in sync. */
  #join(i: number, n: ModelNode, m: OfPlace): void {
    const me = 1 << i;
    const { session } = m;
    if (!n.primary || n.required !== me || session !== n.epoch || n.epoch >= this.bounds.epochs) {
      return;
    }
    const next1 = { epoch: n.epoch + 1, primary: i, inSync: 3 };
    const swap = { kind: 'swap', from: i, expect: n.epoch, ...next1 } as const;
    const late = this.mutant === 'join before the node is required';
    const early = this.mutant === 'join before caught up';
    if (m.epoch === n.epoch && (m.at === n.log.length || early)) {
      const joining = { ...n, session, required: 3, peerHas: m.at };
      if (late) this.#send(`join ${i}`, swap);
      else this.#add(`join ${i}`, { ...this.#with(i, joining), ...this.#sent(swap) });
    }
    if (late && this.#has({ kind: 'swapped', to: i, ...next1 })) {
      const { epoch } = next1;
      const joined = { ...n, epoch, promised: epoch, session, required: 3, peerHas: m.at };
      this.#add(`joined late ${i}`, this.#with(i, joined));
    }
  }

  ofRegister(): void {
    const { register } = this.state;
    if (this.mutant === 'the register is rolled back' && register.epoch > 1) {
      this.#add('roll back', { register: { epoch: register.epoch - 1, primary: 0, inSync: 3 } });
    }
    for (const m of this.state.messages.values()) {
      if (m.kind !== 'swap' || m.expect !== register.epoch) continue;
      const next = { epoch: m.epoch, primary: m.primary, inSync: m.inSync };
      this.#add(`swap of ${m.from}`, {
        register: next,
        ...this.#sent({ kind: 'swapped', to: m.from, ...next }),
      });
    }
  }
}
