/** The one typed model of cluster.xml and userconfig.xml. Durations are in ms, unit last in the name. */
import type { MirrorPace, mirrorProfiles } from '../core/mirror-timing.ts';
import type { DefaultPrim } from '../core/mirror-types.ts';
import type { Rule } from '../core/rules.ts';

export type { DefaultPrim } from '../core/mirror-types.ts';

export interface ClusterNode {
  /** 0 to 63: the place of the node's first mention in cluster.xml. */
  readonly id: number;
  readonly name: string;
}

export interface LanNode {
  readonly node: number;
  readonly addr: string;
  /** Own address to bind where it differs from addr (NAT); else equal to addr. */
  readonly laddr: string;
}

export interface Lan {
  readonly name: string;
  /** The network of commands and peer calls; exactly one, the first where none says so. */
  readonly command: boolean;
  readonly nodes: readonly LanNode[];
}

/** Where the records lie by which mirrors decide who is primary. Host names are refused everywhere. */
export type ArbiterConfig =
  /** Mirrors are run by hand. */
  | { readonly type: 'operator' }
  /** `holdfast witness` on a further machine; its certificate of the cluster's CA names it. */
  | {
      readonly type: 'witness';
      readonly name: string;
      readonly addr: string;
      readonly port: number;
    }
  | {
      readonly type: 'etcd';
      /** `http://ADDR:PORT` or `https://ADDR:PORT`. */
      readonly endpoints: readonly string[];
      /** Keys begin with it; begins and ends with "/". */
      readonly prefix: string;
      /** PEM files; null: of the system, or none. */
      readonly caFile: string | null;
      readonly certFile: string | null;
      readonly keyFile: string | null;
    }
  /** A directory that all servers mount. */
  | { readonly type: 'directory'; readonly path: string }
  /** On the disk of that node, which serves it to the others. */
  | { readonly type: 'static'; readonly node: number }
  /** On the disks of the two nodes of the cluster, each of which can cut the other's power. */
  | {
      readonly type: 'fence';
      /** Folder of NODE.conf, with the power switch of each. */
      readonly path: string;
      /** A server that is not primary waits for this long before it fences the other one. */
      readonly delayMs: number;
      /** An agent of a power switch that takes longer has failed. */
      readonly timeoutMs: number;
      readonly nodes: readonly [number, number];
    };

export interface ClusterConfig {
  readonly nodes: readonly ClusterNode[];
  readonly lans: readonly Lan[];
  /** UDP port of the heartbeats. */
  readonly port: number;
  readonly heartbeatMs: number;
  /** Heartbeats missed on all networks before a peer is suspect. */
  readonly lostCount: number;
  readonly leaseMs: number;
  readonly agentDeadlineMs: number;
  /** Null: none is configured, and mirrors are run by hand. */
  readonly arbiter: ArbiterConfig | null;
  /** SHA-256 of the canonical content, hex: equal on nodes that have the same configuration. */
  readonly signature: string;
}

export type Mode = 'mirror' | 'farm' | 'light';
export type AutomaticAction = 'restart' | 'stopstart' | 'stop' | 'wait' | 'noaction';
export type CheckWhen = 'prim' | 'second' | 'both' | 'pre';

export interface ServiceConfig {
  readonly mode: Mode;
  readonly boot: 'on' | 'off' | 'auto' | 'ignore';
  readonly bootDelayMs: number;
  readonly maxloop: number;
  readonly loopIntervalMs: number;
  readonly automaticReboot: boolean;
  /** Of a mirror; false: a secondary whose primary is lost waits. Until an operator says otherwise. */
  readonly failover: boolean;
  /** Of a mirror: where service goes once both are in sync. */
  readonly defaultPrim: DefaultPrim;
}

export interface VirtualAddr {
  readonly addr: string;
  /** Prefix length; 32 or 128 where none is given. */
  readonly prefix: number;
  readonly where: 'alias' | 'one_side_alias';
  readonly check: boolean;
  /** Count the connections of this address. */
  readonly connections: boolean;
  readonly line: number;
}

export interface VirtualInterface {
  readonly type: 'vmac_invisible' | 'vmac_directed';
  /** Farm MAC; null in vmac_directed. Default 5a:fe: + the first VIP in hex. */
  readonly mac: string | null;
  readonly addrs: readonly VirtualAddr[];
}

export interface VipInterface {
  /** NIC name; null: the one that has the network of the first lan of this module. */
  readonly name: string | null;
  readonly check: boolean;
  readonly arpreroute: boolean;
  readonly arpIntervalMs: number;
  /** The repeated announcements of arpreroute end after this. */
  readonly arpElapseMs: number;
  readonly virtualInterface: VirtualInterface | null;
}

export interface LoadRule {
  /** VIP, or null for all of the module. */
  readonly virtualAddr: string | null;
  /** 0 to 65535 for `*`, and for arp and icmp. */
  readonly portLow: number;
  readonly portHigh: number;
  readonly proto: 'tcp' | 'udp' | 'arp' | 'icmp';
  readonly filter: 'on_addr' | 'on_port' | 'on_ipid';
  readonly line: number;
}

export interface LoadGroup {
  readonly name: string;
  /** Power by node id, every node of cluster.xml: 1 without `<cluster>`; with it, 0 for nodes it does not name. */
  readonly powers: Readonly<Record<number, number>>;
  readonly rules: readonly LoadRule[];
}

export interface VipConfig {
  readonly tcpreset: boolean;
  readonly interfaces: readonly VipInterface[];
  readonly groups: readonly LoadGroup[];
}

export interface UserConfig {
  readonly stopTimeoutMs: number;
  readonly forceStopTimeoutMs: number;
  readonly logging: 'userlog' | 'none';
  readonly userlogKib: number;
  readonly vars: Readonly<Record<string, string>>;
}

export interface CheckBase {
  readonly ident: string;
  readonly when: CheckWhen;
  readonly action: AutomaticAction;
  readonly line: number;
}
export type CheckConfig =
  | (CheckBase & {
      readonly kind: 'tcp';
      readonly addr: string;
      readonly port: number;
      readonly intervalMs: number;
      readonly timeoutMs: number;
    })
  | (CheckBase & {
      readonly kind: 'ping';
      readonly addr: string;
      readonly intervalMs: number;
      readonly timeoutMs: number;
    })
  | (CheckBase & { readonly kind: 'intf'; readonly localAddr: string })
  | (CheckBase & { readonly kind: 'ip'; readonly addr: string; readonly intervalMs: number })
  | (CheckBase & { readonly kind: 'custom'; readonly exec: string; readonly arg: string })
  | (CheckBase & {
      readonly kind: 'module';
      readonly name: string;
      readonly addr: string | null;
      readonly port: number;
      readonly intervalMs: number;
      readonly timeoutMs: number;
    })
  | (CheckBase & { readonly kind: 'splitbrain'; readonly exec: string; readonly arg: string });

/**
 * The health gate: the VIP opens only while this answers. From `<ready>` in `<farm>`, or in `<heart>`
 * of a mirror; null: open as soon as the start script has succeeded.
 */
export interface ReadyConfig {
  readonly kind: 'tcp' | 'http' | 'script';
  /** tcp, http: address (default 127.0.0.1) and port. */
  readonly addr: string;
  readonly port: number;
  /** http: path; script: file below bin/. */
  readonly path: string;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Failures in a row after which the VIP closes. */
  readonly failures: number;
  /** Mirrors: how long after start_prim it may take until it succeeds for the first time; 0: no limit. */
  readonly startTimeoutMs: number;
  /** What to do with the application then. */
  readonly action: AutomaticAction;
}

/** One `<proc>` of `<errd>`. */
export interface ProcConfig {
  readonly name: string;
  readonly service: boolean;
  /** POSIX extended regular expressions; null: the name itself, any command line. */
  readonly nameRegex: string | null;
  readonly argRegex: string | null;
  readonly atLeast: number;
  /** -1: no limit. */
  readonly atMost: number;
  /** An AutomaticAction, or a file below bin/. */
  readonly action: string;
  readonly restartServices: readonly string[];
  readonly when: CheckWhen | 'sec' | 'custom';
  /** Looks before the first judgement. */
  readonly startAfter: number;
  readonly line: number;
}

export interface ErrdConfig {
  readonly pollMs: number;
  readonly procs: readonly ProcConfig[];
}

export interface FailoverConfig {
  readonly extends: boolean;
  readonly periodMs: number;
  readonly handleTimeMs: number;
  /** Empty where nothing acts on them. */
  readonly rules: readonly Rule[];
}

export interface VirtualHostname {
  readonly name: string;
  readonly envFile: string;
  readonly when: 'prim' | 'second' | 'both';
}

/** One `<heartbeat>` of a mirror. */
export interface HeartbeatConfig {
  /** Name of a network of cluster.xml. */
  readonly lan: string;
  /** Name of its resource; flow is the network of replication. */
  readonly ident: string;
  readonly pulseMs: number;
  readonly timeoutMs: number;
  readonly line: number;
}

export type TimingProfile = keyof typeof mirrorProfiles;

export interface HeartConfig {
  readonly heartbeats: readonly HeartbeatConfig[];
  readonly timing: TimingProfile;
  /**
   * When the peer is suspect, and how long a lease lasts: those of the profile, or as `suspect` and
   * `lease` say. heartbeatMs is that of cluster.xml.
   */
  readonly pace: MirrorPace;
}

/** What of a directory is not replicated. */
export interface SkipPattern {
  /** path: below the directory, with all that is in it. regex: POSIX extended, on such a path. */
  readonly kind: 'path' | 'regex';
  readonly value: string;
  /** True: only what matches is replicated. */
  readonly only: boolean;
}

export interface ReplicatedDir {
  /** Absolute, without a slash at its end. */
  readonly dir: string;
  readonly skip: readonly SkipPattern[];
  /** Paths below it that must exist before it is replicated. */
  readonly toCheck: readonly string[];
  readonly line: number;
}

/** One `<distant>` of a mirror: a copy that nothing waits for. */
export interface DistantConfig {
  readonly node: number;
  /** Its name in cluster.xml. */
  readonly name: string;
  /** Network of cluster.xml on which it is reached from both servers of the mirror. */
  readonly lan: string;
  readonly line: number;
}

export interface RfsConfig {
  /** When the peer acknowledges: none = durable there, second = received there. */
  readonly async: 'none' | 'second';
  /** What waits for the acknowledgement: fsync and its kind alone, or (strict) every change too. */
  readonly ack: 'fsync' | 'strict';
  /** Changes that the peer may not have yet, in memory. */
  readonly ringBytes: number;
  /** On the secondary's disk, before they are in the directory. */
  readonly journalBytes: number;
  readonly sendTimeoutMs: number;
  readonly lockTimeoutMs: number;
  /** Most that a resync sends; 0: what the application leaves. */
  readonly resyncBytesPerS: number;
  /** TCP; null: 5600 + (number of the module - 1) * 4. */
  readonly port: number | null;
  /** Network of replication, of cluster.xml, and the ids of the two nodes on it. */
  readonly lan: string;
  readonly nodes: readonly number[];
  /** In the order of the file: the engine numbers them by it. */
  readonly distant: readonly DistantConfig[];
  readonly directories: readonly ReplicatedDir[];
}

export interface ModuleConfig {
  readonly name: string;
  readonly service: ServiceConfig;
  /** Networks of the farm, names of cluster.xml; empty in other modes. */
  readonly farmLans: readonly string[];
  readonly ready: ReadyConfig | null;
  /** Buckets of a draining node are taken over at the latest after this. */
  readonly drainTimeoutMs: number;
  readonly vip: VipConfig | null;
  /** Of a mirror alone. */
  readonly heart: HeartConfig | null;
  readonly rfs: RfsConfig | null;
  readonly user: UserConfig | null;
  readonly checks: readonly CheckConfig[];
  readonly errd: ErrdConfig | null;
  readonly failover: FailoverConfig | null;
  readonly virtualHostnames: readonly VirtualHostname[];
  /** SHA-256 of the expanded file, hex. */
  readonly signature: string;
}
