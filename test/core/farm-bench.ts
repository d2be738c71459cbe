/** A few farm machines on a perfect network, driven step by step: for tests of single rules. */
import {
  bucketCount,
  type FarmConfig,
  farmDeadline,
  type FarmEffect,
  type FarmEvent,
  farmInit,
  farmSnapshot,
  type FarmState,
  farmStep,
  type FarmTiming,
  type Message,
  type Reach,
  tableFlag,
} from '../../src/core/farm.ts';
import { bitmapBytes } from '../../src/core/farm-types.ts';

export const timing: FarmTiming = {
  heartbeatMs: 50,
  suspectMs: 200,
  leaseMs: 150,
  agentDeadlineMs: 5000,
  drainTimeoutMs: 60_000,
};

type Untimed<E> = E extends FarmEvent ? Omit<E, 'nowMs'> : never;

interface Letter {
  readonly from: number;
  readonly to: number;
  readonly message: Message;
}

export class Bench {
  nowMs = 10_000;
  readonly states = new Map<number, FarmState>();
  readonly effects = new Map<number, FarmEffect[]>();
  readonly letters: Letter[] = [];
  /** Messages that wait until `deliver`; installs that wait until `finishInstalls`. */
  holdLetters = false;
  holdInstalls = new Set<number>();
  readonly waiting: { readonly node: number; readonly install: number }[] = [];
  readonly #said = new Map<number, Extract<FarmEffect, { kind: 'announce' }>>();
  readonly #reach = new Map<string, Reach>();
  readonly #boots = new Map<number, bigint>();
  readonly #hung = new Set<number>();

  constructor(count: number, groups: FarmConfig['groups'] = [{ name: 'web', powers: {} }]) {
    const nodes = Array.from({ length: count }, (_unused, node) => node);
    const even = Object.fromEntries(nodes.map((node) => [node, 1]));
    const filled = groups.map(({ name, powers }) => ({ name, powers: { ...even, ...powers } }));
    for (const me of nodes) {
      this.states.set(me, farmInit({ me, nodes, groups: filled, timing }));
      this.effects.set(me, []);
      this.#boots.set(me, BigInt(100 + me));
    }
  }

  state(node: number): FarmState {
    const state = this.states.get(node);
    if (state === undefined) throw new Error(`no node ${node}`);
    return state;
  }

  /** Starts all nodes and lets the farm come to rest. */
  static whole(count: number, groups?: FarmConfig['groups']): Bench {
    const bench = new Bench(count, groups);
    for (const node of bench.states.keys()) bench.start(node);
    bench.connectAll();
    bench.advance(2000);
    // The moves of the start left holders behind, with no connection.
    for (const node of bench.states.keys()) bench.walk(node, []);
    bench.advance(500);
    return bench;
  }

  start(node: number, adopt = false, ready = true): void {
    const snapshot = farmSnapshot(this.state(node));
    if (adopt) this.states.set(node, farmInit(this.state(node).config));
    this.give(node, {
      kind: 'start',
      ready,
      adopt: adopt ? snapshot : null,
      epochMax: snapshot.epochMax,
    });
  }

  /** Tells a node of all peers, as the host does after a start. */
  replay(node: number): void {
    for (const peer of this.states.keys()) {
      if (peer === node) continue;
      this.#tellSummary(peer, node);
      this.setReach(peer, node, this.reach(peer, node));
    }
  }

  connectAll(): void {
    for (const from of this.states.keys()) {
      for (const to of this.states.keys()) if (from !== to) this.setReach(from, to, 'both');
    }
    for (const node of this.states.keys())
      for (const to of this.states.keys()) this.#tellSummary(node, to);
  }

  /** How `to` hears `from`. */
  reach(from: number, to: number): Reach {
    return this.#reach.get(`${from}>${to}`) ?? 'silent';
  }

  setReach(from: number, to: number, reach: Reach): void {
    this.#reach.set(`${from}>${to}`, reach);
    this.give(to, {
      kind: 'peer',
      node: from,
      reach,
      boot: this.#boots.get(from) ?? 1n,
      hung: this.#hung.has(from),
    });
    if (reach !== 'silent') this.#tellSummary(from, to);
  }

  /** The server is gone: nobody hears it, it hears nobody. */
  kill(node: number): void {
    for (const other of this.states.keys()) {
      if (other !== node) this.setReach(node, other, 'silent');
    }
    this.states.delete(node);
  }

  cut(a: number, b: number): void {
    this.setReach(a, b, 'silent');
    this.setReach(b, a, 'silent');
  }

  /** Heartbeats from a to b are lost: b hears nothing, a hears that it is not heard. */
  cutOneWay(a: number, b: number): void {
    this.setReach(b, a, 'heard');
    this.setReach(a, b, 'silent');
  }

  setHung(node: number, on: boolean): void {
    if (on) this.#hung.add(node);
    else this.#hung.delete(node);
    for (const other of this.states.keys()) {
      if (other !== node) this.setReach(node, other, this.reach(node, other));
    }
  }

  reboot(node: number): void {
    this.#boots.set(node, (this.#boots.get(node) ?? 0n) + 100n);
  }

  give(node: number, event: Untimed<FarmEvent>): readonly FarmEffect[] {
    const [state, effects] = farmStep(this.state(node), {
      ...event,
      nowMs: this.nowMs,
    } as FarmEvent);
    this.states.set(node, state);
    this.effects.get(node)?.push(...effects);
    for (const effect of effects) this.#perform(node, effect);
    return effects;
  }

  #perform(node: number, effect: FarmEffect): void {
    switch (effect.kind) {
      case 'install':
        this.waiting.push({ node, install: effect.install });
        if (!this.holdInstalls.has(node)) this.finishInstalls(node);
        return;
      case 'send':
        this.letters.push({ from: node, to: effect.to, message: effect.message });
        if (!this.holdLetters) this.deliver();
        return;
      case 'announce':
        this.#said.set(node, effect);
        for (const other of this.states.keys()) if (other !== node) this.#tellSummary(node, other);
        return;
      default:
    }
  }

  #tellSummary(from: number, to: number): void {
    if (from === to || this.reach(from, to) === 'silent') return;
    const said = this.#said.get(from);
    if (said === undefined) return;
    this.give(to, {
      kind: 'summary',
      node: from,
      flags: said.flags,
      viewEpoch: said.viewEpoch,
      viewMembers: said.viewMembers,
    });
  }

  finishInstalls(node: number): void {
    for (let i = 0; i < this.waiting.length; ) {
      const entry = this.waiting[i];
      if (entry?.node !== node) {
        i++;
        continue;
      }
      this.waiting.splice(i, 1);
      if (this.states.has(node)) this.give(node, { kind: 'installed', install: entry.install });
    }
  }

  /** Delivers what was sent, in order, also what is sent meanwhile. */
  deliver(): void {
    for (let letter = this.letters.shift(); letter !== undefined; letter = this.letters.shift()) {
      const { from, to, message } = letter;
      const open = this.reach(from, to) === 'both' && this.reach(to, from) === 'both';
      if (open && this.states.has(to)) this.give(to, { kind: 'message', from, message });
    }
  }

  /** Lets time pass, with the ticks that the machines ask for. */
  advance(forMs: number): void {
    const untilMs = this.nowMs + forMs;
    for (;;) {
      let next = untilMs;
      for (const state of this.states.values()) {
        next = Math.min(next, farmDeadline(state) ?? untilMs);
      }
      if (next >= untilMs) break;
      this.nowMs = Math.max(this.nowMs + 0.01, next);
      this.tick();
    }
    this.nowMs = untilMs;
    this.tick();
  }

  tick(): void {
    for (const node of [...this.states.keys()]) this.give(node, { kind: 'tick' });
  }

  last<K extends FarmEffect['kind']>(node: number, kind: K): Extract<FarmEffect, { kind: K }> {
    const found = this.effects.get(node)?.findLast((effect) => effect.kind === kind);
    if (found === undefined) throw new Error(`node ${node} had no ${kind}`);
    return found as Extract<FarmEffect, { kind: K }>;
  }

  /** Buckets with a flag in the last table of a node. */
  buckets(node: number, flag: keyof typeof tableFlag, group = 0): number[] {
    const flags = this.last(node, 'install').tables[group]?.flags ?? new Uint8Array();
    const result: number[] = [];
    for (let b = 0; b < bucketCount; b++)
      if (((flags[b] ?? 0) & tableFlag[flag]) !== 0) result.push(b);
    return result;
  }

  owned(node: number, group = 0): number {
    return this.buckets(node, 'own', group).length;
  }

  epoch(node: number): number {
    return this.state(node).view?.epoch ?? 0;
  }

  members(node: number): bigint {
    return this.state(node).view?.members ?? 0n;
  }

  records(node: number, kind: 'view' | 'transition' | 'refusal'): string[] {
    return (this.effects.get(node) ?? []).flatMap((effect) =>
      effect.kind === 'record' && effect.record === kind ? [effect.text] : [],
    );
  }

  /** A walk over the sockets of a node, begun now; the buckets that still have some. */
  walk(node: number, buckets: readonly number[]): void {
    const map = new Uint8Array(bitmapBytes);
    for (const b of buckets) map[b >> 3] = (map[b >> 3] ?? 0) | (1 << (b & 7));
    const groups = this.state(node).config.groups.map(() => map);
    this.give(node, { kind: 'sockets', beganMs: this.nowMs, groups });
  }

  /** Each bucket's owners over all live nodes, by their tables: '', '0', '0,1', … and how many. */
  ownership(group = 0): Record<string, number> {
    const owners = Array.from({ length: bucketCount }, () => [] as number[]);
    for (const node of this.states.keys()) {
      for (const b of this.buckets(node, 'own', group)) owners[b]?.push(node);
    }
    const result: Record<string, number> = {};
    for (const list of owners) result[list.join()] = (result[list.join()] ?? 0) + 1;
    return result;
  }
}
