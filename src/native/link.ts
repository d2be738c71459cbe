/** The typed face of native/link: addresses, neighbours and announcements by rtnetlink and raw frames. */
import assert from 'node:assert';
import { isIP } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { HoldfastError } from '../errors.ts';
import { loadAddon } from './load.ts';

export interface LinkDevice {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  readonly up: boolean;
  readonly mtu: number;
}

export interface LinkAddress {
  readonly device: string;
  readonly addr: string;
  readonly prefix: number;
}

export type LinkEvent =
  /** A device came up with carrier, lost it, or is gone; only changes are told. */
  | { readonly kind: 'link'; readonly device: string; readonly up: boolean }
  | {
      readonly kind: 'addr';
      readonly device: string;
      readonly addr: string;
      readonly added: boolean;
    }
  /** The kernel had more to tell than could be kept: read devices() and addresses() anew. */
  | { readonly kind: 'overrun' };

export interface Link {
  devices(): readonly LinkDevice[];
  addresses(): readonly LinkAddress[];
  /** Adds an address (IPv6 without duplicate address detection); no error when it is there. */
  addAddress(device: string, addr: string, prefix: number): void;
  /** Removes an address; no error when it is not there. */
  removeAddress(device: string, addr: string, prefix: number): void;
  /** Lets frames for a further MAC through the NIC's filter (fdb self entry, else promiscuous mode). */
  allowMac(device: string, mac: string): 'fdb' | 'promiscuous';
  disallowMac(device: string, mac: string): void;
  /**
   * Gratuitous ARP request + reply, or unsolicited NA with Override, once. The frames say that addr is
   * at mac, but come from the device's own MAC: a switch must not learn where a farm MAC lives.
   */
  announce(device: string, addr: string, mac: string): void;
  /**
   * Asks by ARP or NS who has the address, three times within timeoutMs (1 to 60000); resolves to the MAC of
   * another host that answers or announces it, or null.
   */
  probe(device: string, addr: string, timeoutMs: number): Promise<string | null>;
  /**
   * Asks by ARP or NS for `target` as `from`, which is at the device's own MAC: who has the target learns that.
   * Three times within timeoutMs; resolves to the MAC that answered `from`, or null.
   */
  ask(device: string, from: string, target: string, timeoutMs: number): Promise<string | null>;
  /** Ends local TCP connections that use this address (SOCK_DESTROY); returns how many. */
  resetConnections(addr: string): Promise<number>;
  /** Changes from now on; one listener. */
  onEvents(listener: (event: LinkEvent) => void): void;
  /** Sends a state line to the service manager ($NOTIFY_SOCKET); false when there is none. */
  notify(state: string): boolean;
  close(): void;
}

interface NativeEvent {
  readonly kind: 'link' | 'addr' | 'overrun';
  readonly on: boolean;
  readonly index: number;
  readonly device: string;
  readonly addr: string;
}

interface NativeLink {
  devices(): (LinkDevice & { readonly index: number })[];
  addresses(): { readonly index: number; readonly addr: string; readonly prefix: number }[];
  addAddress(device: string, addr: string, prefix: number): void;
  removeAddress(device: string, addr: string, prefix: number): void;
  allowMac(device: string, mac: string): boolean;
  disallowMac(device: string, mac: string): void;
  announce(device: string, addr: string, mac: string): void;
  probe(device: string, addr: string, timeoutMs: number): Promise<string | null>;
  ask(device: string, from: string, target: string, timeoutMs: number): Promise<string | null>;
  resetConnections(addr: string): Promise<number>;
  watch(listener: (events: readonly NativeEvent[]) => void): void;
  close(): void;
}

interface LinkAddon {
  readonly Link: new () => NativeLink;
  notify(state: string): boolean;
}

/** An error of the addon (errno, syscall) as one of the registry. */
function refused(what: string, error: unknown): HoldfastError {
  const { errno, syscall } = error as { errno?: number; syscall?: string };
  const reason =
    errno === undefined ? String(error) : `${syscall ?? ''}: ${getSystemErrorName(-errno)}`;
  return new HoldfastError('HF-NATIVE-020', { what, reason }, null, error);
}

const probeMsMax = 60_000;

function checkAddress(addr: string, prefix?: number): void {
  const family = isIP(addr);
  assert(family !== 0, `${addr} is not an address`);
  assert(prefix === undefined || (prefix >= 0 && prefix <= (family === 4 ? 32 : 128)), 'prefix');
}

/** Opens the engine for the network namespace of this process. Throws HF-NATIVE-001 and -020. */
export function openLink(): Link {
  return new NetlinkLink(loadAddon('link') as LinkAddon);
}

class NetlinkLink implements Link {
  private readonly addon: LinkAddon;
  private readonly native: NativeLink;
  /** Whether each device was up when last told, by index: the kernel repeats itself. */
  private readonly wasUp = new Map<number, boolean>();

  constructor(addon: LinkAddon) {
    this.addon = addon;
    this.native = new addon.Link();
  }

  private call<T>(what: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw refused(what, error);
    }
  }

  devices(): readonly LinkDevice[] {
    return this.call('to list the devices', () => this.native.devices());
  }

  addresses(): readonly LinkAddress[] {
    const names = new Map(this.devices().map((device) => [device.index, device.name]));
    const list = this.call('to list the addresses', () => this.native.addresses());
    return list.flatMap(({ index, addr, prefix }) => {
      const device = names.get(index);
      return device === undefined ? [] : [{ device, addr, prefix }];
    });
  }

  addAddress(device: string, addr: string, prefix: number): void {
    checkAddress(addr, prefix);
    this.call(`to add ${addr}/${prefix} to ${device}`, () =>
      this.native.addAddress(device, addr, prefix),
    );
  }

  removeAddress(device: string, addr: string, prefix: number): void {
    checkAddress(addr, prefix);
    this.call(`to remove ${addr}/${prefix} from ${device}`, () =>
      this.native.removeAddress(device, addr, prefix),
    );
  }

  allowMac(device: string, mac: string): 'fdb' | 'promiscuous' {
    const fdb = this.call(`to let ${mac} in on ${device}`, () => this.native.allowMac(device, mac));
    return fdb ? 'fdb' : 'promiscuous';
  }

  disallowMac(device: string, mac: string): void {
    this.call(`to shut ${mac} out on ${device}`, () => this.native.disallowMac(device, mac));
  }

  announce(device: string, addr: string, mac: string): void {
    checkAddress(addr);
    this.call(`to announce ${addr} on ${device}`, () => this.native.announce(device, addr, mac));
  }

  async probe(device: string, addr: string, timeoutMs: number): Promise<string | null> {
    checkAddress(addr);
    assert(timeoutMs >= 1 && timeoutMs <= probeMsMax, 'timeoutMs');
    try {
      return await this.native.probe(device, addr, Math.round(timeoutMs));
    } catch (error) {
      throw refused(`to probe for ${addr} on ${device}`, error);
    }
  }

  async ask(
    device: string,
    from: string,
    target: string,
    timeoutMs: number,
  ): Promise<string | null> {
    checkAddress(from);
    checkAddress(target);
    assert(timeoutMs >= 1 && timeoutMs <= probeMsMax, 'timeoutMs');
    try {
      return await this.native.ask(device, from, target, Math.round(timeoutMs));
    } catch (error) {
      throw refused(`to ask for ${target} as ${from} on ${device}`, error);
    }
  }

  async resetConnections(addr: string): Promise<number> {
    checkAddress(addr);
    try {
      return await this.native.resetConnections(addr);
    } catch (error) {
      throw refused(`to end the connections of ${addr}`, error);
    }
  }

  onEvents(listener: (event: LinkEvent) => void): void {
    const tell = (events: readonly NativeEvent[]) => {
      for (const event of events) {
        const told = this.translate(event);
        if (told !== null) listener(told);
      }
    };
    for (const { index, up } of this.native.devices()) this.wasUp.set(index, up);
    this.call('to watch the devices', () => this.native.watch(tell));
    // What changed between the two lines above is told here; so nothing falls between.
    for (const { index, name, up } of this.native.devices()) {
      tell([{ kind: 'link', on: up, index, device: name, addr: '' }]);
    }
  }

  private translate(event: NativeEvent): LinkEvent | null {
    const { kind, device, addr, on, index } = event;
    if (kind === 'overrun') return { kind };
    if (kind === 'addr') return { kind, device, addr, added: on };
    if (this.wasUp.get(index) === on) return null;
    this.wasUp.set(index, on);
    return { kind, device, up: on };
  }

  notify(state: string): boolean {
    return this.addon.notify(state);
  }

  close(): void {
    this.native.close();
  }
}
