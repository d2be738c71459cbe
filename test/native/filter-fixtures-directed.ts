/** Fixtures: vmac_directed. Frames come to this server's own MAC and go on to the owner's. */
import { macBytes } from '../../src/native/filter-abi.ts';
import { accepted, v4, v6 } from './filter-fixtures-ip.ts';
import { type Bytes, flag, join, tcp, udp } from './filter-packets.ts';
import {
  broadcast,
  clientMac,
  type Fixture,
  ownMac,
  peerMac,
  thirdMac,
  type World,
} from './filter-world.ts';

const mine = { to: ownMac, from: clientMac };
const fromPeer = { to: ownMac, from: peerMac };
const syn = tcp({ sport: 4000, dport: 80, flags: flag.syn });
const ack = tcp({ sport: 4000, dport: 80, flags: flag.ack });

function directed(given: World): World {
  return { mode: 'vmac_directed', ...given };
}

function sentOn(mac: string, frame: Bytes): Bytes {
  return join(macBytes(mac), macBytes(ownMac), frame.subarray(12));
}

function forward(
  name: string,
  given: World,
  packet: Bytes,
  out: Bytes,
  reason: 'forwarded_owner' | 'forwarded_holder',
  rule = 0,
): Fixture {
  return { name, world: directed(given), packet, expect: { verdict: 'send', reason, rule, out } };
}

function drop(name: string, given: World, packet: Bytes, reason: string, rule?: number): Fixture {
  const counted = rule === undefined ? {} : { rule };
  const expect = { verdict: 'drop', reason: `dropped_${reason}`, ...counted };
  return { name, world: directed(given), packet, expect: expect as Fixture['expect'] };
}

const foreign: World = { flags: 0, owner: 1 };
const quiet: World = { flags: 5, owner: 0, holder: 2 };
const last = { ttl: 1 };
const later = v4(6, new Uint8Array(24), { offset: 3, id: 0x42 }, mine);
const first = v4(6, join(syn, new Uint8Array(4)), { more: true, id: 0x42 }, mine);

export const directedFixtures: readonly Fixture[] = [
  {
    name: 'directed: our bucket, our MAC',
    world: directed({ flags: 1 }),
    packet: v4(6, syn, {}, mine),
    expect: {
      verdict: 'pass',
      reason: 'accepted_own',
      rule: 0,
      out: accepted(v4(6, syn, {}, mine)),
    },
  },
  {
    name: 'directed: our bucket, forwarded by a peer',
    world: directed({ flags: 1 }),
    packet: v6(17, udp(4000, 53), {}, fromPeer),
    expect: { verdict: 'pass', reason: 'accepted_own', rule: 2 },
  },
  forward(
    'directed: SYN goes on to its owner',
    foreign,
    v4(6, syn, {}, mine),
    sentOn(peerMac, v4(6, syn, {}, mine)),
    'forwarded_owner',
  ),
  forward(
    'directed: IPv6 UDP goes on to its owner',
    foreign,
    v6(17, udp(4000, 53), {}, mine),
    sentOn(peerMac, v6(17, udp(4000, 53), {}, mine)),
    'forwarded_owner',
    2,
  ),
  forward(
    'directed: ACK of a bucket we HOLD without a socket goes on to its owner',
    { flags: 2, owner: 1 },
    v4(6, ack, {}, mine),
    sentOn(peerMac, v4(6, ack, {}, mine)),
    'forwarded_owner',
  ),
  forward(
    'directed: VLAN tags stay',
    foreign,
    v4(6, syn, {}, { ...mine, vlans: [[0x8100, 5]] }),
    sentOn(peerMac, v4(6, syn, {}, { ...mine, vlans: [[0x8100, 5]] })),
    'forwarded_owner',
  ),
  forward(
    'directed: second chance at the holder, TTL 1',
    quiet,
    v4(6, ack, {}, mine),
    sentOn(thirdMac, v4(6, ack, last, mine)),
    'forwarded_holder',
  ),
  forward(
    'directed: second chance of a frame a peer forwarded',
    quiet,
    v4(6, ack, {}, fromPeer),
    sentOn(thirdMac, v4(6, ack, last, fromPeer)),
    'forwarded_holder',
  ),
  forward(
    'directed: second chance over IPv6, hop limit 1',
    quiet,
    v6(6, ack, {}, fromPeer),
    sentOn(thirdMac, v6(6, ack, { hops: 1 }, fromPeer)),
    'forwarded_holder',
  ),
  drop(
    'directed: a forwarded frame is not forwarded to an owner again',
    { flags: 0, owner: 2 },
    v4(6, syn, {}, fromPeer),
    'hop_guard',
    0,
  ),
  drop(
    'directed: nor by a server that HOLDs without a socket',
    { flags: 2, owner: 2 },
    v4(6, ack, {}, fromPeer),
    'hop_guard',
    0,
  ),
  drop('directed: the second hop ends it', quiet, v4(6, ack, last, fromPeer), 'quiet', 0),
  drop(
    'directed: the second hop ends it over IPv6',
    quiet,
    v6(6, ack, { hops: 1 }, fromPeer),
    'quiet',
    0,
  ),
  drop(
    'directed: no second chance back to the sender',
    { ...quiet, holder: 1 },
    v4(6, ack, {}, fromPeer),
    'quiet',
    0,
  ),
  drop(
    'directed: QUIET without a holder',
    { flags: 5, owner: 0 },
    v4(6, ack, {}, mine),
    'quiet',
    0,
  ),
  drop(
    'directed: QUIET, and the holder is this server',
    { ...quiet, holder: 0 },
    v4(6, ack, {}, mine),
    'quiet',
    0,
  ),
  drop(
    'directed: nobody owns the bucket',
    { flags: 0, owner: 255 },
    v4(6, syn, {}, mine),
    'foreign',
    0,
  ),
  drop(
    "directed: the owner's MAC is unknown",
    { flags: 0, owner: 3 },
    v4(6, syn, {}, mine),
    'no_mac',
    0,
  ),
  drop(
    "directed: a frame for a peer's MAC, flooded",
    { flags: 1 },
    v4(6, syn, {}, { to: peerMac, from: clientMac }),
    'not_mine',
  ),
  drop(
    'directed: a broadcast frame',
    { flags: 1 },
    v4(17, udp(4000, 53), {}, { to: broadcast, from: clientMac }),
    'not_mine',
  ),
  drop(
    'directed: no rule, no hop',
    foreign,
    v4(6, tcp({ sport: 1, dport: 81, flags: 2 }), {}, mine),
    'no_rule',
  ),
  {
    ...drop(
      'directed: nothing is forwarded after the lease',
      foreign,
      v4(6, syn, {}, mine),
      'lease',
      0,
    ),
    lease: 'lapsed',
  },
  {
    name: 'directed: later TCP fragments follow the first to the owner',
    world: directed(foreign),
    before: [first],
    packet: later,
    expect: { verdict: 'send', reason: 'forwarded_owner', out: sentOn(peerMac, later) },
  },
];
