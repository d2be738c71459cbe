import { isIPv4, isIPv6, SocketAddress } from 'node:net';

/** Units of durations, in ms, greatest first. */
const unitMs = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 0.001 } as const;

export type DurationUnit = keyof typeof unitMs;

/** No deadline of ours is longer than this. */
export const durationMsMax = 365 * unitMs.d;

export type DurationResult =
  | { readonly ok: true; readonly ms: number }
  | { readonly ok: false; readonly why: 'form' | 'too_long' }
  | { readonly ok: false; readonly why: 'unit'; readonly unit: DurationUnit };

/**
 * A duration as SafeKit writes it: a whole number and a unit, or a bare number in the attribute's
 * own unit. A unit smaller than the attribute's own is refused, as there.
 */
export function parseDuration(text: string, own: DurationUnit): DurationResult {
  const match = /^([0-9]{1,15})(d|h|m|s|ms|us)?$/.exec(text);
  if (match === null) return { ok: false, why: 'form' };
  const unit = (match[2] ?? own) as DurationUnit;
  if (unitMs[unit] < unitMs[own]) return { ok: false, why: 'unit', unit };
  const ms = Number(match[1]) * unitMs[unit];
  return ms > durationMsMax ? { ok: false, why: 'too_long' } : { ok: true, ms };
}

/** The shortest way to write a duration, such as 90s, 2m or 1500ms; parseDuration reads it back. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0ms';
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    if (ms % unitMs[unit] === 0) return `${ms / unitMs[unit]}${unit}`;
  }
  return `${ms}ms`;
}

const sizeUnits = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 } as const;

/** Bytes of "64m", "256k", "1g" (powers of 1024) or a bare number of bytes; null: none of these. */
export function parseSize(text: string): number | null {
  const match = /^([0-9]{1,12})([kmg]?)$/.exec(text);
  if (match === null) return null;
  const bytes = Number(match[1]) * sizeUnits[match[2] as keyof typeof sizeUnits];
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** The shortest way to write a size; parseSize reads it back. */
export function formatSize(bytes: number): string {
  for (const unit of ['g', 'm', 'k'] as const) {
    if (bytes > 0 && bytes % sizeUnits[unit] === 0) return `${bytes / sizeUnits[unit]}${unit}`;
  }
  return String(bytes);
}

/** `512 bytes`, `12.3 MiB`: for people. */
export function bytesText(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  const power = Math.min(units.length, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** power).toFixed(1)} ${units[power - 1] ?? ''}`;
}

export type Family = 'ipv4' | 'ipv6';

/** An address in its canonical form (IPv6: lower case, shortest), so that equal addresses are equal texts. */
export interface Address {
  readonly text: string;
  readonly family: Family;
  readonly bytes: readonly number[];
}

/** Reads IPv4, IPv6 or [IPv6]; null: not an address. Zones (%eth0) and IPv4 in IPv6 are refused. */
export function parseAddress(text: string): Address | null {
  if (isIPv4(text)) return { text, family: 'ipv4', bytes: text.split('.').map(Number) };
  const bare = /^\[(.*)\]$/.exec(text)?.[1] ?? text;
  if (bare.includes('%') || !isIPv6(bare)) return null;
  const canonical = new SocketAddress({ address: bare, family: 'ipv6' }).address;
  const bytes = ipv6Bytes(canonical);
  const mapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 255;
  return mapped ? null : { text: canonical, family: 'ipv6', bytes };
}

function ipv6Bytes(text: string): number[] {
  // The last 32 bits may stand as IPv4 (::192.0.2.1); write them as two groups first.
  const hex = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((n) => n.toString(16)).join(':'),
  );
  const [head = '', tail] = hex.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return groups.flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 255];
  });
}

/** Why an address cannot be that of one host; null: it can. */
export function whyNotHost(address: Address): string | null {
  const [first = 0, second = 0] = address.bytes;
  if (address.bytes.every((byte) => byte === 0)) return 'it is the unspecified address';
  if (address.family === 'ipv6') {
    if (first === 255) return 'it is a multicast address';
    if (first === 254 && (second & 0xc0) === 0x80) return 'a link-local address needs a zone';
    return null;
  }
  if (first === 0) return 'addresses that begin with 0 are reserved';
  if (first >= 224 && first < 240) return 'it is a multicast address';
  if (first >= 240) return 'addresses from 240.0.0.0 on are reserved';
  return null;
}

export function isLoopback(address: Address): boolean {
  return address.family === 'ipv4' ? address.bytes[0] === 127 : address.text === '::1';
}

/** Prefix length from "24" or, for IPv4, "255.255.255.0"; null: neither. */
export function parseNetmask(text: string, family: Family): number | null {
  if (/^[0-9]{1,3}$/.test(text)) {
    const prefix = Number(text);
    return prefix >= 1 && prefix <= (family === 'ipv4' ? 32 : 128) ? prefix : null;
  }
  if (family === 'ipv6' || !isIPv4(text)) return null;
  const bits = text.split('.').reduce((all, byte) => all * 256 + Number(byte), 0);
  const ones = Math.clz32(~bits >>> 0);
  const mask = ones === 0 ? 0 : (0xffffffff << (32 - ones)) >>> 0;
  return ones > 0 && mask === bits ? ones : null;
}

/** Whether an IPv4 address is the first or the last of its network; neither counts from /31 on. */
export function edgeOfNetwork(address: Address, prefix: number): 'network' | 'broadcast' | null {
  if (address.family === 'ipv6' || prefix > 30) return null;
  const host = address.bytes.reduce((all, byte) => all * 256 + byte, 0) % 2 ** (32 - prefix);
  if (host === 0) return 'network';
  return host === 2 ** (32 - prefix) - 1 ? 'broadcast' : null;
}

/** A MAC address in lower case with colons; null: not one. */
export function parseMac(text: string): string | null {
  const mac = text.toLowerCase().replaceAll('-', ':');
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac) ? mac : null;
}

/**
 * Why a MAC address cannot be that of a farm; null: it can. It must flood: a multicast address, or
 * a unicast one that no manufacturer has given out (locally administered, second bit of byte 0).
 */
export function whyNotFarmMac(mac: string): string | null {
  if (mac === 'ff:ff:ff:ff:ff:ff') return 'it is the broadcast address';
  const first = Number.parseInt(mac.slice(0, 2), 16);
  if ((first & 1) === 0 && (first & 2) === 0) {
    return 'it is neither a multicast nor a locally administered address, so a real device may have it';
  }
  return null;
}

/** The farm MAC of SafeKit: 5a:fe: and the last four bytes of the address. */
export function defaultFarmMac(address: Address): string {
  const bytes = [0x5a, 0xfe, ...address.bytes.slice(-4)];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
