/** The typed face of native/filter: the packet filter that decides which server answers a client. */

/** Where the filter sits, best first. */
export type Hook = 'xdp-native' | 'xdp-generic' | 'tc';

/** How inbound packets reach every server. See docs/concepts/farm.md. */
export type DeliveryMode = 'vmac_invisible' | 'vmac_directed';

/** What of a client is hashed to a bucket. */
export type HashMode = 'on_addr' | 'on_port' | 'on_ipid';

/** Number of buckets of one table. */
export const bucketCount = 4096;

/** Bits of FilterTable.flags. */
export const bucketFlag = { own: 1, hold: 2, quiet: 4 } as const;

/** One virtual IP as the filter knows it. */
export interface FilterVip {
  readonly addr: string;
  readonly mode: DeliveryMode;
  /** The farm MAC that answers ARP and ND in vmac_invisible; null in vmac_directed. */
  readonly farmMac: string | null;
  /** Index into the node's lease map; the VIP is silent once that lease has lapsed. */
  readonly leaseSlot: number;
  /** Table whose ownership decides who answers ARP and ND in vmac_directed; -1: rule below decides. */
  readonly arpTable: number;
}

/** Traffic to a VIP that is balanced. Traffic to a VIP that no rule matches is dropped. */
export interface FilterRule {
  /** Index into FilterConfig.vips, or -1 for every VIP of the same module (given by vipMask). */
  readonly vips: readonly number[];
  readonly proto: 'tcp' | 'udp' | 'icmp';
  readonly portLow: number;
  readonly portHigh: number;
  readonly hash: HashMode;
  /** Index into FilterConfig.tables. */
  readonly table: number;
}

/** One bucket table, compiled for this node. All three arrays have bucketCount entries. */
export interface FilterTable {
  /** Bits of bucketFlag. */
  readonly flags: Uint8Array;
  /** Node id of the owner; 255: nobody. */
  readonly owner: Uint8Array;
  /** Node id of a live previous owner that may hold sockets; 255: nobody. */
  readonly holder: Uint8Array;
}

/** Everything one filter enforces; committed as a whole by one atomic flip. */
export interface FilterConfig {
  readonly vips: readonly FilterVip[];
  readonly rules: readonly FilterRule[];
  readonly tables: readonly FilterTable[];
  /** SipHash key of the cluster, 16 bytes. */
  readonly hashKey: Uint8Array;
  /** This node's id, 0 to 63. */
  readonly me: number;
  /** MAC of each node on this device's network, by node id; null where unknown. */
  readonly macs: readonly (string | null)[];
}

/** What was attached, and why not something better. */
export interface FilterInfo {
  readonly device: string;
  readonly hook: Hook;
  /** One sentence for each better hook that could not be used. */
  readonly reasons: readonly string[];
  /** True when a filter pinned by an earlier process was taken over without a gap. */
  readonly adopted: boolean;
}

/** Packets by reason; names are the metric labels. */
export interface FilterCounters {
  readonly reasons: Readonly<Record<string, number>>;
  /** Per rule, in FilterConfig.rules order. */
  readonly rules: readonly { readonly accepted: number; readonly dropped: number }[];
}

export interface Filter {
  info(): FilterInfo;
  /** Replaces the whole configuration by one store; no packet sees half of it. */
  commit(config: FilterConfig): void;
  counters(): FilterCounters;
  /**
   * Which buckets still have a local TCP socket, per table: bit n of the 512-byte map is bucket n.
   * Walks sock_diag off the JavaScript thread.
   */
  socketBuckets(config: FilterConfig): Promise<readonly Uint8Array[]>;
  /** Detaches and unpins. Closing the process without this leaves the filter in place. */
  detach(): void;
}
