/**
 * The world of the simulated farm: time, network, clients; and what must hold in it. Everything is
 * drawn from one seed and runs in one thread: a seed is a replay.
 */
import type { FarmConfig, FarmEffect, FarmEvent, Message, View } from '../core/farm.ts';
import type { FarmRules } from '../core/farm-rules.ts';
import { bucketCount, nobody, tableFlag } from '../core/farm-types.ts';
import { isBetter, nameOf } from '../core/farm-state.ts';
import { Agenda, Chance } from './kit.ts';
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

/** What must never happen, happened. */
export class Violation extends Error {
  readonly rule: string;

  constructor(rule: string, text: string) {
    super(`${rule}: ${text}`);
    this.name = 'Violation';
    this.rule = rule;
  }
}

/**
 * Two servers may both answer while no news can pass between them (each side of a partition serves),
 * and for so long after a link is back. Nowhere else, not for a moment.
 *
 * nearMs, where one hears the other: if only one direction came back, the one that hears needs
 * `suspect` to see that it is not heard, waits three heartbeats for the other direction, and one
 * more may pass before the first word.
 * farMs, where only a third node hears both: it follows the lower of the two when its channel is up
 * again (up to 250 ms here), is believed after `suspect` and two heartbeats, and its word excludes
 * the other.
 */
export const nearMs = 400;
export const farMs = 1000;
/** A link carries news while a heartbeat came over it within two intervals (by the slowest clock). */
const directMs = 2 * 50 * 0.98;
const traceLines = 120;

export class World {
  readonly chance: Chance;
  options: NetworkOptions;
  readonly nodes: SimNode[] = [];
  readonly agenda = new Agenda<Happening>();
  nowMs = 0;
  events = 0;
  steps = 0;
  hash = 0;
  readonly trace: string[] = [];
  /** Heartbeats and channel from i to j are cut while > 0. */
  readonly cut: number[][];
  /** Part of the network that a node's clients are in. */
  readonly side: number[];
  readonly connection: number[][];
  readonly upAt: number[][];
  readonly lastDelivery: number[][];
  readonly heardAt: number[][];
  /** Last time at which news could pass in neither direction. */
  readonly apartAt: number[][];
  /** Last time at which neither heard the other directly. */
  readonly farAt: number[][];
  /** Since when two nodes could both answer a client; 0: they cannot. */
  readonly bothSince: number[][];
  /** Longest times for which two nodes both answered after news could pass: directly, by others. */
  longestNearMs = 0;
  longestFarMs = 0;
  readonly views = new Map<string, View>();
  checkHolders = true;
  #changed = false;
  flowsKept = 0;
  resets = 0;
  lostSyns = 0;
  syns = 0;

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
    this.heardAt = square(Number.NEGATIVE_INFINITY);
    this.apartAt = square(0);
    this.farAt = square(0);
    this.bothSince = square(0);
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
    this.trace.push(`${this.nowMs.toFixed(1)} n${node} ${kind} ${text}`);
    if (this.trace.length > 4 * traceLines) this.trace.splice(0, 2 * traceLines);
    this.#mix(text.length * 64 + node);
  }

  note(node: number, event: FarmEvent): void {
    this.steps++;
    this.#mix(node * 16 + event.kind.length);
  }

  #mix(value: number): void {
    this.hash = (Math.imul(this.hash ^ value, 0x01000193) ^ Math.floor(this.nowMs * 1000)) >>> 0;
  }

  lastTrace(): string[] {
    return this.trace.slice(-traceLines);
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
      if (this.#changed) this.#checkOwners();
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
        return this.#newClient();
      case 'packets':
        return this.#sendPackets();
      case 'sample':
        this.at(this.nowMs + 10, { kind: 'sample' });
        this.#noteApart();
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

  heard(from: number, to: number): void {
    const row = this.heardAt[from];
    if (row === undefined) return;
    if (this.nowMs - (row[to] ?? 0) >= directMs) this.#noteApart();
    row[to] = this.nowMs;
  }

  /** Can news pass now from one to the other? An edge: a heartbeat in the last two intervals. */
  #reachable(): number[] {
    const limit = this.nowMs - directMs;
    const masks = this.nodes.map((node, from) => {
      let mask = 1 << from;
      // News between nodes that do not hear each other is passed on by agents.
      if (!passesNews(node)) return mask;
      this.nodes.forEach((other, to) => {
        if (passesNews(other) && (this.heardAt[from]?.[to] ?? 0) >= limit) mask |= 1 << to;
      });
      return mask;
    });
    for (let round = 0; round < masks.length; round++) {
      masks.forEach((mask, i) => {
        let all = mask;
        masks.forEach((more, j) => {
          if (((mask >> j) & 1) === 1) all |= more;
        });
        masks[i] = all;
      });
    }
    return masks;
  }

  #noteApart(): void {
    const masks = this.#reachable();
    const limit = this.nowMs - directMs;
    for (let i = 0; i < masks.length; i++) {
      for (let j = 0; j < masks.length; j++) {
        const linked = ((((masks[i] ?? 0) >> j) | ((masks[j] ?? 0) >> i)) & 1) === 1;
        const apart = this.apartAt[i];
        if (!linked && apart !== undefined) apart[j] = this.nowMs;
        const near = Math.max(this.heardAt[i]?.[j] ?? 0, this.heardAt[j]?.[i] ?? 0) >= limit;
        const far = this.farAt[i];
        if (!near && far !== undefined) far[j] = this.nowMs;
      }
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
    if (message.kind === 'view') this.#checkName(message.view);
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

  /** Invariant 1: no bucket with two acceptors that could know of each other. */
  #checkOwners(): void {
    this.#changed = false;
    for (const a of this.nodes) {
      for (const b of this.nodes) if (a.id < b.id) this.#checkPair(a, b);
    }
  }

  #checkPair(a: SimNode, b: SimNode): void {
    const since = this.bothSince[a.id];
    if (since === undefined) return;
    const meet = a.leaseLive && b.leaseLive && this.side[a.id] === this.side[b.id];
    const bucket = meet ? commonBucket(a, b) : -1;
    if (bucket < 0) {
      if (since[b.id] !== 0) this.#noteLongest(a, b, since[b.id] ?? 0);
      since[b.id] = 0;
      return;
    }
    this.#noteApart();
    const began = (since[b.id] ||= this.nowMs);
    const near = this.nowMs - (this.farAt[a.id]?.[b.id] ?? 0);
    const linked = this.nowMs - Math.max(began, this.apartAt[a.id]?.[b.id] ?? 0);
    if (near > nearMs || linked > farMs) {
      const touch =
        near > nearMs
          ? `hear each other for ${near.toFixed(1)}`
          : `could know for ${linked.toFixed(1)}`;
      throw new Violation(
        'two answers',
        `bucket ${bucket} at n${a.id} and n${b.id}, which ${touch} ms`,
      );
    }
    this.at(this.nowMs + Math.min(nearMs - near, farMs - linked) + 0.1, { kind: 'recheck' });
  }

  #noteLongest(a: SimNode, b: SimNode, began: number): void {
    const near = this.nowMs - Math.max(began, this.farAt[a.id]?.[b.id] ?? 0);
    const linked = this.nowMs - Math.max(began, this.apartAt[a.id]?.[b.id] ?? 0);
    this.longestNearMs = Math.max(this.longestNearMs, near);
    this.longestFarMs = Math.max(this.longestFarMs, linked);
  }

  #checkName(view: View): void {
    const name = `${view.epoch}.${view.leader}`;
    const known = this.views.get(name);
    if (known === undefined) {
      this.views.set(name, view);
      const before = this.views.get(`${view.epoch - 1}.${view.leader}`);
      if (before !== undefined)
        checkMoves(before, view, (g, b, node) => this.#servesAlone(g, b, node));
    } else if (known !== view) throw new Violation('one name, two views', name);
  }

  /** Is a node's filter the only one in the whole world that lets new clients of a bucket in? */
  #servesAlone(group: number, bucket: number, id: number): boolean {
    const { own } = tableFlag;
    return this.nodes.every(
      (node) => ((node.flagsOf(group, bucket) & own) !== 0) === (node.id === id),
    );
  }

  viewInstalled(node: SimNode, view: View | null): void {
    if (view === null) return;
    this.#checkName(view);
    if (node.installedView !== null && isBetter(node.installedView, nameOf(view))) {
      throw new Violation(
        'view goes back',
        `n${node.id} ${node.installedView.epoch} -> ${view.epoch}`,
      );
    }
  }

  #walkSockets(): void {
    for (const node of this.nodes) {
      if (node.state.held.some((map) => map.some((byte) => byte !== 0))) node.walk();
    }
    this.at(this.nowMs + 500, { kind: 'walk' });
  }

  /** A client in the network part of a random node opens a connection. */
  #newClient(): void {
    this.at(this.nowMs + this.chance.between(5, 60), { kind: 'clients' });
    const client = this.chance.below(this.nodes.length);
    const bucket = this.chance.below(bucketCount);
    const group = this.chance.below(this.node(0).config.groups.length);
    const endMs = this.nowMs + this.chance.between(10, 8000);
    this.syns++;
    let answers = 0;
    for (const node of this.nodes) {
      if (this.side[node.id] !== this.side[client] || !node.leaseLive) continue;
      if ((node.flagsOf(group, bucket) & tableFlag.own) === 0) continue;
      this.#checkGate(node);
      if (++answers === 1) node.flows.push({ group, bucket, client, upset: node.upset, endMs });
    }
    if (answers === 0) this.lostSyns++;
  }

  #checkGate(node: SimNode): void {
    const busy = node.agentPaused || !node.agentUp || node.keeperPaused;
    if (!node.gate && !busy && this.nowMs - node.gateShutMs > 10) {
      throw new Violation('open though not ready', `n${node.id}`);
    }
  }

  /** Each connection sends a packet: every server in its part of the network sees it. */
  #sendPackets(): void {
    this.at(this.nowMs + 60, { kind: 'packets' });
    for (const holder of this.nodes) {
      holder.flows = holder.flows.filter((flow) => flow.endMs > this.nowMs);
      if (!holder.up || holder.frozen) continue;
      for (const flow of holder.flows) {
        const side = this.side[flow.client];
        if (this.side[holder.id] !== side) continue;
        for (const other of this.nodes) {
          if (other === holder || this.side[other.id] !== side || !other.leaseLive) continue;
          const flags = other.flagsOf(flow.group, flow.bucket);
          if ((flags & tableFlag.own) === 0 || (flags & tableFlag.quiet) !== 0) continue;
          this.resets++;
          this.#checkReset(holder, other, flow.upset === holder.upset, flow.bucket);
        }
      }
    }
  }

  /** A reset is right only where the holder was dead, shut out or hung for the one that resets. */
  #checkReset(holder: SimNode, other: SimNode, undisturbed: boolean, bucket: number): void {
    if (!this.checkHolders || !undisturbed || !holder.leaseLive) return;
    const together =
      holder.installedView !== null &&
      other.installedView === holder.installedView &&
      ((holder.installedView.members >> BigInt(other.id)) & 1n) === 1n;
    if (together) {
      throw new Violation(
        'reset of a live connection',
        `bucket ${bucket}: held by n${holder.id}, reset by n${other.id}`,
      );
    }
  }

  /**
   * What holds with a link cut for good: the best view among those with a lease serves each bucket
   * exactly once; the node that the cut leaves out is silent.
   */
  unserved(): string | null {
    const live = this.nodes.filter((node) => node.leaseLive && node.installedView !== null);
    let best: View | null = null;
    for (const node of live) {
      if (node.installedView !== null && isBetter(node.installedView, nameOf(best))) {
        best = node.installedView;
      }
    }
    if (best === null) return 'nobody has a lease';
    for (let group = 0; group < best.owners.length; group++) {
      const total = Object.values(best.powers[group] ?? {}).reduce((sum, power) => sum + power, 0);
      const wants = this.nodes.some((node) => this.#power(node, group) > 0);
      if (total === 0) {
        if (wants) return `view ${best.epoch} gives group ${group} to nobody`;
        continue;
      }
      for (let b = 0; b < bucketCount; b++) {
        const owners = live.filter((node) => (node.flagsOf(group, b) & tableFlag.own) !== 0);
        if (owners.length !== 1) return `bucket ${b} of group ${group} has ${owners.length} owners`;
      }
    }
    return null;
  }

  #power(node: SimNode, group: number): number {
    const { state } = node;
    if (!state.ready || state.draining) return 0;
    return state.powers[group] ?? state.config.groups[group]?.powers[node.id] ?? 0;
  }

  /** All that liveness asks for, or the first thing that is missing. */
  unsettled(): string | null {
    const running = this.nodes.filter((node) => node.up);
    const first = running[0];
    if (first === undefined) return 'no node is up';
    for (const node of running) {
      if (node.installedView === null || node.installedView !== first.installedView) {
        return `n${node.id} has view ${node.installedView?.epoch}, n${first.id} ${first.installedView?.epoch}`;
      }
      if (!node.leaseLive) return `n${node.id} has no lease`;
      if ((((first.installedView?.members ?? 0n) >> BigInt(node.id)) & 1n) === 0n)
        return `n${node.id} is left out`;
      if (node.state.installDone !== node.state.install) return `n${node.id} is installing`;
    }
    for (let group = 0; group < first.config.groups.length; group++) {
      const wrong = this.#wrongShares(running, group);
      if (wrong !== null) return wrong;
    }
    return null;
  }

  #wrongShares(running: readonly SimNode[], group: number): string | null {
    const power = (node: SimNode): number => this.#power(node, group);
    let total = 0;
    for (const node of running) total += power(node);
    const owners = new Uint8Array(bucketCount);
    for (const node of running) {
      let owned = 0;
      for (let b = 0; b < bucketCount; b++) {
        if ((node.flagsOf(group, b) & tableFlag.own) === 0) continue;
        owned++;
        owners[b] = (owners[b] ?? 0) + 1;
      }
      const due = total === 0 ? 0 : (power(node) * bucketCount) / total;
      if (Math.abs(owned - due) >= 1)
        return `n${node.id} owns ${owned} of group ${group}, due ${due.toFixed(1)}`;
    }
    if (total > 0 && owners.some((count) => count !== 1))
      return `a bucket of group ${group} without its one owner`;
    return null;
  }
}

function passesNews(node: SimNode): boolean {
  return node.agentUp && !node.agentPaused && node.state.role !== 'stopped';
}

/** Invariant: no server gives up more buckets than it must to come down to its share. */
function checkMoves(
  before: View,
  after: View,
  serves: (group: number, bucket: number, node: number) => boolean,
): void {
  for (const [g, owners] of after.owners.entries()) {
    const powers = after.powers[g] ?? {};
    let total = 0;
    for (const power of Object.values(powers)) total += power;
    const had = new Map<number, number>();
    const lost = new Map<number, number>();
    for (let b = 0; b < bucketCount; b++) {
      const node = before.owners[g]?.[b] ?? nobody;
      had.set(node, (had.get(node) ?? 0) + 1);
      if (owners[b] === node || !serves(g, b, node)) continue;
      lost.set(node, (lost.get(node) ?? 0) + 1);
    }
    for (const [node, count] of lost) {
      const power = powers[node] ?? 0;
      if (node === nobody || power === 0) continue;
      const due = Math.floor((power * bucketCount) / total);
      if (count > Math.max(0, (had.get(node) ?? 0) - due)) {
        throw new Violation('needless moves', `view ${after.epoch}: n${node} lost ${count}`);
      }
    }
  }
}

function commonBucket(a: SimNode, b: SimNode): number {
  for (const [g, mine] of a.filter.own.entries()) {
    const theirs = b.filter.own[g];
    if (theirs === undefined) continue;
    for (let i = 0; i < mine.length; i++) {
      const both = (mine[i] ?? 0) & (theirs[i] ?? 0);
      if (both !== 0) return i * 32 + (31 - Math.clz32(both & -both));
    }
  }
  return -1;
}
