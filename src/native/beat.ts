/**
 * The typed face of native/beat: heartbeats, failure detection and lease renewal.
 * The heartbeat thread lives in the `holdfastd` process, which is also the parent that restarts
 * the agent; the agent talks to it through shared memory and one stream socket (its doorbell),
 * so a dead or stopped agent costs no heartbeat.
 */

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

/** Bits of BeatModule.flags, carried in each heartbeat. */
export const moduleFlag = { running: 1, ready: 2, draining: 4 } as const;

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
}

export type Reach =
  /** Nothing heard on any network past the freshness points. */
  | 'silent'
  /** We hear it, it does not hear us. */
  | 'heard'
  /** Both directions work. */
  | 'both';

export type BeatEvent =
  | {
      readonly kind: 'peer';
      readonly node: number;
      readonly reach: Reach;
      /** Random number of the peer's boot of holdfastd; a new one means it restarted. */
      readonly boot: bigint;
      /** The peer says that its agent has not confirmed life in time. */
      readonly hung: boolean;
      /** CLOCK_BOOTTIME of the change, ms. */
      readonly atMs: number;
    }
  | {
      /** A peer's module summary changed. */
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
      /** Leases were withheld or granted again, with the reason. */
      readonly kind: 'lease';
      readonly renewing: boolean;
      readonly why: 'agent_hung' | 'not_echoed' | 'excluded_by_view' | 'ok';
      readonly atMs: number;
    };

/** Counters of the heartbeat thread; names are metric labels. */
export interface BeatStats {
  readonly sent: number;
  readonly received: number;
  readonly badMac: number;
  readonly replayed: number;
  readonly malformed: number;
  readonly foreign: number;
  readonly eventsLost: number;
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
    readonly longestBurst: number;
  }[];
}

export interface Beat {
  configure(config: BeatConfig): void;
  /** Sets the module part of the heartbeats and the leases to renew; goes out at once. */
  announce(modules: readonly BeatModule[]): void;
  /** The agent is alive; call at least every agentDeadlineMs / 4. */
  confirm(): void;
  /** Called with each batch of events, in order. */
  onEvents(listener: (events: readonly BeatEvent[]) => void): void;
  /** The process that hosts the heartbeat thread is gone: the agent must end. */
  onLost(listener: () => void): void;
  stats(): BeatStats;
  /** CLOCK_BOOTTIME in ms, with a fraction. */
  nowMs(): number;
  close(): void;
}
