/**
 * What the modules of a node share in the kernel and on the wire: devices with their filters, lease
 * slots, and the module part of the heartbeats.
 */
import { existsSync } from 'node:fs';
import { BlockList, isIPv4 } from 'node:net';
import { join } from 'node:path';
import type { ClusterConfig, ModuleConfig, VipInterface } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { Beat, BeatConfig, BeatModule } from '../native/beat.ts';
import type { Filter } from '../native/filter.ts';
import type { Link, LinkAddress } from '../native/link.ts';
import { FarmDevice } from './device.ts';
import type { PeerTable } from './peers.ts';
import { suspectMs } from './timing.ts';

/** Slots of the lease map; see native/filter/farm_abi.h. */
export const leaseSlotCount = 64;

export interface FabricOptions {
  readonly me: number;
  readonly beat: Beat;
  readonly link: Link;
  readonly peers: PeerTable;
  readonly openFilter: (options: { device: string; pinDir: string }) => Filter;
  /** Folder of the pins. */
  readonly pinDir: string;
  readonly clusterId: string;
  readonly beatKey: Uint8Array;
  readonly hashKey: Uint8Array;
}

export class Fabric {
  readonly #options: FabricOptions;
  readonly #devices = new Map<string, FarmDevice>();
  readonly #slots = new Map<string, number>();
  readonly #announced = new Map<string, BeatModule>();
  #cluster: ClusterConfig;
  /** Until all modules that a former agent left are back, their parts and announcements gather. */
  #gathering = true;

  constructor(cluster: ClusterConfig, options: FabricOptions) {
    this.#cluster = cluster;
    this.#options = options;
    this.#configureBeat();
  }

  get clusterId(): string {
    return this.#options.clusterId;
  }

  get link(): Link {
    return this.#options.link;
  }

  /** Name of the server of the cluster whose device has this MAC, as it said; null: none. */
  serverOf(mac: string): string | null {
    for (const lan of this.#cluster.lans) {
      const own = this.#macOf(this.#deviceOfLan(lan.name)) ?? '';
      const id = this.#options.peers.macs(lan.name, own).indexOf(mac);
      if (id >= 0) return this.#cluster.nodes.find((node) => node.id === id)?.name ?? null;
    }
    return null;
  }

  setCluster(cluster: ClusterConfig): void {
    this.#cluster = cluster;
    this.#configureBeat();
    this.updateMacs();
  }

  /** The lease slot of a module; the same as before when its former agent had one. */
  takeSlot(module: string, wanted: number | null): number {
    const taken = new Set(this.#slots.values());
    const known = this.#slots.get(module);
    if (known !== undefined) return known;
    let slot = wanted !== null && !taken.has(wanted) ? wanted : 0;
    while (taken.has(slot)) slot++;
    if (slot >= leaseSlotCount) throw new HoldfastError('HF-AGENT-011', { max: leaseSlotCount });
    this.#slots.set(module, slot);
    return slot;
  }

  releaseSlot(module: string): void {
    this.#slots.delete(module);
  }

  /** One device for each interface of the module, opened where needed. HF-AGENT-008. */
  devicesFor(config: ModuleConfig, node: string): readonly FarmDevice[] {
    return (config.vip?.interfaces ?? []).map((iface) => {
      const name = iface.name ?? this.#deviceOf(config, iface);
      if (name === null) throw new HoldfastError('HF-AGENT-008', { node, module: config.name });
      return this.#open(name);
    });
  }

  /** Detaches the filter of devices that no module uses. */
  closeDevices(devices: readonly FarmDevice[]): void {
    for (const device of devices) {
      if (device.modules().length > 0) continue;
      this.#devices.delete(device.name);
      device.close();
    }
  }

  devices(): readonly FarmDevice[] {
    return [...this.#devices.values()];
  }

  /** All that the former agent left is back: the gathered parts and announcements take effect. */
  release(): void {
    this.#gathering = false;
    this.#say();
    for (const device of this.#devices.values()) device.release();
  }

  announce(module: string, entry: BeatModule): void {
    this.#announced.set(module, entry);
    this.#say();
  }

  silence(module: string): void {
    if (this.#announced.delete(module)) this.#say();
  }

  /** The heartbeats speak of all modules at once: one that is not among them is taken as ended. */
  #say(): void {
    if (!this.#gathering) this.#options.beat.announce([...this.#announced.values()]);
  }

  /** MAC of this node's device on each lan. */
  ownMacs(): Readonly<Record<string, string>> {
    const macs: Record<string, string> = {};
    for (const lan of this.#cluster.lans) {
      const mac = this.#macOf(this.#deviceOfLan(lan.name));
      if (mac !== null) macs[lan.name] = mac;
    }
    return macs;
  }

  /** Gives the devices the MACs of the peers; needed by vmac_directed alone. */
  updateMacs(): void {
    for (const lan of this.#cluster.lans) {
      const name = this.#deviceOfLan(lan.name);
      const device = name === null ? undefined : this.#devices.get(name);
      const own = this.#macOf(name);
      if (device !== undefined && own !== null) {
        device.setMacs(this.#options.peers.macs(lan.name, own));
      }
    }
  }

  #open(name: string): FarmDevice {
    const known = this.#devices.get(name);
    if (known !== undefined) return known;
    const { link, me, hashKey, openFilter, pinDir } = this.#options;
    const device = new FarmDevice(
      { device: name, pinDir, hashKey, me, link, openFilter },
      this.#gathering,
    );
    this.#devices.set(name, device);
    // The lease map is pinned by the first filter; until then there was nothing to renew.
    this.#configureBeat();
    this.updateMacs();
    return device;
  }

  #configureBeat(): void {
    this.#options.beat.configure(this.#beatConfig());
  }

  #beatConfig(): BeatConfig {
    const { me, clusterId, beatKey, pinDir } = this.#options;
    const leaseMap = join(pinDir, 'leases');
    const cluster = this.#cluster;
    return {
      clusterId,
      me,
      key: beatKey,
      lans: cluster.lans.flatMap((lan) => {
        const own = lan.nodes.find((entry) => entry.node === me);
        if (own === undefined) return [];
        const peers = lan.nodes.filter((entry) => entry.node !== me);
        return [
          {
            name: lan.name,
            local: own.laddr,
            port: cluster.port,
            peers: peers.map(({ node, addr }) => ({ node, addr })),
          },
        ];
      }),
      heartbeatMs: cluster.heartbeatMs,
      suspectMs: suspectMs(cluster),
      leaseMs: cluster.leaseMs,
      agentDeadlineMs: cluster.agentDeadlineMs,
      leaseMap: existsSync(leaseMap) ? leaseMap : null,
    };
  }

  /** A farm's is on its first network; a mirror's where its address belongs, else on its first network. */
  #deviceOf(config: ModuleConfig, iface: VipInterface): string | null {
    if (config.service.mode !== 'mirror') return this.#deviceOfLan(config.farmLans[0]);
    const vip = iface.virtualInterface?.addrs[0]?.addr;
    const own = this.#options.link.addresses();
    return (
      (vip === undefined ? null : nearestDevice(own, vip)) ??
      this.#deviceOfLan(config.heart?.heartbeats[0]?.lan)
    );
  }

  #deviceOfLan(lanName: string | undefined): string | null {
    const lan = this.#cluster.lans.find((entry) => entry.name === lanName);
    const own = lan?.nodes.find((entry) => entry.node === this.#options.me);
    if (own === undefined) return null;
    const found = this.#options.link.addresses().find((entry) => entry.addr === own.laddr);
    return found?.device ?? null;
  }

  #macOf(device: string | null): string | null {
    if (device === null) return null;
    return this.#options.link.devices().find((entry) => entry.name === device)?.mac ?? null;
  }
}

/** The device with an address in whose network another one is, the narrowest of them; null: none. */
export function nearestDevice(addresses: readonly LinkAddress[], other: string): string | null {
  const near = addresses.filter((entry) => contains(entry, other));
  return near.toSorted((a, b) => b.prefix - a.prefix)[0]?.device ?? null;
}

/** Is an address in the network of a device's address? A host's own (/32, /128) is no network. */
function contains({ addr, prefix }: LinkAddress, other: string): boolean {
  const family = isIPv4(addr) ? 'ipv4' : 'ipv6';
  if (isIPv4(other) !== isIPv4(addr) || prefix >= (family === 'ipv4' ? 32 : 128)) return false;
  const network = new BlockList();
  network.addSubnet(addr, prefix, family);
  return network.check(other, family);
}

/** FNV-1a, 32 bit: the module's key in heartbeats (reference: Fowler, Noll, Vo; offset basis 2166136261). */
export function moduleKey(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}
