/**
 * The words of the farm's membership machine: what goes in (events), what comes out (effects), what
 * travels between nodes (messages) and what is remembered (state). All of it is plain readonly data;
 * the only non-JSON values are bigint (node masks, bit n = node n) and Uint8Array (bucket tables).
 *
 * Times are milliseconds of one local monotonic clock (CLOCK_BOOTTIME) and come in with the events.
 */

/** Highest node id plus one; a node mask is one u64. */
export const nodeCountMax = 64;
export const bucketCount = 4096;
/** One bit per bucket: bit b is byte b >> 3, bit b & 7. */
export const bitmapBytes = bucketCount / 8;
/** Owner of a bucket that nobody serves; leader of a node that follows nobody. */
export const nobody = 255;
/** Bits of CompiledTable.flags; the same as native/filter's bucketFlag. */
export const tableFlag = { own: 1, hold: 2, quiet: 4 } as const;
/**
 * Bits of the module part of a heartbeat; the first three are native/beat's moduleFlag. open: the
 * filter of this node may accept new clients (its table owns a bucket).
 */
export const summaryFlag = { running: 1, ready: 2, draining: 4, open: 8 } as const;

export type Reach = 'silent' | 'heard' | 'both';

export interface FarmTiming {
  readonly heartbeatMs: number;
  /** Silence on all networks after which a peer is suspect. */
  readonly suspectMs: number;
  readonly leaseMs: number;
  /** An agent that is not heard of for this long is hung: its lease lapses. */
  readonly agentDeadlineMs: number;
  /** A previous owner may hold connections of a bucket for this long. */
  readonly drainTimeoutMs: number;
}

export interface FarmGroup {
  readonly name: string;
  /** Power by node id; a node without an entry has 0. Integers, 0 to 2^24. */
  readonly powers: Readonly<Record<number, number>>;
}

export interface FarmConfig {
  readonly me: number;
  /** Ids of all nodes that may run this module, this one included. */
  readonly nodes: readonly number[];
  /** One bucket table each, in the order of the configuration. At most groupCountMax. */
  readonly groups: readonly FarmGroup[];
  readonly timing: FarmTiming;
}

export const groupCountMax = 16;

/** One numbered view: who is in, and who serves which bucket. Never changed once issued. */
export interface View {
  readonly epoch: number;
  readonly leader: number;
  /** Bit n: node n is a member. The leader is always the lowest. */
  readonly members: bigint;
  /** Per group, owner of each bucket (bucketCount bytes; nobody = 255). */
  readonly owners: readonly Uint8Array[];
  /** Previous owners that may still hold connections, by node id: per group a bitmap of buckets. */
  readonly holders: Readonly<Record<number, readonly Uint8Array[]>>;
  /** Per member, the newest mark (StatusMessage) that the leader knew when it made this view. */
  readonly marks: Readonly<Record<number, number>>;
  /** Per group and member, the power that the shares were made from (display). */
  readonly powers: readonly Readonly<Record<number, number>>[];
}

/** What every running node tells every peer it reaches: its link state and its wishes. */
export interface StatusMessage {
  readonly kind: 'status';
  /** Start of the agent on the sender's clock, then a counter: an older status is ignored. */
  readonly startedMs: number;
  readonly seq: number;
  readonly running: boolean;
  /** Has listened long enough to lead. */
  readonly electable: boolean;
  /** Its application answers and no rival was heard for a while: it may be given buckets. */
  readonly ready: boolean;
  readonly draining: boolean;
  /** Power per group that an operator set on this node; null: as configured. */
  readonly powers: readonly (number | null)[];
  /** The node whose views it takes; nobody: none. */
  readonly follows: number;
  /** Of a leader: its followers, each with the followMark it came with. */
  readonly followers: Readonly<Record<number, number>>;
  /** Nodes it hears / in both directions / hears and which may accept clients. Itself not included. */
  readonly heard: bigint;
  readonly both: bigint;
  readonly open: bigint;
  /** The rival view that makes it own nothing; null: none. */
  readonly excludedBy: ViewName | null;
  readonly epochMax: number;
  /** The view that its filter enforces; null: none. */
  readonly installed: ViewName | null;
  /**
   * Marks are a rising number of the sender. followMark: when it began to follow; a view made before
   * is not taken. closeMark: when it last stopped owning by itself; a view made before opens nothing.
   */
  readonly followMark: number;
  readonly closeMark: number;
}

export interface ViewName {
  readonly epoch: number;
  readonly leader: number;
}

/** "I take your views from now on. This is what I own, hold and know." */
export interface FollowMessage {
  readonly kind: 'follow';
  readonly status: StatusMessage;
  /** Per group, the buckets it may accept new clients for. */
  readonly owned: readonly Uint8Array[];
  /** Per group, the buckets in which it has live connections, or may have: it holds them. */
  readonly sockets: readonly Uint8Array[];
  /** Newest view it has taken, as the base of the next one. */
  readonly view: View | null;
}

export type Message =
  | StatusMessage
  | FollowMessage
  | { readonly kind: 'view'; readonly view: View }
  /** Buckets in which a holder still has connections, seen after it had installed this epoch. */
  | { readonly kind: 'sockets'; readonly epoch: number; readonly sockets: readonly Uint8Array[] };

/** What the host keeps across its own death, and gives back at the next start. */
export interface Snapshot {
  readonly view: View | null;
  readonly epochMax: number;
  readonly mark: number;
  readonly closeMark: number;
  /** Per group, buckets that the installed table may own. */
  readonly owned: readonly Uint8Array[];
  readonly powers: readonly (number | null)[];
  readonly draining: boolean;
}

export type FarmEvent =
  /**
   * The module runs here from now on. `adopt`: the installed table and its lease outlived the
   * previous agent (no lapse, same boot); null: the filter owns nothing yet.
   */
  | {
      readonly kind: 'start';
      readonly nowMs: number;
      readonly ready: boolean;
      readonly adopt: Snapshot | null;
      /** Highest epoch ever persisted (Snapshot.epochMax), where `adopt` is null; 0: none. */
      readonly epochMax: number;
    }
  | { readonly kind: 'stop'; readonly nowMs: number }
  /** native/beat 'peer'. The host feeds the state of all peers after `start`. */
  | {
      readonly kind: 'peer';
      readonly nowMs: number;
      readonly node: number;
      readonly reach: Reach;
      readonly boot: bigint;
      readonly hung: boolean;
    }
  /** native/beat 'module' for this module's key. */
  | {
      readonly kind: 'summary';
      readonly nowMs: number;
      readonly node: number;
      readonly flags: number;
      readonly viewEpoch: number;
      readonly viewMembers: bigint;
    }
  | {
      readonly kind: 'message';
      readonly nowMs: number;
      readonly from: number;
      readonly message: Message;
    }
  /** The health gate. */
  | { readonly kind: 'ready'; readonly nowMs: number; readonly on: boolean }
  | { readonly kind: 'drain'; readonly nowMs: number; readonly on: boolean }
  /** Power of this node, set by an operator; group null: all groups; power null: as configured. */
  | {
      readonly kind: 'power';
      readonly nowMs: number;
      readonly group: number | null;
      readonly power: number | null;
    }
  /** Answer to the `install` effect with the same number: the filter enforces it. */
  | { readonly kind: 'installed'; readonly nowMs: number; readonly install: number }
  /**
   * Per group, the buckets in which this node has TCP sockets (Filter.socketBuckets); beganMs: when
   * the walk over the sockets began. Wanted about once a second while
   * its table holds buckets, once before `start`, and when `count` asks.
   */
  | {
      readonly kind: 'sockets';
      readonly nowMs: number;
      readonly beganMs: number;
      readonly groups: readonly Uint8Array[];
    }
  /** native/beat 'lease' with why agent_hung: our lease was withheld, others may have taken over. */
  | { readonly kind: 'lapsed'; readonly nowMs: number }
  /**
   * All that the heartbeats brought at once, in order. Acted upon as a whole: after a pause of the
   * agent the first of them may be long out of date, and the last says how it is now.
   */
  | { readonly kind: 'news'; readonly nowMs: number; readonly news: readonly FarmNews[] }
  | { readonly kind: 'tick'; readonly nowMs: number };

type Untimed<E> = E extends FarmEvent ? Omit<E, 'nowMs'> : never;

/** An event of the heartbeats, without the time that it shares with the others. */
export type FarmNews = Untimed<
  Extract<FarmEvent, { readonly kind: 'peer' | 'summary' | 'lapsed' }>
>;

/** One group's table as native/filter takes it (FilterTable). */
export interface CompiledTable {
  readonly flags: Uint8Array;
  readonly owner: Uint8Array;
  readonly holder: Uint8Array;
}

/** Requests to the host, to be performed in order. */
export type FarmEffect =
  /** Flip the filter to these tables, then answer with `installed`. A later install replaces it. */
  | {
      readonly kind: 'install';
      readonly install: number;
      readonly epoch: number;
      readonly tables: readonly CompiledTable[];
    }
  /** Beat.announce for this module. serving: the lease slots are to be renewed. */
  | {
      readonly kind: 'announce';
      readonly viewEpoch: number;
      readonly viewMembers: bigint;
      readonly flags: number;
      readonly serving: boolean;
    }
  /** May be lost when the channel breaks; the machine repeats what matters. */
  | { readonly kind: 'send'; readonly to: number; readonly message: Message }
  /** One line of log, one event record. */
  | {
      readonly kind: 'record';
      readonly record: 'view' | 'transition' | 'refusal';
      readonly text: string;
      readonly data: Readonly<Record<string, unknown>>;
    }
  /** vmac_directed: announce the VIPs by gratuitous ARP / unsolicited NA, as `gone` answers no more. */
  | { readonly kind: 'gratuitous'; readonly gone: number }
  /** Walk over the sockets now and answer with `sockets`: it may hold connections nobody knows of. */
  | { readonly kind: 'count' }
  /** Persist (overwrite) before the next effect; needed for a later start. May fail: serve on. */
  | { readonly kind: 'persist'; readonly snapshot: Snapshot };
