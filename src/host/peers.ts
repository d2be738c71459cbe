/**
 * What this node knows of the others: reachability from the heartbeats, and what they say of
 * themselves over the peer channel. One place, so that modules, status and alerts agree.
 */
import { z } from 'zod';
import type { ClusterConfig } from '../config/model.ts';
import type { BeatEvent, BeatStats, Reach } from '../native/beat.ts';
import type { Alerts } from './alerts.ts';
import type { PeerStatus } from './face.ts';
import { macSchema, type MacFile, type NodeMacs } from './runtime.ts';

/** Greets a peer on each new connection; everything in it may differ between starts. */
export interface Hello {
  readonly kind: 'hello';
  readonly version: string;
  readonly signature: string;
  /** MAC of the sender's device on each lan, by lan name. */
  readonly macs: Readonly<Record<string, string>>;
}

export const helloSchema = z.object({
  kind: z.literal('hello'),
  version: z.string().max(64),
  signature: z.string().max(128),
  macs: z.record(z.string().max(64), macSchema),
});

/** Module part of a peer's heartbeats. */
export interface PeerModule {
  readonly flags: number;
  readonly viewEpoch: number;
  readonly viewMembers: bigint;
}

interface Peer {
  /** Heartbeats have said something of it, if only that it is silent. */
  known: boolean;
  reach: Reach;
  boot: bigint;
  hung: boolean;
  heardMs: number;
  connected: boolean;
  hello: Hello | null;
  readonly lansDown: Set<number>;
  /** Runs while the peer is heard and does not hear us. */
  oneWay: NodeJS.Timeout | null;
  readonly modules: Map<number, PeerModule>;
}

/** How long one direction may be missing before it is an alert. */
const oneWayMs = 1000;

/** The networks that a node is on, in the order in which its heartbeats count them. */
export function lansOf(cluster: ClusterConfig, node: number): ClusterConfig['lans'] {
  return cluster.lans.filter((lan) => lan.nodes.some((at) => at.node === node));
}

export class PeerTable {
  readonly #me: number;
  readonly #alerts: Alerts;
  readonly #peers = new Map<number, Peer>();
  readonly #macFile: MacFile;
  #macs: NodeMacs;
  #cluster: ClusterConfig;

  constructor(cluster: ClusterConfig, me: number, alerts: Alerts, macFile: MacFile) {
    this.#cluster = cluster;
    this.#me = me;
    this.#alerts = alerts;
    this.#macFile = macFile;
    this.#macs = macFile.read() ?? {};
    this.setCluster(cluster);
  }

  /** Nodes that left the cluster are forgotten; new ones start silent. */
  setCluster(cluster: ClusterConfig): void {
    this.#cluster = cluster;
    const ids = new Set(cluster.nodes.map((node) => node.id));
    for (const id of this.#peers.keys()) {
      if (ids.has(id)) continue;
      this.#peers.delete(id);
      const { [id]: _gone, ...macs } = this.#macs;
      this.#macs = macs;
      this.#clearAlerts(id);
    }
    for (const id of ids)
      if (id !== this.#me && !this.#peers.has(id)) this.#peers.set(id, newPeer());
    for (const id of this.#peers.keys()) this.#checkHello(id);
  }

  /** Takes one heartbeat event in; false when it speaks of an unknown node. */
  onBeat(event: Exclude<BeatEvent, { kind: 'lease' | 'fault' }>): boolean {
    const peer = this.#peers.get(event.node);
    if (peer === undefined) return false;
    switch (event.kind) {
      case 'peer':
        peer.known = true;
        peer.reach = event.reach;
        peer.boot = event.boot;
        peer.hung = event.hung;
        peer.heardMs = event.heardMs;
        this.#alerts.set(
          `peer.${event.node}.hung`,
          event.hung && event.reach !== 'silent',
          'critical',
          `the agent of ${this.#name(event.node)} gives no sign of life; its leases are withheld`,
        );
        this.#checkReach(event.node, peer);
        return true;
      case 'lan': {
        if (event.up) peer.lansDown.delete(event.lan);
        else peer.lansDown.add(event.lan);
        this.#checkLans(event.node, peer);
        return true;
      }
      case 'module':
        peer.modules.set(event.key, {
          flags: event.flags,
          viewEpoch: event.viewEpoch,
          viewMembers: event.viewMembers,
        });
        return true;
    }
  }

  onConnection(node: number, connected: boolean): void {
    const peer = this.#peers.get(node);
    if (peer === undefined) return;
    peer.connected = connected;
    this.#checkReach(node, peer);
  }

  onHello(node: number, hello: Hello): void {
    const peer = this.#peers.get(node);
    if (peer === undefined) return;
    peer.hello = hello;
    this.#checkHello(node);
    this.#keepMacs(node, hello.macs);
  }

  #keepMacs(node: number, macs: Hello['macs']): void {
    if (JSON.stringify(this.#macs[node]) === JSON.stringify(macs)) return;
    this.#macs = { ...this.#macs, [node]: macs };
    let reason = '';
    try {
      this.#macFile.write(this.#macs);
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
    }
    const message = `what peers said of their devices cannot be kept in /run: ${reason}`;
    this.#alerts.set('peers.runtime', reason !== '', 'critical', message);
  }

  /** True once the heartbeats have spoken of every peer. */
  get complete(): boolean {
    return [...this.#peers.values()].every((peer) => peer.known);
  }

  /** Every peer with its state, for a module that starts. */
  *entries(): IterableIterator<readonly [number, Readonly<Omit<Peer, 'lansDown' | 'oneWay'>>]> {
    yield* this.#peers;
  }

  /** MACs of the nodes on a lan, by node id. */
  macs(lan: string, own: string): readonly (string | null)[] {
    const macs: (string | null)[] = [];
    for (let id = 0; id <= Math.max(this.#me, ...this.#peers.keys()); id++) {
      macs.push(id === this.#me ? own : (this.#macs[id]?.[lan] ?? null));
    }
    return macs;
  }

  /** This node first, then the others by id. */
  status(stats: BeatStats | null): readonly PeerStatus[] {
    return this.#cluster.nodes.map((node): PeerStatus => {
      const peer = this.#peers.get(node.id);
      const own = lansOf(this.#cluster, this.#me);
      const lans = lansOf(this.#cluster, node.id);
      return {
        node: node.name,
        id: node.id,
        reach: peer?.reach ?? 'self',
        connected: peer?.connected ?? true,
        sameConfig: peer === undefined ? true : this.#sameConfig(peer),
        lans: lans.map((lan) => {
          const index = own.indexOf(lan);
          const seen = stats?.peers.find((entry) => entry.node === node.id && entry.lan === index);
          return {
            name: lan.name,
            up: peer === undefined || (seen?.up ?? false),
            rttUs: seen?.rttUs ?? 0,
          };
        }),
      };
    });
  }

  #checkReach(node: number, peer: Peer): void {
    const name = this.#name(node);
    if (peer.oneWay !== null) clearTimeout(peer.oneWay);
    peer.oneWay = null;
    const id = `peer.${node}.oneway`;
    if (peer.reach === 'heard') {
      const text = `${name} is heard but does not hear this node: one direction of the network fails`;
      // Whoever starts is heard a moment before it hears; only what lasts is worth a word.
      peer.oneWay = setTimeout(() => this.#alerts.raise(id, 'critical', text), oneWayMs);
      peer.oneWay.unref();
    } else this.#alerts.clear(id);
    this.#checkLans(node, peer);
  }

  /** A peer that is gone altogether is a matter of the modules' views, not of one network. */
  #checkLans(node: number, peer: Peer): void {
    const shared = lansOf(this.#cluster, this.#me).filter((lan) =>
      lan.nodes.some((at) => at.node === node),
    );
    const isPartly = peer.reach !== 'silent' && peer.lansDown.size < shared.length;
    for (const [index, lan] of lansOf(this.#cluster, this.#me).entries()) {
      this.#alerts.set(
        `lan.${lan.name}.${node}`,
        peer.lansDown.has(index) && isPartly,
        'warning',
        `network ${lan.name} to ${this.#name(node)} is down; another network still carries heartbeats`,
      );
    }
  }

  #checkHello(node: number): void {
    const peer = this.#peers.get(node);
    if (peer === undefined) return;
    this.#alerts.set(
      `peer.${node}.config`,
      this.#sameConfig(peer) === false,
      'warning',
      `${this.#name(node)} has another cluster.xml than this node`,
    );
  }

  #sameConfig(peer: Peer): boolean | null {
    return peer.hello === null ? null : peer.hello.signature === this.#cluster.signature;
  }

  #clearAlerts(node: number): void {
    for (const { id } of this.#alerts.list()) {
      if (id.startsWith(`peer.${node}.`) || (id.startsWith('lan.') && id.endsWith(`.${node}`))) {
        this.#alerts.clear(id);
      }
    }
  }

  #name(node: number): string {
    return this.#cluster.nodes.find((entry) => entry.id === node)?.name ?? `node ${node}`;
  }
}

function newPeer(): Peer {
  return {
    known: false,
    reach: 'silent',
    boot: 0n,
    hung: false,
    heardMs: -1,
    connected: false,
    hello: null,
    lansDown: new Set(),
    oneWay: null,
    modules: new Map(),
  };
}
