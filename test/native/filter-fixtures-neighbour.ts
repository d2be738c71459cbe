/** Fixtures: ARP and neighbour discovery about VIPs, and what the egress guard lets out. */
import { accepted } from './filter-fixtures-ip.ts';
import {
  type Arp,
  arp,
  type Bytes,
  type Ether,
  ether,
  extension6,
  flag,
  ip4,
  ip6,
  join,
  neighbour,
  solicitedNode,
  tcp,
  udp,
} from './filter-packets.ts';
import {
  broadcast,
  client4,
  client6,
  clientMac,
  farmMac,
  type Fixture,
  ownMac,
  peerMac,
  vip4,
  vip6,
  type World,
} from './filter-world.ts';

const group = solicitedNode(vip6);
const toAll: Ether = { to: broadcast, from: clientMac };
const toGroup: Ether = { to: group.mac, from: clientMac };
const toOwn: Ether = { to: ownMac, from: clientMac };
const toFarm: Ether = { to: farmMac, from: clientMac };
const asked: Arp = { op: 1, sha: clientMac, spa: client4, tpa: vip4 };
const slla = { kind: 1, mac: clientMac } as const;
const invisible: World = { flags: 1 };
const directed: World = { mode: 'vmac_directed', flags: 1 };
const key4 = { addr: client4, extra: 0 };
const key6 = { addr: client6, extra: 0 };

const arpFrame = (packet: Arp, eth = toAll): Bytes => ether(eth, 0x0806, arp(packet));
const answerTo = (mac: string, vlans: Ether['vlans'] = []): Bytes =>
  ether(
    { to: clientMac, from: ownMac, vlans },
    0x0806,
    arp({ op: 2, sha: mac, spa: vip4, tha: clientMac, tpa: client4 }),
  );
const ask6 = (eth = toGroup, dst = group.addr, target = vip6, src = client6): Bytes =>
  ether(eth, 0x86dd, neighbour({ src, dst }, 135, target, slla));
const advert = (mac: string): Bytes =>
  ether(
    { to: clientMac, from: ownMac },
    0x86dd,
    neighbour({ src: vip6, dst: client6 }, 136, vip6, { kind: 2, mac }, 0x60000000),
  );

function send(name: string, world: World, packet: Bytes, out: Bytes, nd = false): Fixture {
  const reason = nd ? 'answered_nd' : 'answered_arp';
  return { name, world, packet, expect: { verdict: 'send', reason, out } };
}

function drop(name: string, world: World, packet: Bytes, reason = 'neighbour'): Fixture {
  const expect = { verdict: 'drop', reason: `dropped_${reason}` };
  return { name, world, packet, expect: expect as Fixture['expect'] };
}

function ignored(name: string, packet: Bytes, world: World = invisible): Fixture {
  return { name, world, packet, expect: { verdict: 'pass', reason: null } };
}

function heard(name: string, packet: Bytes, world: World = invisible): Fixture {
  const expect = { verdict: 'pass', reason: 'accepted_neighbour', out: accepted(packet) } as const;
  return { name, world, packet, expect };
}

const reply: Arp = { op: 2, sha: clientMac, spa: client4, tha: farmMac, tpa: vip4 };
const bare = neighbour({ src: client6, dst: vip6 }, 135, vip6, null);

const arps: readonly Fixture[] = [
  send('ARP answered with the farm MAC', invisible, arpFrame(asked), answerTo(farmMac)),
  send('ARP answered by the owner', { flags: 1, key: key4 }, arpFrame(asked), answerTo(farmMac)),
  drop("ARP of another server's client", { flags: 0, others: 1, key: key4 }, arpFrame(asked)),
  send(
    'ARP answered by any, without a table',
    { flags: 0, arpTable: -1 },
    arpFrame(asked),
    answerTo(farmMac),
  ),
  send(
    'ARP with a VLAN tag',
    invisible,
    arpFrame(asked, { ...toAll, vlans: [[0x8100, 5]] }),
    answerTo(farmMac, [[0x8100, 5]]),
  ),
  send(
    'ARP padded to 60 bytes',
    invisible,
    join(arpFrame(asked), new Uint8Array(18)),
    join(answerTo(farmMac), new Uint8Array(18)),
  ),
  send(
    'ARP probe (sender 0.0.0.0) answered',
    invisible,
    arpFrame({ ...asked, spa: '0.0.0.0' }),
    ether(
      { to: clientMac, from: ownMac },
      0x0806,
      arp({ op: 2, sha: farmMac, spa: vip4, tha: clientMac, tpa: '0.0.0.0' }),
    ),
  ),
  send(
    'directed: the owner answers with its own MAC',
    { ...directed, key: key4 },
    arpFrame(asked),
    answerTo(ownMac),
  ),
  drop(
    'directed: another server answers',
    { ...directed, flags: 0, others: 1, key: key4 },
    arpFrame(asked),
  ),
  send(
    'directed: a unicast question is answered in any case',
    { ...directed, flags: 0 },
    arpFrame(asked, toOwn),
    answerTo(ownMac),
  ),
  { ...drop('ARP, lease lapsed', invisible, arpFrame(asked), 'lease'), lease: 'lapsed' },
  {
    ...drop('directed: unicast ARP, lease lapsed', directed, arpFrame(asked, toOwn), 'lease'),
    lease: 'lapsed',
  },
  drop(
    'announcement of the VIP by a peer (request)',
    invisible,
    arpFrame({ op: 1, sha: farmMac, spa: vip4, tpa: vip4 }, { to: broadcast, from: peerMac }),
  ),
  drop(
    'announcement of the VIP by a peer (reply)',
    invisible,
    arpFrame(
      { op: 2, sha: farmMac, spa: vip4, tha: farmMac, tpa: vip4 },
      { to: broadcast, from: peerMac },
    ),
  ),
  heard('ARP reply to a question of ours', arpFrame(reply, toFarm)),
  heard("ARP reply, another server's client", arpFrame(reply, toFarm), { flags: 0 }),
  ignored('ARP about another address', arpFrame({ ...asked, tpa: '10.0.0.1' })),
  ignored(
    'ARP from a VIP about another address',
    arpFrame({ ...asked, spa: vip4, tpa: '10.0.0.1' }),
  ),
  ignored('ARP cut off', arpFrame(asked).subarray(0, 14 + 27)),
  drop('ARP with another operation', invisible, arpFrame({ ...asked, op: 3 as 1 })),
];

const discovery: readonly Fixture[] = [
  send('NS answered with the farm MAC', invisible, ask6(), advert(farmMac), true),
  send('NS to the VIP itself (revalidation)', invisible, ask6(toFarm, vip6), advert(farmMac), true),
  send(
    'NS without an option: the frame grows',
    invisible,
    ether(toFarm, 0x86dd, bare),
    advert(farmMac),
    true,
  ),
  send(
    'NS with a trailing pad: the frame shrinks',
    invisible,
    join(ask6(), new Uint8Array(30)),
    advert(farmMac),
    true,
  ),
  send('NS answered by the owner', { flags: 1, key: key6 }, ask6(), advert(farmMac), true),
  drop("NS of another server's client", { flags: 0, others: 1, key: key6 }, ask6()),
  send(
    'NS answered by any, without a table',
    { flags: 0, arpTable: -1 },
    ask6(),
    advert(farmMac),
    true,
  ),
  send('directed: NS answered with the own MAC', directed, ask6(), advert(ownMac), true),
  send(
    'directed: unicast NS answered in any case',
    { ...directed, flags: 0 },
    ask6(toOwn, vip6),
    advert(ownMac),
    true,
  ),
  drop('directed: NS, another server answers', { ...directed, flags: 0 }, ask6()),
  send(
    'NS from :: (address detection) answered to all nodes',
    invisible,
    ether(toGroup, 0x86dd, neighbour({ src: '::', dst: group.addr }, 135, vip6, null)),
    ether(
      { to: '33:33:00:00:00:01', from: ownMac },
      0x86dd,
      neighbour({ src: vip6, dst: 'ff02::1' }, 136, vip6, { kind: 2, mac: farmMac }, 0x20000000),
    ),
    true,
  ),
  { ...drop('NS, lease lapsed', invisible, ask6(), 'lease'), lease: 'lapsed' },
  drop(
    'NS with hop limit 64 came through a router',
    invisible,
    ether(toGroup, 0x86dd, neighbour({ src: client6, dst: group.addr, hops: 64 }, 135, vip6, slla)),
    'malformed',
  ),
  drop(
    'NS to the VIP about another address',
    invisible,
    ask6(toFarm, vip6, 'fd00::99'),
    'malformed',
  ),
  drop(
    'NS to the VIP cut off',
    invisible,
    ask6(toFarm, vip6).subarray(0, 14 + 40 + 20),
    'malformed',
  ),
  ignored('NS about another address', ask6(toGroup, group.addr, 'fd00::99')),
  drop(
    'advertisement of the VIP by a peer',
    invisible,
    ether(
      { to: '33:33:00:00:00:01', from: peerMac },
      0x86dd,
      neighbour({ src: vip6, dst: 'ff02::1' }, 136, vip6, { kind: 2, mac: farmMac }, 0x20000000),
    ),
  ),
  heard(
    'NA to a question of ours',
    ether(
      toFarm,
      0x86dd,
      neighbour({ src: client6, dst: vip6 }, 136, client6, { kind: 2, mac: clientMac }, 0x60000000),
    ),
    { flags: 0 },
  ),
  ignored(
    'ND behind an extension header to another group',
    ether(
      toGroup,
      0x86dd,
      ip6({ src: client6, dst: group.addr }, 0, extension6(58, 0, new Uint8Array(24))),
    ),
  ),
];

const fromOwn = (to: string): Ether => ({ to, from: ownMac });
const arpOut = (sha: string, spa = vip4): Bytes =>
  ether(fromOwn(broadcast), 0x0806, arp({ op: 1, sha, spa, tpa: client4 }));
const replyOut = (sha: string): Bytes =>
  ether(fromOwn(clientMac), 0x0806, arp({ op: 2, sha, spa: vip4, tha: clientMac, tpa: client4 }));
const nsOut = (mac: string, src = vip6): Bytes =>
  ether(
    fromOwn(group.mac),
    0x86dd,
    neighbour({ src, dst: 'ff02::1:ff00:7' }, 135, client6, { kind: 1, mac }),
  );
const naOut = (mac: string, src = vip6): Bytes =>
  ether(
    fromOwn(clientMac),
    0x86dd,
    neighbour({ src, dst: client6 }, 136, vip6, { kind: 2, mac }, 0x60000000),
  );
const data = tcp({ sport: 80, dport: 4000, flags: flag.ack });
const tcpOut = ether(fromOwn(clientMac), 0x0800, ip4({ src: vip4, dst: client4 }, 6, data));
const udpOut = ether(
  fromOwn(clientMac),
  0x86dd,
  ip6({ src: vip6, dst: client6 }, 17, udp(53, 4000)),
);

function leaves(name: string, world: World, packet: Bytes, out?: Bytes): Fixture {
  const changed = out === undefined ? {} : { out };
  const reason = out === undefined ? null : 'egress_rewritten';
  return {
    name: `egress: ${name}`,
    egress: true,
    world,
    packet,
    expect: { verdict: 'pass', reason, ...changed },
  };
}

function held(name: string, packet: Bytes, world: World = invisible): Fixture {
  const expect = { verdict: 'drop', reason: 'egress_lease' } as const;
  return {
    name: `egress: ${name}, lease lapsed`,
    egress: true,
    lease: 'lapsed',
    world,
    packet,
    expect,
  };
}

const egress: readonly Fixture[] = [
  leaves('ARP request from the VIP gets the farm MAC', invisible, arpOut(ownMac), arpOut(farmMac)),
  leaves(
    'ARP reply from the VIP gets the farm MAC',
    invisible,
    replyOut(ownMac),
    replyOut(farmMac),
  ),
  leaves('ARP that has the farm MAC stays', invisible, arpOut(farmMac)),
  leaves('ARP from another address stays', invisible, arpOut(ownMac, '10.0.0.1')),
  leaves('directed: ARP from the VIP keeps the own MAC', directed, arpOut(ownMac)),
  leaves('directed: ARP with another MAC is set right', directed, arpOut(farmMac), arpOut(ownMac)),
  leaves(
    'NS from the VIP gets the farm MAC, checksum right',
    invisible,
    nsOut(ownMac),
    nsOut(farmMac),
  ),
  leaves(
    'NA from the VIP gets the farm MAC, checksum right',
    invisible,
    naOut(ownMac),
    naOut(farmMac),
  ),
  leaves(
    'NA about the VIP from another address',
    invisible,
    naOut(ownMac, 'fe80::1'),
    naOut(farmMac, 'fe80::1'),
  ),
  leaves('NS from another address stays', invisible, nsOut(ownMac, 'fe80::1')),
  leaves('directed: NS from the VIP keeps the own MAC', directed, nsOut(ownMac)),
  leaves('TCP from the VIP', invisible, tcpOut),
  leaves('UDP over IPv6 from the VIP', invisible, udpOut),
  held('TCP from the VIP', tcpOut),
  held('UDP over IPv6 from the VIP', udpOut),
  held('ARP from the VIP', arpOut(farmMac)),
  held('NS from the VIP', nsOut(farmMac)),
  held('NA about the VIP', naOut(farmMac, 'fe80::1')),
  held('directed: TCP from the VIP', tcpOut, directed),
  {
    ...leaves(
      'other addresses do not need a lease',
      invisible,
      ether(fromOwn(clientMac), 0x0800, ip4({ src: '10.0.0.1', dst: client4 }, 6, data)),
    ),
    lease: 'lapsed',
  },
  leaves('a truncated ARP', invisible, arpOut(ownMac).subarray(0, 40)),
];

export const neighbourFixtures: readonly Fixture[] = [...arps, ...discovery, ...egress];
