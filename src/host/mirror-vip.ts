/**
 * The virtual IPs of a mirror that decides for itself: on the device, in its filter, and in the minds of the
 * neighbours. The filter answers for them while they are open and the module's lease runs (native/beat); a
 * lease that lapses silences them in the kernel, whatever this process does. While they are off the filter
 * still knows them, so that nothing leaves as them. docs/internals/mirror-address.md
 */
import type { ModuleConfig, VipInterface } from '../config/model.ts';
import { bucketCount, nobody, tableFlag } from '../core/farm-types.ts';
import type { FilterTable } from '../native/filter.ts';
import type { Link } from '../native/link.ts';
import type { DevicePart, FarmDevice, PartRule, PartVip } from './device.ts';
import type { Alert, PairStatus } from './face.ts';
import { type Neighbour, NeighbourWatch } from './neighbours.ts';

export interface MirrorVipPorts {
  readonly me: number;
  /** One for each `<interface>` of the configuration, in its order (Fabric.devicesFor). */
  readonly devices: readonly FarmDevice[];
  readonly leaseSlot: number;
  readonly link: Pick<Link, 'probe' | 'ask' | 'resetConnections'>;
  readonly nowMs: () => number;
  /** The server of the cluster whose device has this MAC; null: none. */
  readonly serverOf: (mac: string) => string | null;
  /** Gateway of the default route through a device; null: none. */
  readonly gatewayOf: (device: string, addr: string) => string | null;
  readonly record: (text: string, data: Readonly<Record<string, unknown>>) => void;
  readonly alert: (id: string, on: boolean, severity: Alert['severity'], message: string) => void;
}

export type VipOrder = 'probe' | 'on' | 'open' | 'shut' | 'off';

const done = { off: 'taken off', shut: 'shut', on: 'put on', open: 'opened' } as const;

/** What a device carries of the module. */
interface Place {
  readonly device: FarmDevice;
  readonly vips: readonly PartVip[];
  readonly pace: Pick<VipInterface, 'arpreroute' | 'arpIntervalMs' | 'arpElapseMs'>;
  /** When its addresses are announced next. */
  nextMs: number;
}

/**
 * Announcements after the address opened. Linux takes several within a second for one (locktime), so they are
 * spread; the later ones are for ports that a switch opens late.
 */
const announceMs = [0, 200, 1300, 2500, 5000, 10_000, 20_000] as const;
/** And from then on, so that whoever was told something else meanwhile comes back. */
const refreshMs = 60_000;
/** What the kernel refused is tried again. */
const retryMs = 1000;

export class MirrorVip {
  readonly #config: ModuleConfig;
  readonly #ports: MirrorVipPorts;
  readonly #places: readonly Place[];
  readonly #neighbours: NeighbourWatch;
  /** What was asked for last, and where the addresses are as far as is known. */
  #wanted: VipOrder = 'off';
  #is: 'none' | 'off' | 'shut' | 'open' = 'none';
  #openedMs = 0;
  #timer: NodeJS.Timeout | null = null;
  #retry: NodeJS.Timeout | null = null;
  /** How often in a row the kernel refused to speak for the address. */
  #muted = 0;
  /** Addresses are being taken off: what is asked for next comes after it. */
  #work: Promise<void> = Promise.resolve();
  #abandoned = false;

  constructor(config: ModuleConfig, ports: MirrorVipPorts) {
    this.#config = config;
    this.#ports = ports;
    this.#places = placesOf(config, ports.devices);
    this.#neighbours = new NeighbourWatch(config.name, this.#addresses(), {
      ...ports,
      announce: () => this.#announceAll(),
      claim: (addr) =>
        this.#places
          .find(({ vips }) => vips.some((vip) => vip.addr === addr))
          ?.device.claim(config.name, addr) ?? null,
    });
  }

  /**
   * Performs an effect of the core; effects are performed in the order of the calls. Resolves when it is in
   * force: `probe` at once, `off` when the connections are reset and the addresses are gone. Never rejects:
   * what the kernel refuses is an alert, and tried again.
   */
  perform(vip: VipOrder): Promise<void> {
    if (vip === 'probe') {
      void this.#neighbours.probe();
      return Promise.resolve();
    }
    this.#wanted = vip;
    this.#stopTimers();
    // The filter shuts now, not after what is under way.
    if (vip !== 'open') this.#shut();
    this.#work = this.#work.then(() => this.#move(vip));
    return this.#work;
  }

  /**
   * Where nothing was done yet: the filter knows the addresses, which are not here. So it is from the start of
   * the module until its stop, whenever they are off.
   */
  guard(): void {
    if (this.#is !== 'none') return;
    if (this.#try(() => this.#setParts('off'), 'off', 'guarded')) this.#is = 'off';
  }

  /**
   * An agent that follows, on a server where the addresses are: the same state of the filter, once the fabric
   * releases what it gathers. The neighbours know, and are told again at the next refresh.
   */
  adopt(isOpen: boolean): void {
    this.#wanted = isOpen ? 'open' : 'on';
    this.#is = isOpen ? 'open' : 'shut';
    this.#setParts(this.#is);
    if (isOpen) this.#startAnnouncing(announceMs.at(-1) ?? 0);
  }

  /** Tells the neighbours again: the lease runs again, or a device came back. */
  reannounce(): void {
    if (this.#is === 'open' && !this.#abandoned) this.#startAnnouncing(0);
  }

  status(): NonNullable<PairStatus['vip']> {
    const info = this.#places[0]?.device.info() ?? null;
    return {
      addrs: this.#addresses().map(({ addr }) => addr),
      open: this.#is === 'open',
      device: info?.device ?? null,
      hook: info?.hook ?? null,
    };
  }

  get devices(): readonly FarmDevice[] {
    return this.#ports.devices;
  }

  /** Takes everything off at once; returns the devices that have no module left. */
  remove(): readonly FarmDevice[] {
    this.abandon();
    return this.#places
      .filter(({ device }) => device.removePart(this.#config.name))
      .map(({ device }) => device);
  }

  /** Ends the timers and leaves everything in the kernel, for the agent that follows. */
  abandon(): void {
    this.#abandoned = true;
    this.#stopTimers();
    this.#neighbours.stop();
  }

  #addresses(): readonly Neighbour[] {
    return this.#places.flatMap(({ device, vips }) =>
      vips.map(({ addr }) => ({ device: device.name, addr })),
    );
  }

  #shut(): void {
    if (this.#is !== 'open') return;
    this.#neighbours.stop();
    if (this.#try(() => this.#setParts('shut'), 'shut')) this.#is = 'shut';
  }

  async #move(to: Exclude<VipOrder, 'probe'>): Promise<void> {
    // What came later is what counts; an `off` is carried out all the same, for its resets.
    if (this.#abandoned || (to !== this.#wanted && to !== 'off')) return;
    if (to === 'off') {
      if (this.#is === 'none') this.guard();
      else if (this.#is !== 'off') await this.#takeOff();
    } else if (to === 'on') {
      if (
        (this.#is === 'none' || this.#is === 'off') &&
        this.#try(() => this.#setParts('shut'), 'on')
      )
        this.#is = 'shut';
    } else if (to === 'open' && this.#is !== 'open') {
      if (!this.#try(() => this.#setParts('open'), 'open')) return;
      this.#is = 'open';
      this.#startAnnouncing(0);
    }
  }

  async #takeOff(): Promise<void> {
    const { link, record } = this.#ports;
    if (this.#config.vip?.tcpreset === true) {
      for (const { addr } of this.#addresses()) {
        try {
          // oxlint-disable-next-line no-await-in-loop
          const count = await link.resetConnections(addr);
          if (count > 0) record(`${count} connections of ${addr} were reset`, { addr, count });
        } catch (error) {
          record(`connections of ${addr} were not reset: ${reasonOf(error)}`, { addr });
        }
      }
    }
    if (this.#abandoned) return;
    if (!this.#try(() => this.#setParts('off'), 'off')) return;
    this.#is = 'off';
    this.#neighbours.forget();
  }

  /** What fails is tried again, until something else is asked for. */
  #try(work: () => void, order: Exclude<VipOrder, 'probe'>, what: string = done[order]): boolean {
    const id = `module.${this.#config.name}.vip`;
    try {
      work();
      this.#ports.alert(id, false, 'critical', '');
      return true;
    } catch (error) {
      const text = `the virtual IP of ${this.#config.name} cannot be ${what}: ${reasonOf(error)}`;
      this.#ports.alert(id, true, 'critical', text);
      this.#retry = setTimeout(() => void this.perform(order), retryMs).unref();
      return false;
    }
  }

  #setParts(to: 'off' | 'shut' | 'open'): void {
    for (const place of this.#places) {
      place.device.setPart(this.#config.name, this.#part(place, to));
    }
  }

  #part({ vips }: Place, to: 'off' | 'shut' | 'open'): DevicePart {
    const { me, leaseSlot } = this.#ports;
    if (to === 'off') {
      const guarded = vips.map((vip) => ({ ...vip, arpGroup: -1 }));
      return { vips: guarded, rules: [], tables: [], leaseSlot, isGuard: true };
    }
    return { vips, rules: rulesFor(vips), tables: [ownedBy(to === 'open' ? me : null)], leaseSlot };
  }

  /** As if the address had opened so long ago. */
  #startAnnouncing(agoMs: number): void {
    this.#stopTimers();
    this.#openedMs = this.#ports.nowMs() - agoMs;
    this.#muted = 0;
    for (const place of this.#places) {
      place.nextMs = agoMs === 0 ? this.#openedMs : this.#openedMs + agoMs + refreshMs;
    }
    this.#neighbours.start(this.#openedMs);
    this.#announceDue();
  }

  #announceDue(): void {
    if (this.#is !== 'open' || this.#abandoned || this.#places.length === 0) return;
    const nowMs = this.#ports.nowMs();
    for (const place of this.#places) {
      if (place.nextMs > nowMs) continue;
      this.#announce(place);
      place.nextMs = this.#openedMs + nextAnnouncementMs(nowMs - this.#openedMs, place.pace);
    }
    const nextMs = Math.min(...this.#places.map((place) => place.nextMs));
    this.#timer = setTimeout(() => this.#announceDue(), Math.max(1, nextMs - nowMs)).unref();
  }

  #announceAll(): void {
    if (this.#is !== 'open' || this.#abandoned) return;
    for (const place of this.#places) this.#announce(place);
  }

  #announce({ device }: Place): void {
    try {
      device.announce(this.#config.name);
      this.#muted = 0;
    } catch (error) {
      // While the lease withholds the address the kernel refuses to speak for it, as it must. A lease by
      // consent begins a moment after the address opened: the first refusal is no news.
      if (++this.#muted === 2) {
        this.#ports.record(`the virtual IP is not announced: ${reasonOf(error)}`, {});
      }
    }
  }

  #stopTimers(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#timer = this.#retry = null;
  }
}

/**
 * For an agent that follows nobody whose state it knows: addresses that are here all the same are taken off,
 * before the fabric releases filters that know nothing of them. Throws HF-NATIVE-020.
 */
export function clearAddresses(
  { vip }: ModuleConfig,
  link: Pick<Link, 'addresses' | 'removeAddress'>,
  record: MirrorVipPorts['record'],
): void {
  const own = new Set(
    (vip?.interfaces ?? []).flatMap(({ virtualInterface }) =>
      (virtualInterface?.addrs ?? []).map(({ addr }) => addr),
    ),
  );
  for (const { device, addr, prefix } of link.addresses()) {
    if (!own.has(addr)) continue;
    link.removeAddress(device, addr, prefix);
    record(`${addr} was left on ${device}, and is taken off`, { device, addr });
  }
}

/** When to announce again, both counted from the moment at which the address opened. */
export function nextAnnouncementMs(
  sinceOpenMs: number,
  pace: Pick<VipInterface, 'arpreroute' | 'arpIntervalMs' | 'arpElapseMs'>,
): number {
  const planned = announceMs.find((atMs) => atMs > sinceOpenMs) ?? sinceOpenMs + refreshMs;
  const again = sinceOpenMs + pace.arpIntervalMs;
  return pace.arpreroute && again <= pace.arpElapseMs ? Math.min(planned, again) : planned;
}

/** Two interfaces of the configuration may lead to one device. */
function placesOf(config: ModuleConfig, devices: readonly FarmDevice[]): readonly Place[] {
  const places = new Map<FarmDevice, Place>();
  for (const [index, device] of devices.entries()) {
    const iface = config.vip?.interfaces[index];
    const addrs = iface?.virtualInterface?.addrs ?? [];
    if (iface === undefined || addrs.length === 0) continue;
    const vips = addrs.map(
      ({ addr, prefix }): PartVip => ({
        addr,
        prefix,
        mode: 'vmac_directed',
        farmMac: null,
        arpGroup: 0,
      }),
    );
    const before = places.get(device);
    const place = before ?? { device, vips: [], pace: iface, nextMs: 0 };
    places.set(device, { ...place, vips: [...place.vips, ...vips] });
  }
  return [...places.values()];
}

/** Everything to the addresses that has ports, and ICMP. */
function rulesFor(vips: readonly PartVip[]): readonly PartRule[] {
  const all = { vips: [...vips.keys()], portLow: 0, portHigh: 65_535, group: 0 } as const;
  return (['tcp', 'udp', 'icmp'] as const).map((proto) => ({ ...all, proto, hash: 'on_addr' }));
}

function ownedBy(node: number | null): FilterTable {
  return {
    flags: new Uint8Array(bucketCount).fill(node === null ? 0 : tableFlag.own),
    owner: new Uint8Array(bucketCount).fill(node ?? nobody),
    holder: new Uint8Array(bucketCount).fill(nobody),
  };
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
