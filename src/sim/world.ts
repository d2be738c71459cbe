/**
 * The world of the simulated farm: time, network, clients; and what must hold in it. Everything is
 * drawn from one seed and runs in one thread: a seed is a replay.
 */
import type { FarmConfig, FarmEffect, FarmEvent, Message, View } from '../core/farm.ts';
import type { FarmRules } from '../core/farm-rules.ts';
import { Checks } from './checks.ts';
import { Clients } from './clients.ts';
import { Agenda, Chance, Trace } from './kit.ts';
import type { Heartbeat, KeeperGuards } from './keeper.ts';
import { SimNode } from './node.ts';

export interface NetworkOptions {
  readonly loss: number;
  readonly duplicate: number;
  readonly delayMs: number;
  /** Chance of a delay up to slowMs: later ones overtake. */
  readonly slow: number;
  readonly slowMs: number;
  readonly skew: number;
}

export type Happening =
  | { readonly kind: 'keeper'; readonly node: number; readonly wake: number }
  | { readonly kind: 'beat'; readonly beat: Heartbeat }
  | { readonly kind: 'doorbell'; readonly node: number; readonly life: number }
  | { readonly kind: 'tick'; readonly node: number; readonly life: number; readonly at: number }
  | {
      readonly kind: 'install';
      readonly node: number;
      readonly life: number;
      readonly effect: FarmEffect & { readonly kind: 'install' };
      readonly wanted: readonly Uint8Array[];
      readonly view: View | null;
    }
  | {
      readonly kind: 'message';
      readonly from: number;
      readonly to: number;
      readonly connection: number;
      readonly message: Message;
    }
  | {
      readonly kind: 'walked';
      readonly node: number;
      readonly life: number;
      readonly beganMs: number;
      readonly groups: readonly Uint8Array[];
    }
  | { readonly kind: 'walk' }
  | { readonly kind: 'clients' }
  | { readonly kind: 'packets' }
  | { readonly kind: 'sample' }
  | { readonly kind: 'recheck' }
  | { readonly kind: 'do'; readonly what: string; readonly act: () => void };

export class World {
  readonly chance: Chance;
  options: NetworkOptions;
  readonly nodes: SimNode[] = [];
  readonly agenda = new Agenda<Happening>();
  nowMs = 0;
  events = 0;
  steps = 0;
  readonly trace = new Trace(120);
  /** Heartbeats and channel from i to j are cut while > 0. */
  readonly cut: number[][];
  /** Part of the network that a node's clients are in. */
  readonly side: number[];
  readonly connection: number[][];
  readonly upAt: number[][];
  readonly lastDelivery: number[][];
  readonly checks: Checks;
  readonly clients: Clients;
  #changed = false;

  constructor(
    seed: number,
    count: number,
    makeConfig: (me: number) => FarmConfig,
    rules: FarmRules,
    options: NetworkOptions,
    guards: KeeperGuards,
  ) {
    this.chance = new Chance(seed);
    this.options = options;
    const square = (value: number): number[][] =>
      Array.from({ length: count }, () => Array.from({ length: count }, () => value));
    this.cut = square(0);
    this.connection = square(0);
    this.upAt = square(0);
    this.lastDelivery = square(0);
    this.checks = new Checks(this, count);
    this.clients = new Clients(this);
    this.side = Array.from({ length: count }, () => 0);
    for (let id = 0; id < count; id++) {
      this.nodes.push(new SimNode(this, id, makeConfig(id), rules, guards));
    }
  }

  at(timeMs: number, item: Happening): void {
    this.agenda.push(Math.max(timeMs, this.nowMs), item);
  }

  do(timeMs: number, what: string, act: () => void): void {
    this.at(timeMs, { kind: 'do', what, act });
  }

  node(id: number): SimNode {
    const node = this.nodes[id];
    if (node === undefined) throw new Error(`no node ${id}`);
    return node;
  }

  record(node: number, kind: string, text: string): void {
    this.trace.add(this.nowMs, `n${node} ${kind} ${text}`);
    this.trace.mix(this.nowMs, text.length * 64 + node);
  }

  note(node: number, event: FarmEvent): void {
    this.steps++;
    this.trace.mix(this.nowMs, node * 16 + event.kind.length);
  }

  /** Runs until a time, or until the condition (asked every 50 ms) holds; tells which. */
  run(untilMs: number, done: (() => boolean) | null): boolean {
    let askMs = this.nowMs;
    for (;;) {
      const next = this.agenda.pop();
      if (next === null || next.at > untilMs) {
        if (next !== null) this.agenda.push(next.at, next.item);
        this.nowMs = untilMs;
        return false;
      }
      this.nowMs = next.at;
      this.events++;
      this.#happen(next.item);
      if (this.#changed) {
        this.#changed = false;
        this.checks.owners();
      }
      if (done !== null && this.nowMs - askMs >= 50) {
        askMs = this.nowMs;
        if (done()) return true;
      }
    }
  }

  #happen(item: Happening): void {
    switch (item.kind) {
      case 'keeper': {
        const node = this.node(item.node);
        if (node.keeperWake === item.wake) node.wakeKeeper();
        return;
      }
      case 'beat': {
        const { beat } = item;
        const node = this.node(beat.to);
        if (this.cut[beat.from]?.[beat.to] === 0) node.receiveBeat(beat, node.nowMs);
        return;
      }
      case 'doorbell': {
        const node = this.node(item.node);
        if (node.agentLife === item.life) node.pollRing();
        return;
      }
      case 'tick': {
        const node = this.node(item.node);
        if (!node.agentUp || node.agentLife !== item.life || node.tickAt !== item.at) return;
        node.tickAt = Number.POSITIVE_INFINITY;
        if (!node.agentPaused && !node.frozen) node.step({ kind: 'tick', nowMs: node.nowMs });
        return;
      }
      case 'install': {
        const node = this.node(item.node);
        if (!node.agentUp || node.agentLife !== item.life) return;
        node.install(item.effect, item.wanted, item.view);
        return;
      }
      case 'message':
        return this.#deliver(item);
      case 'walked': {
        const node = this.node(item.node);
        if (node.agentLife !== item.life) return;
        const { beganMs, groups } = item;
        node.take({ kind: 'sockets', nowMs: node.nowMs, beganMs, groups });
        return;
      }
      case 'walk':
        return this.#walkSockets();
      case 'clients':
        return this.clients.connect();
      case 'packets':
        return this.clients.send();
      case 'sample':
        this.at(this.nowMs + 10, { kind: 'sample' });
        this.checks.noteApart();
        return;
      case 'recheck':
        this.#changed = true;
        return;
      case 'do':
        this.record(9, 'fault', item.what);
        item.act();
    }
  }

  sendBeat(beat: Heartbeat): void {
    const { chance, options } = this;
    if (this.cut[beat.from]?.[beat.to] !== 0 || !this.node(beat.from).up) return;
    const copies = options.duplicate > 0 && chance.is(options.duplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (options.loss > 0 && chance.is(options.loss)) continue;
      const slow = options.slow > 0 && chance.is(options.slow);
      const delay = slow
        ? chance.between(0, options.slowMs)
        : 0.05 + chance.unit() * options.delayMs;
      this.at(this.nowMs + delay, { kind: 'beat', beat });
    }
  }

  channelOk(from: number, to: number): boolean {
    return (
      this.cut[from]?.[to] === 0 &&
      this.cut[to]?.[from] === 0 &&
      this.node(from).agentUp &&
      this.node(to).agentUp &&
      this.node(from).up &&
      this.node(to).up &&
      this.nowMs >= (this.upAt[from]?.[to] ?? 0)
    );
  }

  sendMessage(from: number, to: number, message: Message): void {
    if (message.kind === 'view') this.checks.name(message.view);
    if (!this.channelOk(from, to)) return;
    const row = this.lastDelivery[from];
    if (row === undefined) return;
    const at = Math.max(row[to] ?? 0, this.nowMs + 0.1 + this.chance.unit() * this.options.delayMs);
    row[to] = at;
    const connection = this.connection[from]?.[to] ?? 0;
    this.at(at, { kind: 'message', from, to, connection, message });
  }

  #deliver(item: Happening & { readonly kind: 'message' }): void {
    if (this.connection[item.from]?.[item.to] !== item.connection) return;
    if (!this.node(item.to).agentUp || !this.node(item.to).up) return;
    const node = this.node(item.to);
    node.take({ kind: 'message', nowMs: node.nowMs, from: item.from, message: item.message });
  }

  /** All connections of a node break; new ones come up a moment after they can. */
  breakChannels(id: number): void {
    for (let other = 0; other < this.nodes.length; other++) this.breakChannel(id, other);
  }

  breakChannel(a: number, b: number): void {
    const up = this.nowMs + this.chance.between(5, 250);
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const row = this.connection[from];
      if (row !== undefined) row[to] = (row[to] ?? 0) + 1;
      const ups = this.upAt[from];
      if (ups !== undefined) ups[to] = up;
    }
  }

  setCut(from: number, to: number, on: boolean): void {
    const row = this.cut[from];
    if (row !== undefined) row[to] = (row[to] ?? 0) + (on ? 1 : -1);
    this.breakChannel(from, to);
  }

  filterChanged(): void {
    this.#changed = true;
  }

  #walkSockets(): void {
    for (const node of this.nodes) {
      if (node.state.held.some((map) => map.some((byte) => byte !== 0))) node.walk();
    }
    this.at(this.nowMs + 500, { kind: 'walk' });
  }
}
