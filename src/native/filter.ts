/** The typed face of native/filter: the packet filter that decides which server answers a client. */
import { HoldfastError } from '../errors.ts';
import { maxRules, packConfig, reasonNames, usedRules } from './filter-abi.ts';
import { builtFile, loadAddon } from './load.ts';

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
  /**
   * Table whose owner (of the requester's bucket) answers ARP and ND, and ICMP that no rule names.
   * -1: ICMP and, in vmac_directed, ARP and ND go by the table of the VIP's first rule; in
   * vmac_invisible every live server answers ARP and ND, with the same farm MAC.
   */
  readonly arpTable: number;
}

/** Traffic to a VIP that is balanced. Traffic to a VIP that no rule matches is dropped. */
export interface FilterRule {
  /** Indexes into FilterConfig.vips. */
  readonly vips: readonly number[];
  readonly proto: 'tcp' | 'udp' | 'icmp';
  /** TCP and UDP only; a rule for ICMP covers all of it. */
  readonly portLow: number;
  readonly portHigh: number;
  /** on_port and on_ipid are for udp (and on_port for tcp); ICMP goes by the client's address. */
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

/** Most VIPs, rules, tables, lease slots and nodes of one filter. */
export const filterLimits = { vips: 32, rules: 64, tables: 16, leases: 64, nodes: 64 } as const;

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

/** Another host that spoke as a VIP of vmac_directed (ARP, or a neighbour advertisement). */
export interface FilterClaim {
  readonly mac: string;
  /** CLOCK_BOOTTIME of the last such frame, ms. */
  readonly atMs: number;
}

export interface Filter {
  info(): FilterInfo;
  /** Replaces the whole configuration by one store; no packet sees half of it. */
  commit(config: FilterConfig): void;
  counters(): FilterCounters;
  /** Who else spoke as the VIP of that index since the last commit; null: nobody. */
  claim(vip: number): FilterClaim | null;
  /**
   * Which buckets still have a local TCP socket, per table: bit n of the 512-byte map is bucket n.
   * Walks sock_diag off the JavaScript thread.
   */
  socketBuckets(config: FilterConfig): Promise<readonly Uint8Array[]>;
  /** Detaches and unpins; the VIPs must be gone before. Closing the process without this leaves the filter in place. */
  detach(): void;
}

export interface OpenFilterOptions {
  readonly device: string;
  /** Folder on a bpffs (mounted there when there is none); holds `leases` and one folder a device. */
  readonly pinDir: string;
  /** Default: the best that works. An adopted filter stays where it is. */
  readonly hook?: Hook | 'auto';
  /** Default: build/Release/farm.bpf.o of this package. */
  readonly objectPath?: string;
}

/** What native/filter/addon.cc exports as NativeFilter. */
export interface NativeFilter {
  info(): FilterInfo;
  /** Returns the ns it took to copy and flip. */
  commit(config: Uint8Array): number;
  counters(): Float64Array;
  claim(vip: number): { readonly atMs: number; readonly mac: readonly number[] } | null;
  sockets(config: Uint8Array): Promise<Uint8Array[]>;
  detach(): void;
  testRun(
    program: 'xdp' | 'tc' | 'host' | 'egress',
    packet: Uint8Array,
    repeat: number,
  ): { verdict: number; ns: number; packet: Uint8Array };
  setLease(slot: number, until: bigint): void;
}

/** An open program or attachment of the addon; gone when closed. */
export interface NativeFd {
  close(): void;
}

/** The addon as a whole. All but NativeFilter and attachPass is for tests and benches. */
export interface FilterAddon {
  readonly NativeFilter: new (options: {
    device: string;
    pinDir: string;
    hook: Hook | 'auto' | 'none';
    objectPath: string;
  }) => NativeFilter;
  /** Sizes and offsets of farm_abi.h. */
  layout(): Record<string, number> & { reasons: string[] };
  /** An XDP program that passes everything, as the far end of a veth needs it for XDP_TX. */
  attachPass(device: string): NativeFd;
  /** Moves this thread, and the processes it starts, into namespaces of their own. */
  sandbox(): void;
  /** Generic receive offload of a device on or off. */
  setGro(device: string, on: boolean): void;
  loadProgram(objectPath: string, name: string): NativeFd;
  attachProgram(program: NativeFd, device: string, native: boolean): NativeFd;
  /** Sends frames by a program that ends in XDP_TX; returns ns per frame. */
  sendLive(program: NativeFd, device: string, frame: Uint8Array, count: number): number;
}

export function loadFilterAddon(): FilterAddon {
  return loadAddon('filter') as FilterAddon;
}

/** Path of the BPF object that the build makes. */
export function filterObjectPath(): string {
  return builtFile('farm.bpf.o');
}

function because(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

class FilterImpl implements Filter {
  readonly #native: NativeFilter;
  readonly #device: string;
  #rules = 0;

  constructor(native: NativeFilter, device: string) {
    this.#native = native;
    this.#device = device;
  }

  info(): FilterInfo {
    return this.#native.info();
  }

  commit(config: FilterConfig): void {
    const packed = packConfig(config);
    try {
      this.#native.commit(packed);
    } catch (error) {
      const values = { device: this.#device, reason: because(error) };
      throw new HoldfastError('HF-NATIVE-012', values, null, error);
    }
    this.#rules = usedRules(packed);
  }

  counters(): FilterCounters {
    const flat = this.#native.counters();
    const reasons: Record<string, number> = {};
    for (const [at, name] of reasonNames.entries()) reasons[name] = flat[at] ?? 0;
    const rules = [];
    for (let rule = 0; rule < Math.min(this.#rules, maxRules); rule++) {
      const at = reasonNames.length + 2 * rule;
      rules.push({ accepted: flat[at] ?? 0, dropped: flat[at + 1] ?? 0 });
    }
    return { reasons, rules };
  }

  claim(vip: number): FilterClaim | null {
    const found = this.#native.claim(vip);
    if (found === null) return null;
    const mac = found.mac.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
    return { mac, atMs: found.atMs };
  }

  async socketBuckets(config: FilterConfig): Promise<readonly Uint8Array[]> {
    const packed = packConfig(config);
    try {
      return await this.#native.sockets(packed);
    } catch (error) {
      throw new HoldfastError('HF-NATIVE-013', { reason: because(error) }, null, error);
    }
  }

  detach(): void {
    this.#native.detach();
  }
}

/**
 * Attaches the filter to a device, or adopts the one that an earlier process left there. Until the
 * first commit it knows no VIP and passes everything (an adopted one goes on as it was).
 * Throws HF-NATIVE-010 with the reason when no hook can be had.
 */
export function openFilter(options: OpenFilterOptions): Filter {
  const { NativeFilter } = loadFilterAddon();
  try {
    const native = new NativeFilter({
      device: options.device,
      pinDir: options.pinDir,
      hook: options.hook ?? 'auto',
      objectPath: options.objectPath ?? filterObjectPath(),
    });
    return new FilterImpl(native, options.device);
  } catch (error) {
    const values = { device: options.device, reason: because(error) };
    throw new HoldfastError('HF-NATIVE-010', values, null, error);
  }
}
