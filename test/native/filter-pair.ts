/** A cable of two ends: f0 here, c0 with a client at the other end. For the filter's live tests. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createSocket } from 'node:dgram';
import { createServer, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  bucketCount,
  type FilterAddon,
  type FilterConfig,
  filterObjectPath,
  type NativeFilter,
} from '../../src/native/filter.ts';
import type { FarCommand } from './filter-far.ts';

export const device = 'f0';
export const pinDir = '/sys/fs/bpf/holdfast';
export const near = { vip4: '10.77.0.100', vip6: 'fd77::100' } as const;
export const far = { v4: '10.77.0.2', v6: 'fd77::2' } as const;
export const farmMac = '5a:fe:0a:4d:00:64';
export const hashKey = Uint8Array.from({ length: 16 }, (_, at) => at * 11);
export const tcpPort = 80;
export const udpPort = 53;
const leaseSlot = 9;

export function here(name: string): string {
  return join(dirname(fileURLToPath(import.meta.url)), name);
}

export function shell(line: string): string {
  return execFileSync('sh', ['-c', line], { stdio: ['ignore', 'pipe', 'pipe'] }).toString();
}

export class Pair {
  readonly #child: ChildProcess;
  readonly #addon: FilterAddon;
  readonly #servers: { close(): unknown }[] = [];

  private constructor(addon: FilterAddon, child: ChildProcess) {
    this.#addon = addon;
    this.#child = child;
  }

  /** Moves this process into a sandbox; once in its life. */
  static async make(addon: FilterAddon): Promise<Pair> {
    addon.sandbox();
    const child = spawn('unshare', ['-n', process.execPath, here('filter-far.js')], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    await once(child, 'message');
    const pair = new Pair(addon, child);
    await pair.#cable();
    await pair.#serve();
    return pair;
  }

  async #cable(): Promise<void> {
    shell(`ip link add ${device} type veth peer name c0 netns ${this.#child.pid}`);
    shell(`ip addr add 10.77.0.1/24 dev ${device}; ip addr add fd77::1/64 dev ${device} nodad`);
    shell(`ip link set ${device} up`);
    await this.shell('ip link set lo up; ip link set c0 up');
    await this.shell(`ip addr add ${far.v4}/24 dev c0; ip addr add ${far.v6}/64 dev c0 nodad`);
    await this.ask({ op: 'pass', device: 'c0' });
    shell(`ip addr add ${near.vip4}/32 dev ${device}`);
    shell(`ip addr add ${near.vip6}/128 dev ${device} nodad`);
  }

  async #serve(): Promise<void> {
    const echo: Server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.unref(); // its client's namespace may vanish without a word
      socket.pipe(socket);
    });
    echo.listen(tcpPort, '::');
    await once(echo, 'listening');
    this.#servers.push(echo);
    for (const addr of [near.vip4, near.vip6]) {
      const socket = createSocket(addr.includes(':') ? 'udp6' : 'udp4');
      socket.on('message', (message, from) => socket.send(message, from.port, from.address));
      socket.on('error', () => undefined);
      socket.bind(udpPort, addr);
      await once(socket, 'listening');
      this.#servers.push(socket);
    }
  }

  /** Carries out a command at the far end; one at a time. */
  async ask(command: FarCommand): Promise<unknown> {
    const reply = once(this.#child, 'message');
    this.#child.send(command);
    const [{ value, error }] = (await reply) as [{ value?: unknown; error?: string }];
    if (error !== undefined) throw new Error(error);
    return value;
  }

  shell(line: string): Promise<unknown> {
    return this.ask({ op: 'shell', line });
  }

  /** What the client gets of the VIPs: TCP and UDP, over IPv4 and IPv6. */
  answers(): Promise<unknown> {
    const addrs = [near.vip4, near.vip6];
    return this.ask({ op: 'answers', addrs, tcp: tcpPort, udp: udpPort });
  }

  /** Forgets neighbours, so that the next packet asks by ARP and NS again. */
  async forget(): Promise<void> {
    await this.shell('ip neigh flush dev c0');
  }

  /** Opens the lease through the pinned map, as the heartbeat thread does. */
  lease(open: boolean): void {
    this.adopt().setLease(leaseSlot, open ? 1n << 62n : 1n);
  }

  adopt(): NativeFilter {
    return new this.#addon.NativeFilter({
      device,
      pinDir,
      hook: 'auto',
      objectPath: filterObjectPath(),
    });
  }

  close(): void {
    for (const server of this.#servers) server.close();
    this.#child.disconnect();
    this.#child.kill();
  }
}

/** All buckets with the same flags. */
export function config(flags: number): FilterConfig {
  const table = {
    flags: new Uint8Array(bucketCount).fill(flags),
    owner: new Uint8Array(bucketCount).fill(0),
    holder: new Uint8Array(bucketCount).fill(255),
  };
  const vip = { mode: 'vmac_invisible', farmMac, leaseSlot, arpTable: -1 } as const;
  const vips = [
    { addr: near.vip4, ...vip },
    { addr: near.vip6, ...vip },
  ];
  const rule = { vips: [0, 1], hash: 'on_port', table: 0 } as const;
  return {
    vips,
    rules: [
      { ...rule, proto: 'tcp', portLow: tcpPort, portHigh: tcpPort },
      { ...rule, proto: 'udp', portLow: udpPort, portHigh: udpPort },
    ],
    tables: [table],
    hashKey,
    me: 0,
    macs: [],
  };
}
