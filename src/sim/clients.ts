/** The clients of the simulated world, and what they must never see. */
import { bucketCount, tableFlag } from '../core/farm-types.ts';
import { Violation } from './kit.ts';
import type { SimNode } from './node.ts';
import type { World } from './world.ts';

export class Clients {
  readonly #world: World;
  /** Off where connections are given up early by design (a short drain timeout). */
  checkHolders = true;

  constructor(world: World) {
    this.#world = world;
  }

  /** A client in the network part of a random node opens a connection. */
  connect(): void {
    this.#world.at(this.#world.nowMs + this.#world.chance.between(5, 60), { kind: 'clients' });
    const client = this.#world.chance.below(this.#world.nodes.length);
    const bucket = this.#world.chance.below(bucketCount);
    const group = this.#world.chance.below(this.#world.node(0).config.groups.length);
    const endMs = this.#world.nowMs + this.#world.chance.between(10, 8000);
    let answers = 0;
    for (const node of this.#world.nodes) {
      if (this.#world.side[node.id] !== this.#world.side[client] || !node.leaseLive) continue;
      if ((node.flagsOf(group, bucket) & tableFlag.own) === 0) continue;
      this.#checkGate(node);
      if (++answers === 1) node.flows.push({ group, bucket, client, upset: node.upset, endMs });
    }
  }

  #checkGate(node: SimNode): void {
    const busy = node.agentPaused || !node.agentUp || node.keeperPaused;
    // An agent that starts, or goes on, learns of it then: its filter goes on until it is told.
    const knownMs = Math.max(node.gateShutMs, node.agentSinceMs);
    if (!node.gate && !busy && this.#world.nowMs - knownMs > 10) {
      throw new Violation('open though not ready', `n${node.id}`);
    }
  }

  /** Each connection sends a packet: every server in its part of the network sees it. */
  send(): void {
    this.#world.at(this.#world.nowMs + 60, { kind: 'packets' });
    for (const holder of this.#world.nodes) {
      holder.flows = holder.flows.filter((flow) => flow.endMs > this.#world.nowMs);
      if (!holder.up || holder.frozen) continue;
      for (const flow of holder.flows) {
        const side = this.#world.side[flow.client];
        if (this.#world.side[holder.id] !== side) continue;
        for (const other of this.#world.nodes) {
          if (other === holder || this.#world.side[other.id] !== side || !other.leaseLive) continue;
          const flags = other.flagsOf(flow.group, flow.bucket);
          if ((flags & tableFlag.own) === 0 || (flags & tableFlag.quiet) !== 0) continue;
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
}
