/** Who else speaks as a virtual IP of directed mode: what the filter keeps of it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { packConfig } from '../../src/native/filter-abi.ts';
import { filterObjectPath, loadFilterAddon, type NativeFilter } from '../../src/native/filter.ts';
import { arp, type Bytes, ether, ip4, neighbour, tcp } from './filter-packets.ts';
import {
  broadcast,
  client4,
  client6,
  clientMac,
  ownMac,
  vip4,
  vip6,
  type World,
  world,
} from './filter-world.ts';

const skip = process.getuid?.() === 0 ? false : 'loading BPF programs needs root';
const directed: World = { mode: 'vmac_directed', flags: 1 };
const toAll = { to: broadcast, from: clientMac };
/** ARP of somebody who says that he is `spa`. */
const spoken = (spa: string, tpa: string, op: 1 | 2, sha = clientMac): Bytes =>
  ether(toAll, 0x0806, arp({ op, sha, spa, tpa }));
const advert = (target: string, from = clientMac): Bytes =>
  ether(
    { to: '33:33:00:00:00:01', from },
    0x86dd,
    neighbour({ src: client6, dst: 'ff02::1' }, 136, target, { kind: 2, mac: from }, 0x20000000),
  );

describe('claims of a virtual IP', { skip }, () => {
  const addon = loadFilterAddon();
  const filter: NativeFilter = new addon.NativeFilter({
    device: 'lo',
    pinDir: '',
    hook: 'none',
    objectPath: filterObjectPath(),
  });
  const claims = (given: World, packet: Bytes, program: 'xdp' | 'tc') => {
    filter.commit(packConfig(world(given)));
    // For a moment after a commit the place of an address is another's, for all that is known.
    const until = performance.now() + 50;
    do filter.testRun(program, packet, 1);
    while (performance.now() < until);
    return [0, 1].map(
      (vip) =>
        filter
          .claim(vip)
          ?.mac.map((byte) => byte.toString(16))
          .join(':') ?? null,
    );
  };
  const theirs = clientMac.replaceAll(/\b0(?=[0-9a-f])/g, '');
  const rows: readonly (readonly [string, Bytes, readonly (string | null)[]])[] = [
    ['a gratuitous ARP request', spoken(vip4, vip4, 1), [theirs, null]],
    ['a gratuitous ARP reply', spoken(vip4, vip4, 2), [theirs, null]],
    ['a question to others as the address', spoken(vip4, '10.0.0.254', 1), [theirs, null]],
    ['an answer to a probe', spoken(vip4, '0.0.0.0', 2), [theirs, null]],
    ['a neighbour advertisement', advert(vip6), [null, theirs]],
    ['a question for the address', spoken(client4, vip4, 1), [null, null]],
    ['its own announcement, reflected', spoken(vip4, vip4, 1, ownMac), [null, null]],
    ['an advertisement of its own, reflected', advert(vip6, ownMac), [null, null]],
    ['an advertisement of another address', advert(client6), [null, null]],
    [
      'a packet of a client',
      ether(
        { to: ownMac, from: clientMac },
        0x0800,
        ip4({ src: client4, dst: vip4 }, 6, tcp({ sport: 1, dport: 80, flags: 2 })),
      ),
      [null, null],
    ],
  ];
  for (const [name, packet, expected] of rows) {
    for (const program of ['xdp', 'tc'] as const) {
      test(`${name} (${program})`, () => {
        assert.deepEqual(claims(directed, packet, program), expected);
        const invisible = claims({ flags: 1 }, packet, program);
        assert.deepEqual(invisible, [null, null], 'all servers of a farm speak as its address');
      });
    }
  }

  test('say when, and end with the next commit', () => {
    const beforeMs = Number(process.hrtime.bigint()) / 1e6;
    claims(directed, advert(vip6), 'xdp');
    const atMs = filter.claim(1)?.atMs ?? 0;
    // hrtime has the same rate, not the same start: only that it is not far away.
    assert.ok(Math.abs(atMs - beforeMs) < 365 * 86_400_000 && atMs > 0);
    filter.commit(packConfig(world(directed)));
    assert.equal(filter.claim(1), null);
    assert.equal(filter.claim(99), null);
  });
});
