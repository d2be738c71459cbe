/** Builds frames byte by byte, so that fixtures say what they mean and nothing is shared with the filter. */
import { addressBytes, macBytes } from '../../src/native/filter-abi.ts';

export type Bytes = Uint8Array;

export function join(...parts: readonly (Bytes | readonly number[])[]): Bytes {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

export function u16(value: number): number[] {
  return [(value >> 8) & 255, value & 255];
}

export function u32(value: number): number[] {
  return [...u16(value >>> 16), ...u16(value & 0xffff)];
}

/** RFC 1071. */
export function checksum(...parts: readonly (Bytes | readonly number[])[]): number {
  const bytes = join(...parts);
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += ((bytes[at] ?? 0) << 8) + (bytes[at + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export interface Ether {
  readonly to: string;
  readonly from: string;
  /** Tags: [ethertype, VLAN id], outermost first. */
  readonly vlans?: readonly (readonly [number, number])[];
}

export function ether(frame: Ether, type: number, payload: Bytes): Bytes {
  const tags = (frame.vlans ?? []).flatMap(([tpid, id]) => [...u16(tpid), ...u16(id)]);
  return join(macBytes(frame.to), macBytes(frame.from), tags, u16(type), payload);
}

export interface Ip4 {
  readonly src: string;
  readonly dst: string;
  readonly id?: number;
  readonly ttl?: number;
  /** In units of 8 bytes. */
  readonly offset?: number;
  readonly more?: boolean;
  readonly dontFragment?: boolean;
  /** Options, a multiple of 4 bytes. */
  readonly options?: readonly number[];
  /** Overrides the header length field. */
  readonly ihl?: number;
}

export function ip4(head: Ip4, proto: number, payload: Bytes): Bytes {
  const options = head.options ?? [];
  const ihl = head.ihl ?? 5 + options.length / 4;
  const flags = (head.dontFragment ? 0x4000 : 0) | (head.more ? 0x2000 : 0) | (head.offset ?? 0);
  const before = [0x40 | ihl, 0, ...u16(20 + options.length + payload.length)];
  before.push(...u16(head.id ?? 0x1234), ...u16(flags), head.ttl ?? 64, proto);
  const after = join(addressBytes(head.src), addressBytes(head.dst), options);
  return join(before, u16(checksum(before, [0, 0], after)), after, payload);
}

export interface Ip6 {
  readonly src: string;
  readonly dst: string;
  readonly hops?: number;
  readonly flow?: number;
}

export function ip6(head: Ip6, next: number, payload: Bytes): Bytes {
  const start = [...u32((0x60000000 | (head.flow ?? 0)) >>> 0), ...u16(payload.length)];
  start.push(next, head.hops ?? 64);
  return join(start, addressBytes(head.src), addressBytes(head.dst), payload);
}

/** IPv6 fragment header in front of `payload`. */
export function fragment6(
  next: number,
  offset: number,
  more: boolean,
  id: number,
  payload: Bytes,
): Bytes {
  return join([next, 0], u16((offset << 3) | (more ? 1 : 0)), u32(id), payload);
}

/** An extension header of the common form: `length` in units of 8 bytes beyond the first. */
export function extension6(next: number, length: number, payload: Bytes): Bytes {
  return join([next, length], new Uint8Array(6 + 8 * length), payload);
}

export const flag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16 } as const;

export interface Tcp {
  readonly sport: number;
  readonly dport: number;
  readonly flags: number;
  readonly seq?: number;
  readonly ack?: number;
  readonly dataOffset?: number;
}

/** Without a checksum: the filter leaves that to the stack. */
export function tcp(head: Tcp, data: Bytes = new Uint8Array(0)): Bytes {
  return join(
    u16(head.sport),
    u16(head.dport),
    u32(head.seq ?? 1),
    u32(head.ack ?? 1),
    [(head.dataOffset ?? 5) << 4, head.flags, 0xff, 0xff, 0, 0, 0, 0],
    data,
  );
}

export function udp(sport: number, dport: number, data: Bytes = new Uint8Array(16)): Bytes {
  return join(u16(sport), u16(dport), u16(8 + data.length), [0, 0], data);
}

/** ICMP or ICMPv6 with four bytes `rest` behind the checksum (left 0). */
export function icmp(type: number, code: number, rest: readonly number[], data: Bytes): Bytes {
  return join([type, code, 0, 0], rest, data);
}

export interface Arp {
  readonly op: 1 | 2;
  readonly sha: string;
  readonly spa: string;
  readonly tha?: string;
  readonly tpa: string;
}

export function arp(packet: Arp): Bytes {
  const hardware = [...u16(1), ...u16(0x0800), 6, 4, ...u16(packet.op)];
  const asks = macBytes(packet.tha ?? '00:00:00:00:00:00');
  return join(
    hardware,
    macBytes(packet.sha),
    addressBytes(packet.spa),
    asks,
    addressBytes(packet.tpa),
  );
}

/** Neighbour solicitation (135) or advertisement (136) with a correct checksum. */
export function neighbour(
  head: Ip6,
  type: 135 | 136,
  target: string,
  option: { readonly kind: 1 | 2; readonly mac: string } | null,
  flags = 0,
): Bytes {
  const tail = join(
    u32(flags),
    addressBytes(target),
    option === null ? [] : [option.kind, 1, ...macBytes(option.mac)],
  );
  const sum = icmp6Checksum(head, join([type, 0, 0, 0], tail));
  return ip6({ hops: 255, ...head }, 58, join([type, 0], u16(sum), tail));
}

export function icmp6Checksum(head: Ip6, message: Bytes): number {
  const pseudo = [...u32(message.length), 0, 0, 0, 58];
  return checksum(addressBytes(head.src), addressBytes(head.dst), pseudo, message);
}

/** The solicited-node group of an address and its MAC. */
export function solicitedNode(addr: string): { addr: string; mac: string } {
  const [a = 0, b = 0, c = 0] = addressBytes(addr).subarray(13);
  const hex = (byte: number): string => byte.toString(16).padStart(2, '0');
  return {
    addr: `ff02::1:ff${hex(a)}:${hex(b)}${hex(c)}`,
    mac: `33:33:ff:${hex(a)}:${hex(b)}:${hex(c)}`,
  };
}
