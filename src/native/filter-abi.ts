/**
 * The mapped configuration of the filter, byte for byte: the mirror of native/filter/farm_abi.h
 * (a test compares the two), and the packing of a FilterConfig into it.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { HoldfastError } from '../errors.ts';
import type { FilterConfig, FilterRule, FilterVip } from './filter.ts';

/** Offsets and sizes in bytes; names as in FilterAddon.layout(). */
export const layout = {
  configSize: 199_072,
  hashKey: 0,
  mac: 16,
  me: 22,
  vipCount: 23,
  ruleCount: 24,
  tableCount: 25,
  vip4: 32,
  vip6: 160,
  vips: 672,
  vipSize: 16,
  rules: 1184,
  ruleSize: 12,
  macs: 1952,
  macSize: 8,
  flags: 2464,
  owner: 68_000,
  holder: 133_536,
  buckets: 4096,
  tables: 16,
  maxRules: 64,
  maxVips: 32,
  nodes: 64,
  leases: 64,
} as const;

export const maxRules = layout.maxRules;

/** enum farm_reason, in order. */
export const reasonNames = [
  'accepted_own',
  'accepted_hold',
  'accepted_quiet',
  'accepted_cookie',
  'accepted_fragment',
  'accepted_neighbour',
  'dropped_foreign',
  'dropped_quiet',
  'dropped_no_rule',
  'dropped_lease',
  'dropped_malformed',
  'dropped_fragment',
  'dropped_neighbour',
  'dropped_hop_guard',
  'dropped_not_mine',
  'dropped_no_mac',
  'forwarded_owner',
  'forwarded_holder',
  'answered_arp',
  'answered_nd',
  'egress_rewritten',
  'egress_lease',
] as const;

export type FilterReason = (typeof reasonNames)[number];

const none = 255;
const protocols = { tcp: 6, udp: 17, icmp: 1 } as const;
const hashes = { on_addr: 0, on_port: 1, on_ipid: 2 } as const;
const modes = { vmac_invisible: 0, vmac_directed: 1 } as const;

function refuse(reason: string): never {
  throw new HoldfastError('HF-NATIVE-011', { reason });
}

function require(condition: boolean, reason: string): void {
  if (!condition) refuse(reason);
}

/** Bytes of an IPv4 (4) or IPv6 (16) address, network order. */
export function addressBytes(addr: string): Uint8Array {
  if (isIPv4(addr)) return Uint8Array.from(addr.split('.'), Number);
  if (!isIPv6(addr) || addr.includes('%')) refuse(`"${addr}" is no IP address`);
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(addr);
  let text = addr;
  if (dotted !== null) {
    const [a = 0, b = 0, c = 0, d = 0] = addressBytes(dotted[2] ?? '');
    text = `${dotted[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [head = '', tail] = text.split('::');
  const words = (part: string): number[] =>
    part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16));
  const left = words(head);
  const right = tail === undefined ? [] : words(tail);
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => 0);
  const all = [...left, ...zeros, ...right];
  return Uint8Array.from(all.flatMap((word) => [word >> 8, word & 255]));
}

/** Bytes of `aa:bb:cc:dd:ee:ff`. */
export function macBytes(mac: string): Uint8Array {
  require(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(mac), `"${mac}" is no MAC address`);
  return Uint8Array.from(mac.split(':'), (part) => Number.parseInt(part, 16));
}

/** The table of ICMP that no rule names, and of ARP in directed mode; 255: none. */
function homeTable(config: FilterConfig, vip: FilterVip, index: number): number {
  if (vip.arpTable >= 0) return vip.arpTable;
  return config.rules.find((rule) => rule.vips.includes(index))?.table ?? none;
}

function packVip(out: Uint8Array, config: FilterConfig, vip: FilterVip, index: number): void {
  const addr = addressBytes(vip.addr);
  require(addr.some((byte) => byte !== 0), 'a VIP cannot be the unspecified address');
  require(vip.leaseSlot >= 0 && vip.leaseSlot < layout.leases, `no lease slot ${vip.leaseSlot}`);
  require(vip.arpTable < config.tables.length, `no table ${vip.arpTable}`);
  require(vip.mode === 'vmac_directed' ||
    vip.farmMac !== null, `${vip.addr} has no farm MAC, which vmac_invisible needs`);
  out.set(addr, addr.length === 4 ? layout.vip4 + 4 * index : layout.vip6 + 16 * index);
  const at = layout.vips + layout.vipSize * index;
  if (vip.farmMac !== null) out.set(macBytes(vip.farmMac), at);
  out[at + 6] = modes[vip.mode];
  out[at + 7] = vip.leaseSlot;
  const home = homeTable(config, vip, index);
  out[at + 8] = vip.arpTable < 0 && vip.mode === 'vmac_invisible' ? none : home;
  out[at + 9] = home;
}

function packRule(view: DataView, config: FilterConfig, rule: FilterRule, index: number): void {
  const { proto, hash, portLow, portHigh, table } = rule;
  require(table >= 0 && table < config.tables.length, `no table ${table}`);
  require(portLow >= 0 &&
    portLow <= portHigh &&
    portHigh <= 65_535, `no port range ${portLow}-${portHigh}`);
  require(hash !== 'on_ipid' || proto === 'udp', `on_ipid is for udp, not for ${proto}`);
  let mask = 0;
  for (const vip of rule.vips) {
    require(vip >= 0 && vip < config.vips.length, `no VIP ${vip}`);
    mask |= 1 << vip;
  }
  const at = layout.rules + layout.ruleSize * index;
  view.setUint32(at, mask >>> 0, true);
  view.setUint16(at + 4, proto === 'icmp' ? 0 : portLow, true);
  view.setUint16(at + 6, proto === 'icmp' ? 65_535 : portHigh, true);
  view.setUint8(at + 8, protocols[proto]);
  view.setUint8(at + 9, proto === 'icmp' ? hashes.on_addr : hashes[hash]);
  view.setUint8(at + 10, table);
}

/** Packs a configuration; throws HF-NATIVE-011 when the filter cannot hold it. */
export function packConfig(config: FilterConfig): Uint8Array {
  const { vips, rules, tables, macs, me } = config;
  require(vips.length <= layout.maxVips, `${vips.length} VIPs, of ${layout.maxVips} at most`);
  require(rules.length <= layout.maxRules, `${rules.length} rules, of ${layout.maxRules} at most`);
  require(tables.length <= layout.tables, `${tables.length} groups, of ${layout.tables} at most`);
  require(macs.length <= layout.nodes && me >= 0 && me < layout.nodes, 'node id out of range');
  require(config.hashKey.length === 16, 'the hash key must have 16 bytes');
  const out = new Uint8Array(layout.configSize);
  const view = new DataView(out.buffer);
  out.set(config.hashKey, layout.hashKey);
  const own = macs[me];
  if (typeof own === 'string') out.set(macBytes(own), layout.mac);
  out[layout.me] = me;
  out[layout.vipCount] = vips.length;
  out[layout.ruleCount] = rules.length;
  out[layout.tableCount] = tables.length;
  for (const [index, vip] of vips.entries()) packVip(out, config, vip, index);
  for (const [index, rule] of rules.entries()) packRule(view, config, rule, index);
  for (const [node, mac] of macs.entries()) {
    if (mac === null) continue;
    out.set(macBytes(mac), layout.macs + layout.macSize * node);
    out[layout.macs + layout.macSize * node + 6] = 1;
  }
  for (const [index, table] of tables.entries()) {
    for (const field of ['flags', 'owner', 'holder'] as const) {
      require(table[field].length === layout.buckets, `a table has ${layout.buckets} buckets`);
      out.set(table[field], layout[field] + layout.buckets * index);
    }
  }
  return out;
}

/** Number of rules of a packed configuration. */
export function usedRules(packed: Uint8Array): number {
  return packed[layout.ruleCount] ?? 0;
}
