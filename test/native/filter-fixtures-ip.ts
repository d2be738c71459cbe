/** Fixtures: IP to a VIP in vmac_invisible. What is accepted leaves with this server's MAC. */
import { macBytes } from '../../src/native/filter-abi.ts';
import {
  type Bytes,
  type Ether,
  ether,
  extension6,
  flag,
  fragment6,
  icmp,
  type Ip4,
  type Ip6,
  ip4,
  ip6,
  join,
  tcp,
  u16,
  udp,
} from './filter-packets.ts';
import {
  client4,
  client6,
  clientMac,
  farmMac,
  type Fixture,
  ownMac,
  vip4,
  vip6,
  type World,
} from './filter-world.ts';

const toFarm: Ether = { to: farmMac, from: clientMac };
export const to4: Ip4 = { src: client4, dst: vip4 };
export const to6: Ip6 = { src: client6, dst: vip6 };
const own: World = { flags: 1 };
const foreign: World = { flags: 0 };

export function accepted(frame: Bytes): Bytes {
  return join(macBytes(ownMac), frame.subarray(6));
}

export function v4(proto: number, payload: Bytes, head: Partial<Ip4> = {}, eth = toFarm): Bytes {
  return ether(eth, 0x0800, ip4({ ...to4, ...head }, proto, payload));
}

export function v6(next: number, payload: Bytes, head: Partial<Ip6> = {}, eth = toFarm): Bytes {
  return ether(eth, 0x86dd, ip6({ ...to6, ...head }, next, payload));
}

const syn = tcp({ sport: 4000, dport: 80, flags: flag.syn });
const ack = tcp({ sport: 4000, dport: 80, flags: flag.ack });
const query = udp(4000, 53);

function pass(name: string, given: World, packet: Bytes, rule?: number, reason = 'own'): Fixture {
  const counted = rule === undefined ? {} : { rule };
  const out = accepted(packet);
  const expect = { verdict: 'pass', reason: `accepted_${reason}`, out, ...counted } as const;
  return { name, world: given, packet, expect: expect as Fixture['expect'] };
}

function drop(
  name: string,
  given: World,
  packet: Bytes,
  rule?: number,
  reason = 'foreign',
): Fixture {
  const counted = rule === undefined ? {} : { rule };
  const expect = { verdict: 'drop', reason: `dropped_${reason}`, ...counted };
  return { name, world: given, packet, expect: expect as Fixture['expect'] };
}

function ignored(name: string, packet: Bytes): Fixture {
  return { name, world: own, packet, expect: { verdict: 'pass', reason: null } };
}

/** The pair that shows what is hashed: accepted when only that bucket is ours, dropped when only
 * that one is not. */
function hashed(
  name: string,
  key: { addr: string; extra: number },
  packet: Bytes,
  rule?: number,
): Fixture[] {
  return [
    pass(`${name}: ours`, { flags: 1, others: 0, key }, packet, rule),
    drop(`${name}: another's`, { flags: 0, others: 1, key }, packet, rule),
  ];
}

const echo4 = icmp(8, 0, [0, 7, 0, 1], new Uint8Array(32));
const echo6 = icmp(128, 0, [0, 7, 0, 1], new Uint8Array(32));
const vlan = (...vlans: [number, number][]): Ether => ({ ...toFarm, vlans });

const hashes: readonly Fixture[] = [
  ...hashed('TCP on_port over IPv4', { addr: client4, extra: 4000 }, v4(6, syn), 0),
  ...hashed('TCP on_port over IPv6', { addr: client6, extra: 4000 }, v6(6, syn), 0),
  ...hashed(
    'TCP on_addr leaves the port out',
    { addr: client4, extra: 0 },
    v4(6, tcp({ sport: 4000, dport: 443, flags: flag.syn })),
    1,
  ),
  ...hashed(
    'TCP on_addr over IPv6, last port of the range',
    { addr: client6, extra: 0 },
    v6(6, tcp({ sport: 4000, dport: 444, flags: flag.syn })),
    1,
  ),
  ...hashed('UDP on_port over IPv4', { addr: client4, extra: 4000 }, v4(17, query), 2),
  ...hashed('UDP on_port over IPv6', { addr: client6, extra: 4000 }, v6(17, query), 2),
  ...hashed('UDP on_addr', { addr: client4, extra: 0 }, v4(17, udp(9, 5999)), 3),
  ...hashed(
    'UDP on_ipid: the IPv4 identification',
    { addr: client4, extra: 0xbeef },
    v4(17, udp(4000, 7000), { id: 0xbeef }),
    4,
  ),
  ...hashed(
    'UDP on_ipid over IPv6: the flow label',
    { addr: client6, extra: 0x2345 },
    v6(17, udp(4000, 7000), { flow: 0x12345 }),
    4,
  ),
  ...hashed('ICMP echo by address', { addr: client4, extra: 0 }, v4(1, echo4)),
  ...hashed('ICMPv6 echo by address', { addr: client6, extra: 0 }, v6(58, echo6)),
  ...hashed('one VLAN tag', { addr: client4, extra: 4000 }, v4(6, syn, {}, vlan([0x8100, 5])), 0),
  ...hashed(
    'two VLAN tags',
    { addr: client4, extra: 4000 },
    v4(6, syn, {}, vlan([0x88a8, 5], [0x8100, 6])),
    0,
  ),
  ...hashed(
    'VLAN tag, IPv6, UDP',
    { addr: client6, extra: 4000 },
    v6(17, query, {}, vlan([0x8100, 5])),
    2,
  ),
  ...hashed(
    'IPv4 options',
    { addr: client4, extra: 4000 },
    v4(6, syn, { options: [1, 1, 1, 1, 1, 1, 1, 0] }),
    0,
  ),
  ...hashed(
    'IPv6 hop-by-hop and destination options',
    { addr: client6, extra: 4000 },
    v6(0, extension6(60, 0, extension6(6, 2, syn))),
    0,
  ),
  ...hashed(
    'IPv6 authentication header',
    { addr: client6, extra: 4000 },
    v6(51, join([17, 4, 0, 0], new Uint8Array(20), query)),
    2,
  ),
];

let eight = syn;
for (let i = 0; i < 8; i++) eight = extension6(i === 0 ? 6 : 60, 0, eight);

const states: readonly Fixture[] = [
  pass('ACK to our bucket: the stack decides', own, v4(6, ack), 0),
  drop("ACK to another's bucket", foreign, v4(6, ack), 0),
  pass('SYN to a QUIET bucket of ours', { flags: 5 }, v4(6, syn), 0),
  drop('SYN to a bucket we HOLD', { flags: 2 }, v4(6, syn), 0),
  drop('ACK to a QUIET bucket, unknown here', { flags: 5 }, v4(6, ack), 0, 'quiet'),
  drop('ACK over IPv6 to a QUIET bucket, unknown', { flags: 5 }, v6(6, ack), 0, 'quiet'),
  drop('ACK to a bucket we HOLD, unknown here', { flags: 2 }, v4(6, ack), 0),
  drop('ACK over IPv6 to a bucket we HOLD, unknown', { flags: 2 }, v6(6, ack), 0),
  drop(
    'SYN+ACK is no SYN',
    { flags: 5 },
    v4(6, tcp({ sport: 4000, dport: 80, flags: flag.syn | flag.ack })),
    0,
    'quiet',
  ),
  drop(
    'RST to a QUIET bucket',
    { flags: 5 },
    v4(6, tcp({ sport: 4000, dport: 80, flags: flag.rst })),
    0,
    'quiet',
  ),
  pass('UDP to a QUIET bucket of ours', { flags: 5 }, v4(17, query), 2),
  drop('UDP to a bucket we HOLD', { flags: 2 }, v4(17, query), 2),
  drop(
    'TCP to a port without a rule',
    own,
    v4(6, tcp({ sport: 1, dport: 81, flags: 2 })),
    undefined,
    'no_rule',
  ),
  drop('UDP to the TCP port', own, v4(17, udp(4000, 80)), undefined, 'no_rule'),
  drop('UDP below the range', own, v4(17, udp(4000, 4999)), undefined, 'no_rule'),
  drop(
    'a protocol no rule can name (SCTP)',
    own,
    v4(132, new Uint8Array(20)),
    undefined,
    'no_rule',
  ),
  drop('IPv6 without a next header', own, v6(59, new Uint8Array(0)), undefined, 'no_rule'),
  { ...drop('SYN, lease lapsed', own, v4(6, syn), 0, 'lease'), lease: 'lapsed' },
  { ...drop('UDP over IPv6, lease lapsed', own, v6(17, query), 2, 'lease'), lease: 'lapsed' },
  { ...drop('echo, lease lapsed', own, v4(1, echo4), undefined, 'lease'), lease: 'lapsed' },
  { ...drop('foreign is foreign, lease lapsed or not', foreign, v4(6, syn), 0), lease: 'lapsed' },
  ignored('TCP to another address', v4(6, syn, { dst: '10.0.0.101' })),
  ignored('TCP over IPv6 to another address', v6(6, syn, { dst: 'fd00::101' })),
  ignored('UDP to the unspecified address', v4(17, query, { dst: '0.0.0.0' })),
  ignored('IPv6 multicast that is no ND', v6(17, query, { dst: 'ff02::fb' })),
  ignored('another ethertype', ether(toFarm, 0x88cc, new Uint8Array(46))),
  pass('IPv6, eight extension headers', own, v6(60, eight), 0),
];

const malformed: readonly Fixture[] = [
  { ...ignored('a bare Ethernet header', ether(toFarm, 0x0800, new Uint8Array(0))), xdpOnly: true },
  { ...ignored('IPv4 header cut off', v4(6, syn).subarray(0, 14 + 19)), xdpOnly: true },
  { ...ignored('IPv6 header cut off', v6(6, syn).subarray(0, 14 + 39)), xdpOnly: true },
  ignored('VLAN tag cut off', ether(toFarm, 0x8100, Uint8Array.of(0, 5))),
  drop('TCP header missing', own, v4(6, new Uint8Array(0)), undefined, 'malformed'),
  drop('TCP header cut off', own, v4(6, syn.subarray(0, 19)), undefined, 'malformed'),
  drop(
    'TCP data offset below 5',
    own,
    v4(6, tcp({ sport: 4000, dport: 80, flags: 2, dataOffset: 4 })),
    undefined,
    'malformed',
  ),
  drop('TCP over IPv6 cut off', own, v6(6, syn.subarray(0, 8)), undefined, 'malformed'),
  drop('UDP header cut off', own, v4(17, query.subarray(0, 7)), undefined, 'malformed'),
  drop('ICMP header cut off', own, v4(1, echo4.subarray(0, 7)), undefined, 'malformed'),
  drop('ICMPv6 header cut off', own, v6(58, echo6.subarray(0, 4)), undefined, 'malformed'),
  drop('IPv4 header length 4', own, v4(6, syn, { ihl: 4 }), undefined, 'malformed'),
  drop('IPv4 options beyond the frame', own, v4(17, query, { ihl: 15 }), undefined, 'malformed'),
  drop('nine extension headers', own, v6(60, extension6(60, 0, eight)), undefined, 'malformed'),
  drop(
    'extension header beyond the frame',
    own,
    v6(0, Uint8Array.of(6, 255, 0, 0, 0, 0, 0, 0)),
    undefined,
    'malformed',
  ),
  drop('extension header cut off', own, v6(60, Uint8Array.of(6, 0, 0, 0)), undefined, 'malformed'),
  drop('fragment header cut off', own, v6(44, Uint8Array.of(6, 0, 0)), undefined, 'malformed'),
];

const firstOf = (head: Partial<Ip4>): Partial<Ip4> => ({ ...head, more: true, id: 0x77 });
const laterOf = (head: Partial<Ip4>): Partial<Ip4> => ({ ...head, offset: 3, id: 0x77 });
const tcpFirst = v4(6, join(syn, new Uint8Array(4)), firstOf({}));
const tcpLater = v4(6, new Uint8Array(24), laterOf({}));
const tcpFirst6 = v6(44, fragment6(6, 0, true, 0x99, join(syn, new Uint8Array(4))));
const tcpLater6 = v6(44, fragment6(6, 3, false, 0x99, new Uint8Array(24)));

const fragments: readonly Fixture[] = [
  ...hashed(
    'UDP first fragment: by address although on_port',
    { addr: client4, extra: 0 },
    v4(17, query, firstOf({})),
    2,
  ),
  ...hashed(
    'UDP later fragment: the same bucket',
    { addr: client4, extra: 0 },
    v4(17, new Uint8Array(24), laterOf({})),
    2,
  ),
  ...hashed(
    'UDP over IPv6, later fragment',
    { addr: client6, extra: 0 },
    v6(44, fragment6(17, 3, false, 9, new Uint8Array(24))),
    2,
  ),
  ...hashed(
    'echo, later fragment',
    { addr: client4, extra: 0 },
    v4(1, new Uint8Array(24), laterOf({})),
  ),
  pass(
    'IPv6 atomic fragment is a whole packet',
    { flags: 1, key: { addr: client6, extra: 4000 } },
    v6(44, fragment6(17, 0, false, 9, query)),
    2,
  ),
  pass(
    'TCP first fragment has the ports',
    { flags: 1, key: { addr: client4, extra: 4000 } },
    tcpFirst,
    0,
  ),
  drop(
    'TCP later fragment, first not seen',
    own,
    v4(6, new Uint8Array(24), { offset: 3, id: 0x55 }),
    undefined,
    'fragment',
  ),
  {
    ...pass('TCP later fragment follows the first', own, tcpLater, undefined, 'fragment'),
    before: [tcpFirst],
  },
  { ...pass('TCP over IPv6 the same', own, tcpLater6, undefined, 'fragment'), before: [tcpFirst6] },
  {
    ...drop(
      'TCP later fragment of another packet',
      own,
      v4(6, new Uint8Array(24), { offset: 3, id: 0x78 }),
      undefined,
      'fragment',
    ),
    before: [tcpFirst],
  },
];

/** What the VIP sent to the client, as an error quotes it: IP header and 8 bytes. */
const sent4 = (proto: number, start: readonly number[], head: Partial<Ip4> = {}): Bytes =>
  ip4({ src: vip4, dst: client4, ...head }, proto, join(start, new Uint8Array(8 - start.length)));
const sent6 = (next: number, start: readonly number[], src = vip6): Bytes =>
  ip6({ src, dst: client6 }, next, join(start, new Uint8Array(8 - start.length)));
const router4 = { src: '10.9.9.9' };
const router6 = { src: 'fd09::9' };
const replyPorts = [...u16(80), ...u16(4000)];
const tooBig4 = (quoted: Bytes): Bytes => v4(1, icmp(3, 4, [0, 0, 5, 0], quoted), router4);
const tooBig6 = (quoted: Bytes): Bytes => v6(58, icmp(2, 0, [0, 0, 5, 0], quoted), router6);

const errors: readonly Fixture[] = [
  ...hashed(
    'ICMP error about TCP: the bucket of the client, not of the router',
    { addr: client4, extra: 4000 },
    tooBig4(sent4(6, replyPorts)),
    0,
  ),
  ...hashed(
    'ICMPv6 packet too big about TCP',
    { addr: client6, extra: 4000 },
    tooBig6(sent6(6, replyPorts)),
    0,
  ),
  ...hashed(
    'ICMP error about UDP',
    { addr: client4, extra: 4000 },
    tooBig4(sent4(17, [...u16(53), ...u16(4000)])),
    2,
  ),
  ...hashed(
    'ICMP error about an echo',
    { addr: client4, extra: 0 },
    tooBig4(sent4(1, [0, 0, 0, 0])),
  ),
  ...hashed(
    'ICMPv6 error about a fragment: by address',
    { addr: client6, extra: 0 },
    tooBig6(sent6(44, [17, 0, ...u16(24)])),
    2,
  ),
  drop(
    'ICMP error about TCP, QUIET and unknown',
    { flags: 5 },
    tooBig4(sent4(6, replyPorts)),
    0,
    'quiet',
  ),
  drop('ICMP error about TCP, HOLD and unknown', { flags: 2 }, tooBig4(sent4(6, replyPorts)), 0),
  drop(
    'ICMP error about a port without a rule',
    own,
    tooBig4(sent4(6, [...u16(81), ...u16(4000)])),
    undefined,
    'no_rule',
  ),
  drop(
    'ICMP error that quotes another sender',
    own,
    tooBig4(sent4(6, replyPorts, { src: '10.0.0.99' })),
    undefined,
    'malformed',
  ),
  drop(
    'ICMP error that quotes too little',
    own,
    tooBig4(sent4(6, replyPorts).subarray(0, 22)),
    undefined,
    'malformed',
  ),
  drop(
    'ICMPv6 error that quotes another sender',
    own,
    tooBig6(sent6(6, replyPorts, 'fd00::99')),
    undefined,
    'malformed',
  ),
  drop('ICMPv6 error that quotes nothing', own, tooBig6(new Uint8Array(8)), undefined, 'malformed'),
];

export const ipFixtures: readonly Fixture[] = [
  ...hashes,
  ...states,
  ...malformed,
  ...fragments,
  ...errors,
];
