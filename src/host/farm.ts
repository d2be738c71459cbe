/**
 * The farm side of one module: feeds core/farm with what the node sees and performs its effects,
 * in order, on the filter, the heartbeats and the peer channel.
 */
import type {
  LoadGroup,
  LoadRule,
  ModuleConfig,
  VirtualAddr,
  VirtualInterface,
} from '../config/model.ts';
import type {
  CompiledTable,
  FarmEffect,
  FarmEvent,
  FarmTiming,
  Message,
  Snapshot,
} from '../core/farm-types.ts';
import { bitmapBytes, bucketCount, nobody, tableFlag } from '../core/farm-types.ts';
import { farmDeadline, farmInit, farmStep, type FarmState } from '../core/farm.ts';
import type { DevicePart, FarmDevice, PartRule, PartVip } from './device.ts';
import type { EventRecord, FarmStatus } from './face.ts';

/** What a farm needs of its node. */
export interface FarmPorts {
  readonly me: number;
  readonly nodeName: (node: number) => string;
  readonly nowMs: () => number;
  /** One for each `<interface>` of the configuration, in its order. */
  readonly devices: readonly FarmDevice[];
  readonly leaseSlot: number;
  /** Sets this module's part of the heartbeats and whether its lease is renewed. */
  readonly announce: (effect: Extract<FarmEffect, { kind: 'announce' }>) => void;
  readonly send: (to: number, message: Message) => void;
  readonly record: (
    kind: EventRecord['kind'],
    text: string,
    data: Readonly<Record<string, unknown>>,
  ) => void;
  readonly persist: (snapshot: Snapshot) => void;
  /** Tables or members may have changed. */
  readonly changed: () => void;
}

/** What one interface carries; the tables are the module's. */
interface Place {
  readonly device: FarmDevice;
  readonly vips: readonly PartVip[];
  readonly rules: readonly PartRule[];
}

/** When neighbours are told that another server answers now: again, as the word may be lost. */
const announceMs = [0, 200, 1300];

/** How often a node that keeps buckets for old connections counts these. */
const socketScanMs = 1000;

/** Without its times, which the farm fills in. */
type Untimed<E> = E extends FarmEvent ? Omit<E, 'nowMs'> : never;

export class Farm {
  readonly #config: ModuleConfig;
  readonly #ports: FarmPorts;
  readonly #places: readonly Place[];
  readonly #queue: FarmEvent[] = [];
  #state: FarmState;
  #tables: readonly CompiledTable[];
  #timer: NodeJS.Timeout | null = null;
  #scan: NodeJS.Timeout | null = null;
  #scanning = false;
  #scanAgain = false;
  #draining = false;
  #running = false;
  #serving = false;
  #view: Snapshot['view'] = null;
  #busy = false;
  #abandoned = false;
  readonly #idleWaiters = new Set<() => void>();

  constructor(
    config: ModuleConfig,
    nodes: readonly number[],
    timing: FarmTiming,
    ports: FarmPorts,
  ) {
    this.#config = config;
    this.#ports = ports;
    this.#places = ports.devices.map((device, index) => {
      const vips = partVips(config, index);
      return { device, vips, rules: partRules(config, vips) };
    });
    this.#tables = groupsOf(config).map(emptyTable);
    this.#state = farmInit({
      me: ports.me,
      nodes,
      timing,
      groups: groupsOf(config).map((group) => ({ name: group.name, powers: group.powers })),
    });
  }

  /** One more event; effects are performed before this returns, unless called from within one. */
  dispatch(event: Untimed<FarmEvent>): void {
    if (this.#abandoned) return;
    this.#queue.push({ ...event, nowMs: this.#ports.nowMs() } as FarmEvent);
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        if (next.kind === 'start') this.#running = true;
        if (next.kind === 'stop') this.#running = false;
        if (next.kind === 'drain') this.#draining = next.on;
        const [state, effects] = farmStep(this.#state, next);
        this.#state = state;
        for (const effect of effects) this.#perform(effect);
      }
    } finally {
      this.#busy = false;
    }
    this.#arm();
    this.#ports.changed();
    for (const waiter of [...this.#idleWaiters]) waiter();
  }

  /** Takes the VIPs and the rules off; returns the devices that have no module left. */
  remove(): readonly FarmDevice[] {
    this.abandon();
    return this.#places
      .filter((place) => place.device.removePart(this.#config.name))
      .map((place) => place.device);
  }

  /** Ends the timers and leaves everything in the kernel, for the agent that follows. */
  abandon(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#scan !== null) clearInterval(this.#scan);
    this.#timer = null;
    this.#scan = null;
    this.#abandoned = true;
  }

  get running(): boolean {
    return this.#running;
  }

  /** Buckets owned by this node over all groups: 0 when it takes no new client. */
  owned(): number {
    return this.#tables.reduce((sum, table) => sum + countFlag(table.flags, tableFlag.own), 0);
  }

  /** Buckets that this node keeps only for connections it still has. */
  holding(): number {
    return this.#tables.reduce((sum, table) => sum + countFlag(table.flags, tableFlag.hold), 0);
  }

  /** Resolves when this node owns and holds nothing, has stopped, or the time is over. */
  async idle(untilMs: number): Promise<void> {
    while (this.#running && this.#draining && this.owned() + this.holding() > 0) {
      const leftMs = untilMs - this.#ports.nowMs();
      if (leftMs <= 0) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(done, leftMs);
        const waiters = this.#idleWaiters;
        function done(): void {
          clearTimeout(timer);
          waiters.delete(done);
          resolve();
        }
        waiters.add(done);
      });
    }
  }

  get devices(): readonly FarmDevice[] {
    return this.#ports.devices;
  }

  status(): FarmStatus {
    const info = this.#ports.devices[0]?.info() ?? null;
    const view = this.#view;
    const members = view === null ? [] : maskNodes(view.members);
    return {
      viewEpoch: view?.epoch ?? 0,
      leader: view === null || view.leader === nobody ? null : this.#ports.nodeName(view.leader),
      members: members.map((node) => this.#ports.nodeName(node)),
      serving: this.#serving,
      draining: this.#draining,
      groups: groupsOf(this.#config).map((group, index) => ({
        name: group.name,
        buckets: countFlag(this.#tables[index]?.flags ?? new Uint8Array(), tableFlag.own),
        power: view?.powers[index]?.[this.#ports.me] ?? group.powers[this.#ports.me] ?? 0,
        holding: countFlag(this.#tables[index]?.flags ?? new Uint8Array(), tableFlag.hold),
      })),
      vips: this.#places.flatMap((place) => place.vips.map((vip) => vip.addr)),
      hook: info?.hook ?? null,
      device: info?.device ?? null,
      hookReasons: info?.reasons ?? [],
    };
  }

  #perform(effect: FarmEffect): void {
    switch (effect.kind) {
      case 'install':
        this.#tables = effect.tables;
        for (const place of this.#places)
          place.device.setPart(this.#config.name, this.#part(place));
        this.#queue.push({
          kind: 'installed',
          nowMs: this.#ports.nowMs(),
          install: effect.install,
        });
        this.#watchSockets();
        return;
      case 'announce':
        this.#serving = effect.serving;
        this.#ports.announce(effect);
        return;
      case 'send':
        this.#ports.send(effect.to, effect.message);
        return;
      case 'record':
        this.#ports.record(effect.record, effect.text, effect.data);
        return;
      case 'gratuitous':
        for (const delayMs of announceMs) setTimeout(() => this.#announce(), delayMs).unref();
        return;
      case 'count':
        void this.scanSockets();
        return;
      case 'persist':
        this.#view = effect.snapshot.view;
        this.#ports.persist(effect.snapshot);
        return;
    }
  }

  #announce(): void {
    if (this.#abandoned || !this.#running) return;
    try {
      for (const { device } of this.#places) device.announce(this.#config.name);
    } catch (error) {
      // While the lease withholds the VIP the kernel refuses to speak for it, as it must.
      const reason = error instanceof Error ? error.message : String(error);
      this.#ports.record('refusal', `the virtual IP was not announced: ${reason}`, {});
    }
  }

  #part(place: Place): DevicePart {
    return {
      vips: place.vips,
      rules: place.rules,
      tables: this.#tables,
      leaseSlot: this.#ports.leaseSlot,
    };
  }

  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const at = farmDeadline(this.#state);
    if (at === null) return;
    const delayMs = Math.max(0, Math.ceil(at - this.#ports.nowMs()));
    this.#timer = setTimeout(() => this.dispatch({ kind: 'tick' }), delayMs);
  }

  /** Counts connections while some bucket is only held; nothing runs otherwise. */
  #watchSockets(): void {
    const holding = this.#tables.some((table) => countFlag(table.flags, tableFlag.hold) > 0);
    if (holding === (this.#scan !== null)) return;
    if (this.#scan !== null) {
      clearInterval(this.#scan);
      this.#scan = null;
      return;
    }
    this.#scan = setInterval(() => void this.scanSockets(), socketScanMs);
  }

  /**
   * Lets the device know what this module has, before it is started: for a count of connections in
   * advance, on a device that still gathers (no effect on packets).
   */
  prepare(): void {
    for (const place of this.#places) place.device.setPart(this.#config.name, this.#part(place));
  }

  /** Tells the machine where this node has connections now. */
  async scanSockets(): Promise<void> {
    if (this.#scanning) {
      // The walk under way began too early to show what is asked for now.
      this.#scanAgain = true;
      return;
    }
    this.#scanning = true;
    const beganMs = this.#ports.nowMs();
    try {
      const maps = await Promise.all(
        this.#places.map(({ device }) => device.socketBuckets(this.#config.name)),
      );
      const groups = this.#tables.map((_table, group) =>
        unionOf(maps.map((perDevice) => perDevice[group])),
      );
      this.dispatch({ kind: 'sockets', beganMs, groups });
    } catch (error) {
      // Without a count the node keeps holding, which is the safe side; it is asked again.
      this.#ports.record('alert', `connections of ${this.#config.name} could not be counted`, {
        reason: error instanceof Error ? error.message : String(error),
      });
    } finally {
      this.#scanning = false;
    }
    if (!this.#scanAgain) return;
    this.#scanAgain = false;
    await this.scanSockets();
  }
}

/** The groups of a module; a farm without a load-balancing list has none. */
export function groupsOf(config: ModuleConfig): readonly LoadGroup[] {
  return config.vip?.groups ?? [];
}

function emptyTable(): CompiledTable {
  return {
    flags: new Uint8Array(bucketCount),
    owner: new Uint8Array(bucketCount).fill(nobody),
    holder: new Uint8Array(bucketCount).fill(nobody),
  };
}

function countFlag(flags: Uint8Array, bit: number): number {
  let count = 0;
  for (const flag of flags) if ((flag & bit) !== 0) count++;
  return count;
}

function maskNodes(mask: bigint): readonly number[] {
  const nodes: number[] = [];
  for (let node = 0; mask >> BigInt(node) !== 0n; node++) {
    if (((mask >> BigInt(node)) & 1n) === 1n) nodes.push(node);
  }
  return nodes;
}

/** Bits that are set in any of the maps. */
function unionOf(maps: readonly (Uint8Array | undefined)[]): Uint8Array {
  const union = new Uint8Array(bitmapBytes);
  for (const map of maps)
    map?.forEach((bits, index) => (union[index] = (union[index] ?? 0) | bits));
  return union;
}

function partVips(config: ModuleConfig, index: number): readonly PartVip[] {
  const virtual = config.vip?.interfaces[index]?.virtualInterface ?? null;
  return virtual === null ? [] : virtual.addrs.map((addr) => partVip(config, virtual, addr));
}

function partVip(config: ModuleConfig, virtual: VirtualInterface, addr: VirtualAddr): PartVip {
  const groups = groupsOf(config);
  const matches = (rule: LoadRule) => rule.virtualAddr === null || rule.virtualAddr === addr.addr;
  const arp = groups.findIndex((group) =>
    group.rules.some((rule) => rule.proto === 'arp' && matches(rule)),
  );
  return {
    addr: addr.addr,
    prefix: addr.prefix,
    mode: virtual.type,
    farmMac: virtual.mac,
    // A directed VIP needs exactly one answer per requester, also where no arp rule names a group.
    arpGroup: arp >= 0 ? arp : groups.length > 0 ? 0 : -1,
  };
}

function partRules(config: ModuleConfig, vips: readonly PartVip[]): readonly PartRule[] {
  const rules: PartRule[] = [];
  for (const [group, { rules: own }] of groupsOf(config).entries()) {
    for (const rule of own) {
      if (rule.proto === 'arp') continue;
      const matching = [...vips.keys()].filter(
        (index) => rule.virtualAddr === null || vips[index]?.addr === rule.virtualAddr,
      );
      rules.push({
        vips: matching,
        proto: rule.proto,
        portLow: rule.portLow,
        portHigh: rule.portHigh,
        hash: rule.filter,
        group,
      });
    }
  }
  return rules;
}
