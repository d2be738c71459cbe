/** What the agent shows and takes: the types that the API, the CLI and the lab share. */
import type { ClusterConfig } from '../config/model.ts';
import type { ErrorRecord } from '../errors.ts';
import type { TimingQuery, TimingRow } from './timing.ts';

export type { TimingQuery, TimingRow } from './timing.ts';

export type ModuleState = 'STOP' | 'WAIT' | 'ALONE' | 'UP' | 'PRIM' | 'SECOND';
/** Shown red, magenta, green. */
export type Readiness = 'NotReady' | 'Transient' | 'Ready';

/** Share of one group's buckets held by this node. */
export interface GroupStatus {
  readonly name: string;
  readonly buckets: number;
  readonly power: number;
  /** Buckets that this node keeps only for connections it still has. */
  readonly holding: number;
}

export interface FarmStatus {
  readonly viewEpoch: number;
  readonly leader: string | null;
  readonly members: readonly string[];
  readonly serving: boolean;
  readonly draining: boolean;
  readonly groups: readonly GroupStatus[];
  readonly vips: readonly string[];
  readonly hook: string | null;
  readonly device: string | null;
  /** Why a better hook is not used. */
  readonly hookReasons: readonly string[];
}

/** What a comparison of both servers has found. */
export interface VerifyStatus {
  readonly running: boolean;
  /** Files and bytes that were compared so far. */
  readonly figures: Readonly<Record<string, number>>;
  /** One for each file that differs, at most 1000; `differing` counts them all. */
  readonly differences: readonly Readonly<Record<string, string>>[];
  readonly differing: number;
}

/**
 * How a server becomes the secondary of a mirror: plain; fullsync: its copy is none, all comes from
 * the primary; discard: what it acknowledged while it was alone is taken back.
 */
export const secondWays = ['plain', 'fullsync', 'discard'] as const;
export type SecondWay = (typeof secondWays)[number];

/** A distant copy, as its primary sees it. */
export interface DistantStatus {
  readonly node: string;
  /** none: the engine does not answer. */
  readonly state: 'connected' | 'lost' | 'refused' | 'none';
  /** Why it is refused; else empty. */
  readonly reason: string;
  /** Connected, it holds what the primary was at some moment, and goes on from there. */
  readonly inSync: boolean;
  /** False: what it lacks is not known, and all of it is compared. */
  readonly isKnown: boolean;
  /** What it does not have durably, as far as known. */
  readonly lagBytes: number;
  /** Age of the oldest change that it does not have durably; 0: it has all. */
  readonly lagMs: number;
  /** The resynchronisation under way; null: none. */
  readonly resync: {
    readonly kind: string;
    readonly leftBytes: number;
    readonly bytesPerS: number;
  } | null;
  readonly sentBytes: number;
  /** Changes that found no room in its ring: what they touch is sent later as it is then. */
  readonly diverted: number;
}

/** How far a distant copy was behind when its primary last said so. */
export interface BehindStatus {
  readonly primary: string;
  /** False: it lacked more than `bytes`, or less. */
  readonly isKnown: boolean;
  /** In a resynchronisation: as primary it would go back to its last whole state. */
  readonly inRun: boolean;
  readonly bytes: number;
  readonly ms: number;
  /** How long ago that was. */
  readonly ageMs: number;
}

/** A mirror's replication engine on this node. */
export interface ReplicaStatus {
  readonly role: 'prim' | 'second' | 'none';
  readonly peer: string;
  /** connected, or why not, in the engine's words: lost, refused, left, none. */
  readonly peerState: string;
  readonly peerReason: string;
  /** True: this primary acknowledges without its peer. */
  readonly alone: boolean;
  readonly epoch: number;
  /** TCP port of replication. */
  readonly port: number;
  readonly directories: readonly string[];
  /** What a primary feeds beside its peer, in the order of the configuration. */
  readonly distant: readonly DistantStatus[];
  /** On a distant copy's server; null elsewhere, or while nothing was heard. */
  readonly behind: BehindStatus | null;
  /** Everything that the engine says of itself, by its own names; empty while it does not answer. */
  readonly engine: Readonly<Record<string, string>>;
  /** Of the last comparison since the module was started; null: none. */
  readonly verify: VerifyStatus | null;
}

/** Orders for a mirror that decides for itself, beside those of ModuleVerb. */
export const pairVerbs = [
  'prim',
  'primforce',
  'second',
  'secondFullsync',
  'secondDiscard',
  'swap',
  'swapNosync',
  'failoverOn',
  'failoverOff',
] as const;
export type PairVerb = (typeof pairVerbs)[number];

/** A mirror that decides for itself, as this server sees it. */
export interface PairStatus {
  readonly role: 'primary' | 'secondary' | 'none';
  /** Where it is in its way up or down: a phase of src/core/mirror-types.ts. */
  readonly phase: string;
  /** Newest record of the arbiter's register that is known here; null: none. */
  readonly record: {
    readonly incarnation: number;
    readonly epoch: number;
    readonly primary: string;
    /** Servers that have everything that was acknowledged. */
    readonly inSync: readonly string[];
  } | null;
  /** Nothing of an older epoch is taken or served. */
  readonly promised: number;
  /**
   * This server's copy by itself, whatever the other one has: inSync: whole. stale: known to be outdated.
   * inconsistent: in the middle of a resynchronisation.
   */
  readonly copy: 'none' | 'inSync' | 'stale' | 'inconsistent' | 'failed';
  readonly arbiter: {
    /** What it is, "witness w1 (10.0.0.9:9530)". */
    readonly text: string;
    /** unknown: not asked yet. bad: it answers, and what it answers cannot be used. */
    readonly state: 'ok' | 'silent' | 'bad' | 'unknown';
    readonly why: string;
  };
  /** By whose word the virtual IP may answer here, and whether it may now. */
  readonly lease: { readonly rule: 'off' | 'own' | 'peer'; readonly held: boolean };
  readonly peer: {
    readonly node: string;
    readonly reach: 'silent' | 'heard' | 'both' | 'unknown';
    /** As it says; null: it has not been heard of. */
    readonly state: ModuleState | null;
    readonly readiness: Readiness | null;
  };
  /** Operator's `failover on|off`: may this server take over? */
  readonly failover: boolean;
  readonly defaultPrim: string;
  /** defaultprim `lastprim`: where service belongs; null: nowhere yet. */
  readonly home: string | null;
  readonly vip: {
    readonly addrs: readonly string[];
    readonly open: boolean;
    readonly device: string | null;
    readonly hook: string | null;
  } | null;
}

export interface ModuleStatus {
  readonly name: string;
  readonly mode: 'mirror' | 'farm' | 'light';
  readonly state: ModuleState;
  readonly readiness: Readiness;
  /** One sentence for each thing that keeps the module from the next state. */
  readonly why: readonly string[];
  /** Automatic actions within loop_interval, and the limit. */
  readonly loopCount: number;
  readonly maxloop: number;
  readonly signature: string;
  readonly resources: Readonly<Record<string, 'init' | 'up' | 'down' | 'unknown'>>;
  readonly farm: FarmStatus | null;
  /** Null where the module is no mirror, or is stopped. */
  readonly replica: ReplicaStatus | null;
  /** Of a mirror that decides for itself: null elsewhere. */
  readonly pair: PairStatus | null;
}

export interface PeerStatus {
  readonly node: string;
  readonly id: number;
  readonly reach: 'silent' | 'heard' | 'both' | 'self';
  readonly lans: readonly { readonly name: string; readonly up: boolean; readonly rttUs: number }[];
  /** Peer channel open? */
  readonly connected: boolean;
  /** True when the peer has the same cluster configuration; null while unknown. */
  readonly sameConfig: boolean | null;
}

export interface Alert {
  readonly id: string;
  readonly severity: 'warning' | 'critical';
  readonly message: string;
  readonly sinceWallMs: number;
}

export interface NodeStatus {
  readonly node: string;
  readonly id: number;
  readonly version: string;
  readonly clusterSignature: string;
  readonly startedWallMs: number;
  readonly modules: readonly ModuleStatus[];
  readonly peers: readonly PeerStatus[];
  readonly alerts: readonly Alert[];
}

/** One record of the event journal: a transition, a refusal, an alert, a command. */
export interface EventRecord {
  /** Position in this node's journal, from 1 without gaps. */
  readonly seq: number;
  readonly wallMs: number;
  readonly bootMs: number;
  readonly node: string;
  readonly module: string | null;
  readonly kind:
    | 'transition'
    | 'refusal'
    | 'view'
    | 'script'
    | 'alert'
    | 'command'
    | 'check'
    | 'config'
    | 'peer';
  readonly text: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export type ModuleVerb = 'start' | 'stop' | 'restart' | 'stopstart' | 'forcestop';

/** What the API asks of the agent. Rejections are HoldfastError. */
export interface Agent {
  readonly node: string;
  status(): NodeStatus;
  /** Resolves when the command was carried out (not merely accepted). */
  command(module: string, verb: ModuleVerb): Promise<ModuleStatus>;
  /** Unpacks a .safe archive as module `name`; refuses when it exists and replace is false. */
  installModule(name: string, archive: Uint8Array, replace: boolean): Promise<ModuleStatus>;
  packageModule(name: string): Promise<Uint8Array>;
  uninstallModule(name: string): Promise<void>;
  /** Checks a module's userconfig.xml (the installed one where xml is null); no effect. */
  checkConfig(name: string, xml: string | null): readonly ErrorRecord[];
  /** Applies it: stores xml (where given) and makes it the active one; refused leaves all as it was. */
  applyConfig(name: string, xml: string | null): Promise<ModuleStatus>;
  /** Moves a node's buckets away and waits for its connections to end, within the module's limit. */
  drain(module: string, node: string, on: boolean): Promise<ModuleStatus>;
  /** Sets a node's power in one group (all groups where null), until changed or the module stops. */
  power(module: string, node: string, group: string | null, power: number): Promise<ModuleStatus>;
  /**
   * Makes this node the mirror's primary. Where it is that already and its peer is away, `alone`
   * confirms that it is to acknowledge without it. `force`: also with a copy that is known to be an
   * older one; a distant copy's server goes on alone by it. Resolves when the application runs, or waits for the peer.
   * A mirror that decides for itself is asked for `prim`, or with `force` for `primforce`; alone or not, it decides.
   */
  prim(module: string, alone: boolean, force: boolean): Promise<ModuleStatus>;
  /** Makes this node the mirror's secondary. */
  second(module: string, way: SecondWay): Promise<ModuleStatus>;
  /**
   * Of a mirror that decides for itself, on either server: its application goes to the other one; not `sync`:
   * the server that it leaves keeps its copy as it is, until `start`. Resolves when it is there, or cannot go.
   */
  swap(module: string, sync: boolean): Promise<ModuleStatus>;
  /** Of a mirror that decides for itself: may this server take over when the primary is lost? */
  failover(module: string, on: boolean): Promise<ModuleStatus>;
  /** The word of a checker of one's own: the resource that it looks after is up, or down. */
  setResource(
    module: string,
    resource: string,
    state: 'up' | 'down',
    reason: string,
  ): Promise<ModuleStatus>;
  /** Compares both servers while the application runs; resolves with what was found. */
  verify(module: string): Promise<VerifyStatus>;
  /** Newest last; after: only records with a greater seq. */
  events(options: {
    readonly after: number;
    readonly limit: number;
    readonly module: string | null;
  }): readonly EventRecord[];
  onEvent(listener: (event: EventRecord) => void): () => void;
  /** Last lines of the module's user log (script output), or of the agent's own log where module is null. */
  log(module: string | null, lines: number): Promise<readonly string[]>;
  /** Why the module is where it is: its refusals and conditions, newest first. */
  why(module: string): readonly string[];
  /** The chains of deadlines in force, or those that a profile would make. */
  timing(query: TimingQuery): readonly TimingRow[];
  /** Prometheus text exposition. */
  metrics(): string;
  /** The cluster.xml in force, as text and as model. */
  cluster(): { readonly xml: string; readonly config: ClusterConfig };
  /** Checks a cluster.xml, stores it durably and applies it live; refused leaves all as it was. */
  applyCluster(xml: string): Promise<void>;
  /** Body of a peer call forwarded by the API's node proxy is not handled here; see api/proxy.ts. */
  shutdown(): Promise<void>;
}

/** What one agent asks of another. */
export interface RemoteAgent extends Pick<Agent, 'drain' | 'power'> {
  module(name: string): Promise<ModuleStatus>;
}

/** How the host sends to peers; implemented by api/peers.ts over mutual TLS. */
export interface PeerChannel {
  /** Queues a JSON-able message; false when the peer is not connected or its queue is full. */
  send(node: number, message: unknown): boolean;
  onMessage(listener: (from: number, message: unknown) => void): void;
  onConnection(listener: (node: number, connected: boolean) => void): void;
  connected(node: number): boolean;
  /**
   * For when a peer's heartbeats return: dials it at once where it waits for its turn, where an
   * attempt hangs, or where the connection is of before the silence. TCP's own repeats may be
   * seconds apart by then.
   */
  kick(node: number): void;
  /**
   * Says that heartbeats to one address of a peer fell silent or came back. A connection over a
   * silent one is given up at once for another network, where TCP would notice after seconds.
   */
  setPath(node: number, addr: string, up: boolean): void;
  stats(): Readonly<Record<string, number>>;
  close(): Promise<void>;
}
