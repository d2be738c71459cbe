/** The farm that the fixtures speak of: this server is node 0 of four, on one Ethernet. */
import {
  bucketCount,
  type DeliveryMode,
  type FilterConfig,
  type FilterRule,
} from '../../src/native/filter.ts';
import type { FilterReason } from '../../src/native/filter-abi.ts';
import type { Bytes } from './filter-packets.ts';
import { bucketOf } from './filter-siphash.ts';

export const vip4 = '10.0.0.100';
export const vip6 = 'fd00::100';
export const client4 = '10.0.0.7';
export const client6 = 'fd00::7';
export const clientMac = '02:00:00:00:00:c1';
export const farmMac = '5a:fe:0a:00:00:64';
export const ownMac = '02:00:00:00:00:10';
export const peerMac = '02:00:00:00:00:11';
export const thirdMac = '02:00:00:00:00:12';
export const broadcast = 'ff:ff:ff:ff:ff:ff';
export const leaseSlot = 5;
export const hashKey = Uint8Array.from({ length: 16 }, (_, at) => 0xa0 ^ (at * 7));

/** Node 3's MAC is not known yet. */
const macs = [ownMac, peerMac, thirdMac, null];

export const rules: readonly FilterRule[] = [
  { vips: [0, 1], proto: 'tcp', portLow: 80, portHigh: 80, hash: 'on_port', table: 0 },
  { vips: [0, 1], proto: 'tcp', portLow: 443, portHigh: 444, hash: 'on_addr', table: 0 },
  { vips: [0, 1], proto: 'udp', portLow: 53, portHigh: 53, hash: 'on_port', table: 0 },
  { vips: [0, 1], proto: 'udp', portLow: 5000, portHigh: 5999, hash: 'on_addr', table: 1 },
  { vips: [0, 1], proto: 'udp', portLow: 7000, portHigh: 7000, hash: 'on_ipid', table: 0 },
];

export interface World {
  readonly mode?: DeliveryMode;
  /** Flags of the bucket of `key` (table 0 and 1), or of all buckets where key is absent. */
  readonly flags?: number;
  /** Flags of all other buckets where key is given. */
  readonly others?: number;
  readonly key?: { readonly addr: string; readonly extra: number };
  readonly owner?: number;
  readonly holder?: number;
  readonly arpTable?: number;
  readonly rules?: readonly FilterRule[];
}

/** A configuration in which exactly the bucket of `key` has `flags`: a packet is treated so only if
 * the filter hashes exactly that. */
export function world(given: World = {}): FilterConfig {
  const { mode = 'vmac_invisible', flags = 1, others = 0, key } = given;
  const fill = key === undefined ? flags : others;
  const table = {
    flags: new Uint8Array(bucketCount).fill(fill),
    owner: new Uint8Array(bucketCount).fill(given.owner ?? 1),
    holder: new Uint8Array(bucketCount).fill(given.holder ?? 255),
  };
  if (key !== undefined) table.flags[bucketOf(hashKey, key.addr, key.extra)] = flags;
  const vip = {
    mode,
    farmMac: mode === 'vmac_invisible' ? farmMac : null,
    leaseSlot,
    arpTable: given.arpTable ?? 0,
  };
  return {
    vips: [
      { addr: vip4, ...vip },
      { addr: vip6, ...vip },
    ],
    rules: given.rules ?? rules,
    tables: [table, table],
    hashKey,
    me: 0,
    macs,
  };
}

export interface Fixture {
  readonly name: string;
  readonly world: World;
  readonly packet: Bytes;
  /** Frames that the same filter saw just before. */
  readonly before?: readonly Bytes[];
  readonly lease?: 'live' | 'lapsed';
  /** Egress: what the tc egress guard does; default: ingress, by XDP and by tc. */
  readonly egress?: boolean;
  /** The kernel does not give tc test runs so short a frame. */
  readonly xdpOnly?: boolean;
  readonly expect: {
    /** send: back out of the device. */
    readonly verdict: 'pass' | 'drop' | 'send';
    /** The one counter that moves; null: none does. */
    readonly reason: FilterReason | null;
    /** The rule whose counter moves; absent: none. */
    readonly rule?: number;
    /** The frame as the program leaves it; absent: as it came. */
    readonly out?: Bytes;
  };
}
