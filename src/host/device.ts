/**
 * One network device with the farm modules on it: a device has one filter, so the VIPs, rules and
 * tables of all its modules are merged into one FilterConfig and committed by one flip.
 *
 * Order matters. Opening: the filter with empty tables first, the address after it, so that the
 * kernel never answers for a VIP unfiltered. Closing: the addresses first, the filter last.
 *
 * A VIP that the filter no longer knows is nobody's: what was sent as it a moment ago, and waits for the MAC of a
 * neighbour, would leave after all. So a part may stay as a guard, without its addresses.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import {
  type Filter,
  type FilterClaim,
  type FilterConfig,
  type FilterCounters,
  type FilterInfo,
  filterLimits,
  type FilterRule,
  type FilterTable,
  type FilterVip,
} from '../native/filter.ts';
import type { Link } from '../native/link.ts';

/** One VIP of a module on this device. */
export interface PartVip {
  readonly addr: string;
  readonly prefix: number;
  readonly mode: FilterVip['mode'];
  readonly farmMac: string | null;
  /** Group whose table says who answers ARP and ND; -1: every server. */
  readonly arpGroup: number;
}

/** A rule with vips and table counted within its module. */
export interface PartRule extends Omit<FilterRule, 'vips' | 'table'> {
  readonly vips: readonly number[];
  readonly group: number;
}

/** What one module has on this device. */
export interface DevicePart {
  readonly vips: readonly PartVip[];
  readonly rules: readonly PartRule[];
  /** One per group, in the order of the module's groups. */
  readonly tables: readonly FilterTable[];
  readonly leaseSlot: number;
  /** True: the addresses are not here, and nothing leaves as them while the lease is off. Without rules. */
  readonly isGuard?: true;
}

export interface DeviceOptions {
  readonly device: string;
  readonly pinDir: string;
  readonly hashKey: Uint8Array;
  readonly me: number;
  readonly link: Link;
  readonly openFilter: (options: { device: string; pinDir: string }) => Filter;
}

export class FarmDevice {
  readonly name: string;
  readonly #options: DeviceOptions;
  readonly #filter: Filter;
  readonly #parts = new Map<string, DevicePart>();
  /** Where the VIPs and tables of the modules begin in the filter's configuration. */
  #places: ReadonlyMap<string, { readonly vip: number; readonly table: number }> = new Map();
  /** Modules whose addresses are all on the device. */
  readonly #added = new Map<string, readonly PartVip[]>();
  #macs: readonly (string | null)[] = [];
  #gathering: boolean;

  /** gathering: parts are kept without effect until release(). */
  constructor(options: DeviceOptions, gathering: boolean) {
    this.name = options.device;
    this.#gathering = gathering;
    this.#options = options;
    quietKernel(options.device);
    this.#filter = options.openFilter({ device: options.device, pinDir: options.pinDir });
  }

  info(): FilterInfo {
    return this.#filter.info();
  }

  counters(): FilterCounters {
    return this.#filter.counters();
  }

  modules(): readonly string[] {
    return [...this.#parts.keys()];
  }

  /** MACs of the cluster's nodes on this device's network, by node id. */
  setMacs(macs: readonly (string | null)[]): void {
    if (JSON.stringify(macs) === JSON.stringify(this.#macs)) return;
    this.#macs = macs;
    if (this.#parts.size > 0 && !this.#gathering) this.#commit();
  }

  /**
   * Sets what a module has here; its addresses are added once the filter knows them. Where the filter refuses it
   * has what it had; what was done by halves is done by the same call again.
   */
  setPart(module: string, part: DevicePart): void {
    const before = this.#parts.get(module);
    if (part.isGuard === true && before !== undefined) this.#removeAddresses(module, before);
    this.#parts.set(module, part);
    if (this.#gathering) return;
    try {
      this.#commit();
    } catch (error) {
      if (before === undefined) this.#parts.delete(module);
      else this.#parts.set(module, before);
      throw error;
    }
    this.#addAddresses(module, part);
  }

  /**
   * Ends the gathering of parts that an agent does when it takes over a live filter: one flip for
   * all of them, because a commit without one of them would silence it for a moment.
   */
  release(): void {
    if (!this.#gathering) return;
    this.#gathering = false;
    this.#commit();
    for (const [module, part] of this.#parts) this.#addAddresses(module, part);
  }

  /** Takes a module's addresses and rules away; true when no module is left on the device. */
  removePart(module: string): boolean {
    const part = this.#parts.get(module);
    if (part !== undefined) {
      this.#removeAddresses(module, part);
      this.#parts.delete(module);
      this.#commit();
    }
    return this.#parts.size === 0;
  }

  /** Tells the neighbours that a VIP in vmac_directed is here. */
  announce(module: string): void {
    const mac = this.#options.link.devices().find((device) => device.name === this.name)?.mac;
    const part = this.#parts.get(module);
    if (mac === undefined || part === undefined) return;
    for (const vip of part.vips)
      this.#options.link.announce(this.name, vip.addr, vip.farmMac ?? mac);
  }

  /** Who else spoke as this VIP of a module, and when (CLOCK_BOOTTIME); null: nobody since the last commit. */
  claim(module: string, addr: string): FilterClaim | null {
    const place = this.#places.get(module);
    const at = this.#parts.get(module)?.vips.findIndex((vip) => vip.addr === addr) ?? -1;
    return place === undefined || at < 0 ? null : this.#filter.claim(place.vip + at);
  }

  /**
   * The buckets in which this node still has TCP sockets, per group of the module.
   * Empty when the module has no part here.
   */
  async socketBuckets(module: string): Promise<readonly Uint8Array[]> {
    const part = this.#parts.get(module);
    if (part === undefined) return [];
    const maps = await this.#filter.socketBuckets(this.#merge());
    const first = this.#places.get(module)?.table ?? 0;
    return maps.slice(first, first + part.tables.length);
  }

  /** Detaches the filter; only when no module is left. */
  close(): void {
    this.#filter.detach();
  }

  #addAddresses(module: string, part: DevicePart): void {
    if (part.isGuard === true || sameVips(this.#added.get(module) ?? [], part.vips)) return;
    for (const vip of part.vips) {
      if (vip.farmMac !== null) this.#options.link.allowMac(this.name, vip.farmMac);
      this.#options.link.addAddress(this.name, vip.addr, vip.prefix);
    }
    this.#added.set(module, part.vips);
  }

  #removeAddresses(module: string, part: DevicePart): void {
    if (part.isGuard === true) return;
    this.#added.delete(module);
    for (const vip of part.vips) {
      this.#options.link.removeAddress(this.name, vip.addr, vip.prefix);
      if (vip.farmMac !== null) this.#options.link.disallowMac(this.name, vip.farmMac);
    }
  }

  #commit(): void {
    this.#filter.commit(this.#merge());
  }

  #merge(): FilterConfig {
    const vips: FilterVip[] = [];
    const rules: FilterRule[] = [];
    const tables: FilterTable[] = [];
    const places = new Map<string, { readonly vip: number; readonly table: number }>();
    const isGuard = ([, part]: readonly [string, DevicePart]): boolean => part.isGuard === true;
    const parts = [...this.#parts].toSorted((a, b) => Number(isGuard(a)) - Number(isGuard(b)));
    for (const [name, part] of parts) {
      // An address that is served needs its place more than one that is guarded.
      if (part.isGuard && vips.length + part.vips.length > filterLimits.vips) continue;
      const firstVip = vips.length;
      const firstTable = tables.length;
      places.set(name, { vip: firstVip, table: firstTable });
      for (const vip of part.vips) {
        vips.push({
          addr: vip.addr,
          mode: vip.mode,
          farmMac: vip.farmMac,
          leaseSlot: part.leaseSlot,
          arpTable: vip.arpGroup < 0 ? -1 : firstTable + vip.arpGroup,
        });
      }
      for (const { vips: ownVips, group, ...rule } of part.rules) {
        rules.push({
          ...rule,
          vips: ownVips.map((vip) => firstVip + vip),
          table: firstTable + group,
        });
      }
      tables.push(...part.tables);
    }
    this.#places = places;
    return {
      vips,
      rules,
      tables,
      hashKey: this.#options.hashKey,
      me: this.#options.me,
      macs: this.#macs,
    };
  }
}

function sameVips(a: readonly PartVip[], b: readonly PartVip[]): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/**
 * Keeps the kernel from naming a VIP in ARP requests with this server's own MAC: a neighbour that
 * learns it would send everything here (reference: Documentation/networking/ip-sysctl.rst,
 * arp_announce). The egress guard of the filter catches what is left.
 */
function quietKernel(device: string): void {
  for (const [file, value] of [
    [`/proc/sys/net/ipv4/conf/${device}/arp_announce`, '2'],
    [`/proc/sys/net/ipv4/conf/${device}/drop_unicast_in_l2_multicast`, '0'],
  ] as const) {
    if (readFileSync(file, 'utf8').trim() !== value) writeFileSync(file, value);
  }
}
