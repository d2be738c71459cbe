/** What must hold in the simulated world: after every event, and when all faults are over. */
import type { View } from '../core/farm.ts';
import { isBetter, nameOf } from '../core/farm-state.ts';
import { bucketCount, nobody, tableFlag } from '../core/farm-types.ts';
import { Violation } from './kit.ts';
import type { SimNode } from './node.ts';
import type { World } from './world.ts';

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
export class Checks {
  readonly world: World;
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
  readonly #views = new Map<string, View>();

  constructor(world: World, count: number) {
    this.world = world;
    const square = (value: number): number[][] =>
      Array.from({ length: count }, () => Array.from({ length: count }, () => value));
    this.heardAt = square(Number.NEGATIVE_INFINITY);
    this.apartAt = square(0);
    this.farAt = square(0);
    this.bothSince = square(0);
  }

  heard(from: number, to: number): void {
    const row = this.heardAt[from];
    if (row === undefined) return;
    if (this.world.nowMs - (row[to] ?? 0) >= directMs) this.noteApart();
    row[to] = this.world.nowMs;
  }

  /** Can news pass now from one to the other? An edge: a heartbeat in the last two intervals. */
  #reachable(): number[] {
    const limit = this.world.nowMs - directMs;
    const masks = this.world.nodes.map((node, from) => {
      let mask = 1 << from;
      // News between nodes that do not hear each other is passed on by agents.
      if (!passesNews(node)) return mask;
      this.world.nodes.forEach((other, to) => {
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

  noteApart(): void {
    const masks = this.#reachable();
    const limit = this.world.nowMs - directMs;
    for (let i = 0; i < masks.length; i++) {
      for (let j = 0; j < masks.length; j++) {
        const linked = ((((masks[i] ?? 0) >> j) | ((masks[j] ?? 0) >> i)) & 1) === 1;
        const apart = this.apartAt[i];
        if (!linked && apart !== undefined) apart[j] = this.world.nowMs;
        const near = Math.max(this.heardAt[i]?.[j] ?? 0, this.heardAt[j]?.[i] ?? 0) >= limit;
        const far = this.farAt[i];
        if (!near && far !== undefined) far[j] = this.world.nowMs;
      }
    }
  }

  /** Invariant 1: no bucket with two acceptors that could know of each other. */
  owners(): void {
    for (const a of this.world.nodes) {
      for (const b of this.world.nodes) if (a.id < b.id) this.#pair(a, b);
    }
  }

  #pair(a: SimNode, b: SimNode): void {
    const since = this.bothSince[a.id];
    if (since === undefined) return;
    const meet = a.leaseLive && b.leaseLive && this.world.side[a.id] === this.world.side[b.id];
    const bucket = meet ? commonBucket(a, b) : -1;
    if (bucket < 0) {
      if (since[b.id] !== 0) this.#noteLongest(a, b, since[b.id] ?? 0);
      since[b.id] = 0;
      return;
    }
    this.noteApart();
    const began = (since[b.id] ||= this.world.nowMs);
    const near = this.world.nowMs - (this.farAt[a.id]?.[b.id] ?? 0);
    const linked = this.world.nowMs - Math.max(began, this.apartAt[a.id]?.[b.id] ?? 0);
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
    this.world.at(this.world.nowMs + Math.min(nearMs - near, farMs - linked) + 0.1, {
      kind: 'recheck',
    });
  }

  #noteLongest(a: SimNode, b: SimNode, began: number): void {
    const near = this.world.nowMs - Math.max(began, this.farAt[a.id]?.[b.id] ?? 0);
    const linked = this.world.nowMs - Math.max(began, this.apartAt[a.id]?.[b.id] ?? 0);
    this.longestNearMs = Math.max(this.longestNearMs, near);
    this.longestFarMs = Math.max(this.longestFarMs, linked);
  }

  name(view: View): void {
    const name = `${view.epoch}.${view.leader}`;
    const known = this.#views.get(name);
    if ((view.members & ((1n << BigInt(view.leader)) - 1n)) !== 0n) {
      throw new Violation('a member below the leader', name);
    }
    if (known === undefined) {
      this.#views.set(name, view);
      const before = this.#views.get(`${view.epoch - 1}.${view.leader}`);
      if (before !== undefined)
        checkMoves(before, view, (g, b, node) => this.#servesAlone(g, b, node));
    } else if (known !== view) throw new Violation('one name, two views', name);
  }

  /** Is a node's filter the only one in the whole world that lets new clients of a bucket in? */
  #servesAlone(group: number, bucket: number, id: number): boolean {
    const { own } = tableFlag;
    return this.world.nodes.every(
      (node) => ((node.flagsOf(group, bucket) & own) !== 0) === (node.id === id),
    );
  }

  viewInstalled(node: SimNode, view: View | null): void {
    if (view === null) return;
    this.name(view);
    if (node.installedView !== null && isBetter(node.installedView, nameOf(view))) {
      throw new Violation(
        'view goes back',
        `n${node.id} ${node.installedView.epoch} -> ${view.epoch}`,
      );
    }
  }

  /**
   * What holds with a link cut for good: the best view among those with a lease serves each bucket
   * exactly once; the node that the cut leaves out is silent.
   */
  unserved(): string | null {
    const live = this.world.nodes.filter((node) => node.leaseLive && node.installedView !== null);
    let best: View | null = null;
    for (const node of live) {
      if (node.installedView !== null && isBetter(node.installedView, nameOf(best))) {
        best = node.installedView;
      }
    }
    if (best === null) return 'nobody has a lease';
    for (let group = 0; group < best.owners.length; group++) {
      const total = Object.values(best.powers[group] ?? {}).reduce((sum, power) => sum + power, 0);
      const wants = this.world.nodes.some((node) => this.#power(node, group) > 0);
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
    const running = this.world.nodes.filter((node) => node.up);
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
