/**
 * The typed face of native/beat: heartbeats, failure detection and lease renewal.
 * The heartbeat thread lives in the `holdfastd` process, which is also the parent that restarts
 * the agent; the agent talks to it through shared memory and one stream socket (its doorbell),
 * so a dead or stopped agent costs no heartbeat.
 */

import assert from 'node:assert';
import { Socket } from 'node:net';
import { HoldfastError } from '../errors.ts';
import { encodeConfigure, encodeModules, encodeSignal } from './beat-commands.ts';
import { decodeEvents, decodeStats, layout } from './beat-records.ts';
import { loadAddon } from './load.ts';

/** One peer on one network. */
export interface BeatAddress {
  readonly node: number;
  readonly addr: string;
}

/** One `<lan>` of cluster.xml as this node sees it. */
export interface BeatLan {
  readonly name: string;
  /** Own address on this network; the socket binds to it. */
  readonly local: string;
  readonly port: number;
  readonly peers: readonly BeatAddress[];
}

export interface BeatConfig {
  /** First 8 bytes of the configuration's identity, hex; heartbeats of another cluster are refused. */
  readonly clusterId: string;
  readonly me: number;
  /** HMAC-SHA256 key, 32 bytes. */
  readonly key: Uint8Array;
  readonly lans: readonly BeatLan[];
  readonly heartbeatMs: number;
  /** Silence on all networks after which a peer is suspect. */
  readonly suspectMs: number;
  readonly leaseMs: number;
  /** Leases are no longer renewed when the agent has not confirmed life for this long. */
  readonly agentDeadlineMs: number;
  /** Path of the pinned lease map; null: no leases yet. */
  readonly leaseMap: string | null;
}

/**
 * Bits of BeatModule.flags, carried in each heartbeat. consent is a mirror's: the lease of the other server may
 * live by this heartbeat, if it knows of an epoch that is as new.
 */
export const moduleFlag = { running: 1, ready: 2, draining: 4, consent: 8 } as const;

/** By what the leases of a module are renewed. */
export type BeatLease =
  /** Of a farm: by the view. */
  | { readonly rule: 'view' }
  /** Not at all: the slots are 0. */
  | { readonly rule: 'off' }
  /** As long as the agent confirms life, at least every leaseMs. */
  | { readonly rule: 'own'; readonly leaseMs: number }
  /**
   * To the send time of the newest own heartbeat that a consenting heartbeat of the peer echoes, plus leaseMs,
   * if that one tells of no later epoch than announced here.
   */
  | { readonly rule: 'peer'; readonly peer: number; readonly leaseMs: number };

/** What this node says of one module in each heartbeat. */
export interface BeatModule {
  /** fnv1a32 of the module's name. */
  readonly key: number;
  readonly flags: number;
  readonly viewEpoch: number;
  /** Members of that view, bit n = node id n. */
  readonly viewMembers: bigint;
  /** Lease slots renewed for this module; empty: none. */
  readonly leaseSlots: readonly number[];
  readonly lease: BeatLease;
}

export type Reach =
  /** Nothing heard on any network past the freshness points. */
  | 'silent'
  /** We hear it, it does not hear us. */
  | 'heard'
  /** Both directions work. */
  | 'both';

/**
 * After openBeat everything known comes as events first. A peer that was never heard gets its first
 * event (silent) suspectMs + heartbeatMs after it was configured; before, nothing is known of it.
 */
export type BeatEvent =
  | {
      readonly kind: 'peer';
      readonly node: number;
      readonly reach: Reach;
      /** Random number of the peer's boot of holdfastd; a new one means it restarted. */
      readonly boot: bigint;
      /** The peer says that its agent has not confirmed life in time. */
      readonly hung: boolean;
      /** Arrival (CLOCK_BOOTTIME, ms) of its newest heartbeat on any network; -1: never heard. */
      readonly heardMs: number;
      /** CLOCK_BOOTTIME of the change, ms. */
      readonly atMs: number;
    }
  | {
      /** A peer's module summary changed; all zero: the peer no longer has that module. */
      readonly kind: 'module';
      readonly node: number;
      readonly key: number;
      readonly flags: number;
      readonly viewEpoch: number;
      readonly viewMembers: bigint;
      readonly atMs: number;
    }
  | {
      /** One network to one peer went silent or came back. */
      readonly kind: 'lan';
      readonly node: number;
      readonly lan: number;
      readonly up: boolean;
      readonly atMs: number;
    }
  | {
      /**
       * The leases of one module were withheld or granted again, with the reason; by the rules own and peer:
       * ran out, or run again.
       */
      readonly kind: 'lease';
      /** Key of the module. */
      readonly key: number;
      readonly renewing: boolean;
      readonly why: LeaseWhy;
      readonly atMs: number;
    }
  | {
      /** Something of the configuration does not work; tried again each second. errno 0: it does now. */
      readonly kind: 'fault';
      readonly what: FaultWhat;
      /** Index into BeatConfig.lans; 0 for lease_map. */
      readonly lan: number;
      readonly errno: number;
      readonly atMs: number;
    };

export type LeaseWhy = 'ok' | 'agent_hung' | 'not_echoed' | 'excluded_by_view' | 'no_consent';
export type FaultWhat = 'bind' | 'send' | 'lease_map';

/** Counters of the heartbeat thread since holdfastd started; names are metric labels. */
export interface BeatStats {
  /** Random number of this boot of holdfastd. */
  readonly boot: bigint;
  readonly sent: number;
  readonly sendErrors: number;
  /** Heartbeats accepted. */
  readonly received: number;
  readonly badMac: number;
  readonly replayed: number;
  readonly malformed: number;
  /** Of another cluster, for another node or network. */
  readonly foreign: number;
  /** Authentic, of a boot of the peer that has not proven that it is alive now. */
  readonly unproven: number;
  readonly eventsLost: number;
  readonly bindRetries: number;
  readonly leasesRenewed: number;
  readonly agentRestarts: number;
  readonly worstLatenessUs: number;
  /** SCHED_FIFO and mlockall in force? */
  readonly realtime: boolean;
  readonly locked: boolean;
  readonly peers: readonly {
    readonly node: number;
    readonly lan: number;
    readonly up: boolean;
    readonly lastHeardMs: number;
    readonly received: number;
    readonly lost: number;
    readonly rttUs: number;
    readonly jitterUs: number;
    /** Most heartbeats lost in a row. */
    readonly longestBurst: number;
    /** The worst lateness of the peer's own timer in the last minute, as it says. */
    readonly peerLatenessUs: number;
  }[];
}

export interface Beat {
  configure(config: BeatConfig): void;
  /**
   * Sets the module part of the heartbeats and the leases to renew; goes out at once. When it returns, no
   * heartbeat that says anything older answers one that arrives from now on.
   */
  announce(modules: readonly BeatModule[]): void;
  /**
   * Resolves when the heartbeat thread acts by the newest announcement: leases that it withdrew are 0 and
   * heartbeats say the new. Never, when holdfastd is lost.
   */
  announced(): Promise<void>;
  /** The agent is alive; call at least every quarter of agentDeadlineMs, and of the leases by the rule own. */
  confirm(): void;
  /** Everything serves: tells the service manager (READY=1). */
  ready(): void;
  /** Called with each batch of events, in order. */
  onEvents(listener: (events: readonly BeatEvent[]) => void): void;
  /** Delivers what has arrived already, without waiting for the event loop to hear the doorbell. */
  poll(): void;
  /** The process that hosts the heartbeat thread is gone: the agent must end. */
  onLost(listener: () => void): void;
  stats(): BeatStats;
  /** CLOCK_BOOTTIME in ms, with a fraction. */
  nowMs(): number;
  close(): void;
}

/** What beat.node exports; each function is documented in native/beat/addon.cc. */
interface BeatAddon {
  readonly BeatClient: new (socket: number, shm: number) => BeatClient;
  nowMs(): number;
  readonly layout: Readonly<Record<string, number>>;
}

interface BeatClient {
  drain(buffer: Uint8Array): number;
  lost(): number;
  restart(): void;
  confirm(): void;
  announce(modules: Uint8Array): boolean;
  isAnnounced(): boolean;
  stats(buffer: Uint8Array): boolean;
  close(): void;
}

// Events per drain; the rest waits for the next turn of the event loop.
const batchSize = 256;

/**
 * Opens the agent's side of holdfastd: the descriptors that it passed (socket 3, shared memory 4).
 * Events that an earlier agent left are dropped; all that is known is sent again. Throws
 * HF-NATIVE-001 when the addon or the descriptors do not fit.
 */
export function openBeat(fds: { socket: number; shm: number } = { socket: 3, shm: 4 }): Beat {
  return new BeatOverShm(fds);
}

class BeatOverShm implements Beat {
  readonly #addon: BeatAddon;
  readonly #client: BeatClient;
  readonly #socket: Socket;
  readonly #events = new Uint8Array(batchSize * layout.event);
  readonly #stats = new Uint8Array(layout.stats);
  #listener: ((events: readonly BeatEvent[]) => void) | null = null;
  readonly #lostListeners: (() => void)[] = [];
  readonly #waiting: (() => void)[] = [];
  #eventsLost: number;
  #draining = false;
  #closed = false;

  constructor(fds: { socket: number; shm: number }) {
    this.#addon = loadAddon('beat') as BeatAddon;
    checkLayout(this.#addon.layout);
    try {
      this.#client = new this.#addon.BeatClient(fds.socket, fds.shm);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new HoldfastError('HF-NATIVE-001', { engine: 'beat', reason }, null, error);
    }
    this.#client.restart();
    this.#eventsLost = this.#client.lost();
    this.#client.confirm();
    this.#socket = new Socket({ fd: fds.socket, readable: true, writable: true });
    this.#socket.on('data', () => this.#drain());
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => this.#lost());
    this.#socket.write(encodeSignal('hello'));
  }

  configure(config: BeatConfig): void {
    this.#socket.write(encodeConfigure(config));
  }

  announce(modules: readonly BeatModule[]): void {
    if (this.#closed) return;
    assert(this.#client.announce(encodeModules(modules)), 'the shared memory takes it');
    this.#socket.write(encodeSignal('announce'));
  }

  async announced(): Promise<void> {
    if (this.#client.isAnnounced()) return;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  confirm(): void {
    this.#client.confirm();
  }

  ready(): void {
    this.#socket.write(encodeSignal('ready'));
  }

  onEvents(listener: (events: readonly BeatEvent[]) => void): void {
    this.#listener = listener;
    this.#drain();
  }

  poll(): void {
    this.#drain();
  }

  onLost(listener: () => void): void {
    this.#lostListeners.push(listener);
  }

  stats(): BeatStats {
    // On failure the copy of last time stands: counters a moment old.
    this.#client.stats(this.#stats);
    return decodeStats(this.#stats);
  }

  nowMs(): number {
    return this.#addon.nowMs();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroy();
    this.#client.close();
  }

  /** The thread rings after it took an announcement, whether there are events or not. */
  #settle(): void {
    if (this.#waiting.length === 0 || !this.#client.isAnnounced()) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #drain(): void {
    this.#take();
    this.#settle();
  }

  #take(): void {
    if (this.#listener === null || this.#draining || this.#closed) return;
    const count = this.#client.drain(this.#events);
    if (count === batchSize) {
      // More may wait: other work first, so that a flood of events does not stop the agent.
      this.#draining = true;
      setImmediate(() => {
        this.#draining = false;
        this.#drain();
      });
    }
    const lost = this.#client.lost();
    if (lost !== this.#eventsLost) {
      this.#eventsLost = lost;
      this.#socket.write(encodeSignal('hello'));
    }
    if (count > 0) this.#listener(decodeEvents(this.#events, count));
  }

  #lost(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#client.close();
    for (const listener of this.#lostListeners) listener();
  }
}

function checkLayout(built: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(layout)) {
    if (built[name] === value) continue;
    const reason = `it was built for another version (${name} ${built[name]}, expected ${value})`;
    throw new HoldfastError('HF-NATIVE-001', { engine: 'beat', reason });
  }
}
