/** What the filter's bench measures with: a veth pair of its own, frames, packets that really arrive. */
import { execFileSync } from 'node:child_process';
import {
  bucketCount,
  type FilterAddon,
  type FilterConfig,
  type NativeFd,
} from '../../src/native/filter.ts';
import { builtFile } from '../../src/native/load.ts';

export const vip = '10.9.0.100';
export const farmMac = '5a:fe:0a:09:00:64';
const sender = 'hfbench0';
export const receiver = 'hfbench1';

export function command(line: string): string {
  return execFileSync('sh', ['-c', line], { stdio: ['ignore', 'pipe', 'pipe'] }).toString();
}

export interface Rig {
  readonly mac: string;
  /** ns per packet, the mean over `count` packets. A run in which packets were lost is repeated. */
  send(frame: Uint8Array, count: number): number;
}

function received(): number {
  const [link] = JSON.parse(command(`ip -j -s link show ${receiver}`)) as {
    stats64: { rx: { packets: number } };
  }[];
  return link?.stats64.rx.packets ?? 0;
}

/** Call in a sandbox of its own. */
export function makeRig(addon: FilterAddon): Rig {
  command(`ip link add ${sender} type veth peer name ${receiver}`);
  command(`ip addr add 10.9.0.1/24 dev ${receiver}`);
  command(`ip link set ${sender} up; ip link set ${receiver} up`);
  addon.setGro(receiver, true);
  addon.setGro(sender, true);
  const generator: NativeFd = addon.loadProgram(builtFile('filter_bench.bpf.o'), 'bench_send');
  const [link] = JSON.parse(command(`ip -j link show ${receiver}`)) as { address: string }[];
  return {
    mac: link?.address ?? '',
    send(frame, count) {
      for (let attempt = 0; attempt < 20; attempt++) {
        const before = received();
        const ns = addon.sendLive(generator, sender, frame, count);
        if (received() - before >= count * 0.98) return ns;
      }
      throw new Error('packets are lost between the ends of the veth pair, run after run');
    },
  };
}

function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** A minimum-size frame to the VIP's port 80; the generator puts in the client. */
export function frameOf(toMac: string, proto: 'udp' | 'tcp'): Uint8Array {
  const frame = new Uint8Array(60);
  const view = new DataView(frame.buffer);
  frame.set(
    toMac.split(':').map((part) => Number.parseInt(part, 16)),
    0,
  );
  frame.set([2, 0, 0, 0, 0, 9], 6);
  view.setUint16(12, 0x0800);
  view.setUint8(14, 0x45);
  view.setUint16(16, 46);
  view.setUint8(22, 64);
  view.setUint8(23, proto === 'udp' ? 17 : 6);
  frame.set([10, 64, 0, 1, ...vip.split('.').map(Number)], 26);
  view.setUint16(24, checksum(frame.subarray(14, 34)));
  view.setUint16(34, 4000);
  view.setUint16(36, 80);
  if (proto === 'udp') {
    view.setUint16(38, 26);
  } else {
    view.setUint8(46, 0x50);
    view.setUint8(47, 0x10);
  }
  return frame;
}

/** All buckets alike: what one server does with everything that arrives. */
export function configWith(mac: string, flags: number): FilterConfig {
  const table = {
    flags: new Uint8Array(bucketCount).fill(flags),
    owner: new Uint8Array(bucketCount).fill(flags & 1 ? 0 : 1),
    holder: new Uint8Array(bucketCount).fill(255),
  };
  const rule = { vips: [0], portLow: 80, portHigh: 80, hash: 'on_port', table: 0 } as const;
  return {
    vips: [{ addr: vip, mode: 'vmac_invisible', farmMac, leaseSlot: 0, arpTable: 0 }],
    rules: [
      { ...rule, proto: 'tcp' },
      { ...rule, proto: 'udp' },
    ],
    tables: [table],
    hashKey: Uint8Array.from({ length: 16 }, (_, at) => at),
    me: 0,
    macs: [mac, '02:00:00:00:00:01'],
  };
}
