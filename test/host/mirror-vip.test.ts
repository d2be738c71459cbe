import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { parseModuleConfig, parseClusterConfig } from '../../src/config/index.ts';
import type { DevicePart, FarmDevice } from '../../src/host/device.ts';
import { nearestDevice } from '../../src/host/fabric.ts';
import { gateway4, gateway6 } from '../../src/host/gateway.ts';
import { clearAddresses, MirrorVip, nextAnnouncementMs } from '../../src/host/mirror-vip.ts';
import { config as good } from '../config/fixtures.ts';
import { mirrorClusterXml } from '../config/mirror-cases.ts';

const cluster = good(parseClusterConfig(mirrorClusterXml));
const vip4 = '10.0.0.100';
const vip6 = '2001:db8::64';
const foreign = '02:00:00:00:00:ee';
const peerMac = '02:00:00:00:00:02';

function configOf(attributes = '', vip = '') {
  return good(
    parseModuleConfig(
      `<safe><service mode="mirror"><heart><heartbeat name="private"/></heart>
       <rfs><replicated dir="/d"/></rfs>
       <vip ${vip}><interface_list><interface name="eth0" ${attributes}><real_interface>
       <virtual_addr addr="${vip4}"/><virtual_addr addr="${vip6}"/>
       </real_interface></interface></interface_list></vip><user/></service></safe>`,
      { name: 'db', cluster },
    ),
  );
}

/** A device, neighbours and a clock that a test moves. */
class World {
  nowMs = 1000;
  readonly log: string[] = [];
  readonly announcedMs: number[] = [];
  readonly alerts = new Map<string, string>();
  readonly records: string[] = [];
  /** Who answers for an address, and whether the gateway does. */
  readonly answers = new Map<string, string>();
  gateway: string | null = null;
  gatewayKnows = true;
  asked = 0;
  readonly probed: string[] = [];
  probing: Promise<void> = Promise.resolve();
  asking: Promise<void> = Promise.resolve();
  refuses = false;
  mute = false;
  resetting: Promise<number> = Promise.resolve(2);
  claim: { readonly mac: string; readonly atMs: number } | null = null;
  addresses: { device: string; addr: string; prefix: number }[] = [];
  readonly link = {
    addresses: () => this.addresses,
    removeAddress: (name: string, addr: string, prefix: number) => {
      this.log.push(`removed ${addr}/${prefix} ${name}`);
    },
  };
  readonly vip: MirrorVip;
  readonly #t: TestContext;

  constructor(t: TestContext, config = configOf()) {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    this.#t = t;
    const device = {
      name: 'eth0',
      setPart: (_module: string, part: DevicePart) => {
        if (this.refuses) throw new Error('no');
        this.log.push(stateOf(part));
      },
      removePart: () => {
        this.log.push('removed');
        return true;
      },
      announce: () => {
        if (this.mute) throw new Error('ENOBUFS');
        this.announcedMs.push(this.nowMs - 1000);
      },
      claim: (module: string, addr: string) => {
        assert.equal(module, 'db');
        return addr === vip6 ? this.claim : null;
      },
      info: () => ({ device: 'eth0', hook: 'tc', reasons: [], adopted: false }),
    } as unknown as FarmDevice;
    this.vip = new MirrorVip(config, {
      me: 1,
      devices: [device],
      leaseSlot: 4,
      link: {
        probe: async (_device, addr) => {
          this.probed.push(addr);
          await this.probing;
          return this.answers.get(addr) ?? null;
        },
        ask: async () => {
          this.asked++;
          await this.asking;
          return this.gatewayKnows ? '02:00:00:00:00:fe' : null;
        },
        resetConnections: async (addr) => {
          this.log.push(`reset ${addr}`);
          return this.resetting;
        },
      },
      nowMs: () => this.nowMs,
      serverOf: (mac) => (mac === peerMac ? 'db1' : null),
      gatewayOf: () => this.gateway,
      record: (text) => this.records.push(text),
      alert: (id, on, _severity, message) => {
        if (on) this.alerts.set(id, message);
        else this.alerts.delete(id);
      },
    });
  }

  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 50) {
      this.nowMs += 50;
      this.#t.mock.timers.tick(50);
      // oxlint-disable-next-line no-await-in-loop
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async open(): Promise<void> {
    await this.vip.perform('on');
    await this.vip.perform('open');
  }
}

function stateOf({ tables, vips, rules, leaseSlot }: DevicePart): string {
  const [table] = tables;
  assert.equal(tables.length, 1);
  assert.equal(leaseSlot, 4);
  assert.deepEqual(
    vips.map((vip) => [vip.addr, vip.prefix, vip.mode, vip.farmMac, vip.arpGroup]),
    [
      [vip4, 32, 'vmac_directed', null, 0],
      [vip6, 128, 'vmac_directed', null, 0],
    ],
  );
  assert.deepEqual(
    rules.map((rule) => [rule.proto, rule.portLow, rule.portHigh, rule.vips, rule.group]),
    ['tcp', 'udp', 'icmp'].map((proto) => [proto, 0, 65_535, [0, 1], 0]),
  );
  const every = (list: Uint8Array | undefined, value: number) =>
    list?.every((one) => one === value);
  assert.ok(every(table?.holder, 255));
  if (every(table?.flags, 1) && every(table?.owner, 1)) return 'open';
  assert.ok(every(table?.flags, 0) && every(table?.owner, 255));
  return 'shut';
}

describe('the virtual IP of a mirror: its orders', () => {
  it('on, open, shut, open, off: each state of the filter once, resets before the addresses go', async (t) => {
    const world = new World(t);
    assert.equal(world.vip.status().open, false);
    for (const order of ['on', 'open', 'shut', 'open', 'off'] as const) {
      // oxlint-disable-next-line no-await-in-loop
      await world.vip.perform(order);
    }
    assert.deepEqual(world.log, [
      'shut',
      'open',
      'shut',
      'open',
      'shut',
      `reset ${vip4}`,
      `reset ${vip6}`,
      'removed',
    ]);
    assert.ok(world.records.includes(`2 connections of ${vip4} were reset`));
    assert.deepEqual(world.vip.status(), {
      addrs: [vip4, vip6],
      open: false,
      device: 'eth0',
      hook: 'tc',
    });
  });

  it('repeats nothing, and shuts or takes off nothing that is not there', async (t) => {
    const world = new World(t);
    for (const order of [
      'off',
      'shut',
      'on',
      'on',
      'open',
      'open',
      'off',
      'off',
      'shut',
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop
      await world.vip.perform(order);
    }
    assert.deepEqual(
      world.log.filter((what) => !what.startsWith('reset')),
      ['shut', 'open', 'shut', 'removed'],
    );
  });

  it('resets no connections where the configuration says so', async (t) => {
    const world = new World(t, configOf('', 'tcpreset="off"'));
    await world.open();
    await world.vip.perform('off');
    assert.ok(!world.log.some((what) => what.startsWith('reset')));
  });

  it('is shut before perform returns, and waits for what is taken off before it puts it on again', async (t) => {
    const world = new World(t);
    await world.open();
    let done: (count: number) => void = () => {};
    world.resetting = new Promise((resolve) => {
      done = resolve;
    });
    world.log.length = 0;
    const off = world.vip.perform('off');
    assert.deepEqual(world.log, ['shut']);
    const on = world.vip.perform('on');
    const open = world.vip.perform('open');
    const shut = world.vip.perform('shut');
    const again = world.vip.perform('on');
    await world.pass(100);
    assert.deepEqual(world.log, ['shut', `reset ${vip4}`]);
    done(0);
    await Promise.all([off, on, open, shut, again]);
    // It was never open again: that order was overtaken.
    assert.deepEqual(world.log, ['shut', `reset ${vip4}`, `reset ${vip6}`, 'removed', 'shut']);
  });

  it('tells of what the kernel refuses, and tries again until something else is asked for', async (t) => {
    const world = new World(t);
    world.refuses = true;
    await world.open();
    assert.match(world.alerts.get('module.db.vip') ?? '', /cannot be opened: no/);
    assert.equal(world.vip.status().open, false);
    await world.pass(2000);
    assert.equal(world.vip.status().open, false);
    world.refuses = false;
    await world.pass(1000);
    assert.equal(world.vip.status().open, true);
    assert.equal(world.alerts.size, 0);
    await world.vip.perform('off');
    await world.pass(5000);
    assert.equal(world.log.at(-1), 'removed');
  });

  it('clears what nobody knows of, and only that', (t) => {
    const world = new World(t);
    world.addresses = [
      { device: 'eth1', addr: vip4, prefix: 24 },
      { device: 'eth0', addr: '10.0.0.1', prefix: 24 },
    ];
    clearAddresses(configOf(), world.link, (text) => world.records.push(text));
    assert.deepEqual(world.log, [`removed ${vip4}/24 eth1`]);
  });
});

describe('the virtual IP of a mirror: its announcements', () => {
  it('spread over the first seconds, then each minute, while it is open', async (t) => {
    const world = new World(t);
    await world.open();
    await world.pass(145_000);
    assert.deepEqual(
      world.announcedMs,
      [0, 200, 1300, 2500, 5000, 10_000, 20_000, 80_000, 140_000],
    );
    await world.vip.perform('shut');
    await world.pass(100_000);
    assert.equal(world.announcedMs.length, 9);
  });

  it('are said again when the lease runs again, and not while it is shut', async (t) => {
    const world = new World(t);
    world.vip.reannounce();
    assert.deepEqual(world.announcedMs, []);
    world.mute = true;
    await world.open();
    assert.deepEqual(world.records, [], 'the lease begins a moment later: no news');
    await world.pass(100);
    world.mute = false;
    world.vip.reannounce();
    await world.pass(1400);
    assert.deepEqual(world.announcedMs, [100, 300, 1400]);
  });

  it('that the kernel goes on refusing are recorded once', async (t) => {
    const world = new World(t);
    world.mute = true;
    await world.open();
    await world.pass(30_000);
    assert.deepEqual(world.records, ['the virtual IP is not announced: ENOBUFS']);
  });

  it('do not start anew for an agent that follows', async (t) => {
    const world = new World(t);
    world.vip.adopt(true);
    assert.deepEqual(world.log, ['open']);
    assert.equal(world.vip.status().open, true);
    await world.pass(61_000);
    assert.deepEqual(world.announcedMs, [60_000]);
    world.vip.abandon();
    await world.pass(120_000);
    assert.equal(world.announcedMs.length, 1);
  });

  it('by arpreroute come as often as it says, as long as it says', () => {
    const pace = { arpreroute: true, arpIntervalMs: 2000, arpElapseMs: 30_000 };
    const times: number[] = [0];
    while ((times.at(-1) ?? 0) < 100_000) times.push(nextAnnouncementMs(times.at(-1) ?? 0, pace));
    assert.deepEqual(times.slice(0, 7), [0, 200, 1300, 2500, 4500, 5000, 7000]);
    assert.deepEqual(times.slice(-4), [28_000, 30_000, 90_000, 150_000]);
    assert.ok(times.includes(20_000));
  });
});

describe('the virtual IP of a mirror: its neighbours', () => {
  it('another host that answers is told of; the address is defended each 10 s, no more', async (t) => {
    const world = new World(t);
    await world.open();
    await world.pass(30_000);
    assert.equal(world.alerts.size, 0);
    world.answers.set(vip4, foreign);
    await world.pass(60_000);
    const id = `module.db.duplicate.${vip4}`;
    assert.match(world.alerts.get(id) ?? '', new RegExp(`another host, ${foreign}`));
    world.announcedMs.length = 0;
    const fromMs = world.nowMs;
    await world.pass(60_000);
    const defences = world.announcedMs.length;
    assert.ok(defences >= 5 && defences <= 7, `${defences} announcements in a minute`);
    assert.ok(world.nowMs - fromMs === 60_000);
    world.answers.clear();
    await world.pass(10_000);
    assert.equal(world.alerts.size, 0);
    assert.ok(world.records.includes(`nobody else answers for ${vip4} any more`));
  });

  it('a claim that the filter saw is told of at once, and defended no more often', async (t) => {
    const world = new World(t);
    await world.open();
    await world.pass(25_000);
    world.announcedMs.length = 0;
    // Each 3 s another host advertises the IPv6 address; no question brings that to light.
    for (let round = 0; round < 10; round++) {
      world.claim = { mac: foreign, atMs: world.nowMs };
      // oxlint-disable-next-line no-await-in-loop
      await world.pass(1500);
      if (round === 0) {
        const alert = world.alerts.get(`module.db.duplicate.${vip6}`);
        assert.match(alert ?? '', new RegExp(`another host, ${foreign}`));
      }
      // oxlint-disable-next-line no-await-in-loop
      await world.pass(1500);
    }
    assert.ok(world.announcedMs.length <= 4, `${world.announcedMs.length} announcements in 30 s`);
    await world.pass(21_000);
    assert.equal(world.alerts.size, 0);
  });

  it('before it opens: a former primary is no alert, another host is one', async (t) => {
    const world = new World(t);
    world.answers.set(vip4, peerMac);
    world.answers.set(vip6, foreign);
    await world.vip.perform('probe');
    await world.pass(50);
    assert.deepEqual([...world.alerts.keys()], [`module.db.duplicate.${vip6}`]);
    assert.ok(world.records.includes(`${vip4} is still answered by db1`));
    // Once it is open, whoever answers is a duplicate; and one that is gone is none.
    await world.open();
    world.answers.delete(vip6);
    await world.pass(11_000);
    assert.deepEqual([...world.alerts.keys()], [`module.db.duplicate.${vip4}`]);
    await world.vip.perform('off');
    assert.equal(world.alerts.size, 0);
  });

  it('a probe that the opening overtook is made up for at once; one that the end overtook is void', async (t) => {
    const world = new World(t);
    let answer: () => void = () => {};
    world.probing = new Promise((resolve) => {
      answer = resolve;
    });
    world.answers.set(vip4, foreign);
    await world.vip.perform('probe');
    await world.open();
    await world.pass(50);
    answer();
    await world.pass(100);
    assert.deepEqual(world.probed, [vip4, vip4, vip6]);
    assert.deepEqual([...world.alerts.keys()], [`module.db.duplicate.${vip4}`]);

    world.probing = new Promise((resolve) => {
      answer = resolve;
    });
    await world.vip.perform('shut');
    await world.vip.perform('probe');
    await world.vip.perform('off');
    answer();
    await world.pass(100);
    assert.equal(world.alerts.size, 0);
  });

  it('a device that is down for a while ends no watch', async (t) => {
    const world = new World(t);
    world.gateway = '10.0.0.254';
    world.gatewayKnows = false;
    await world.open();
    const broken = Promise.reject(new Error('ENETDOWN'));
    broken.catch(() => {});
    world.probing = broken;
    world.asking = broken;
    await world.pass(90_000);
    assert.equal(world.records.filter((text) => text.includes('ENETDOWN')).length, 2);
    world.probing = world.asking = Promise.resolve();
    world.gatewayKnows = true;
    world.answers.set(vip4, foreign);
    await world.pass(60_000);
    assert.deepEqual([...world.alerts.keys()], [`module.db.duplicate.${vip4}`]);
    assert.ok(world.records.some((text) => text.startsWith('gateway 10.0.0.254 answers')));
  });

  it('the gateway that answers is recorded once, with the time it took', async (t) => {
    const world = new World(t);
    world.gateway = '10.0.0.254';
    await world.open();
    await world.pass(90_000);
    assert.equal(world.asked, 2);
    assert.ok(
      world.records.some((text) =>
        /^gateway 10.0.0.254 answers 10.0.0.100 \d+ ms after/.test(text),
      ),
    );
  });

  it('the gateway that does not is an alert after 20 s, until it does', async (t) => {
    const world = new World(t);
    world.gateway = '10.0.0.254';
    world.gatewayKnows = false;
    await world.open();
    await world.pass(19_000);
    assert.equal(world.alerts.size, 0);
    await world.pass(2000);
    assert.match(
      world.alerts.get(`module.db.gateway.${vip4}`) ?? '',
      /10.0.0.254 does not answer 10.0.0.100/,
    );
    world.gatewayKnows = true;
    await world.pass(60_000);
    assert.equal(world.alerts.size, 0);
  });
});

describe('the device of a virtual IP without a name', () => {
  const addresses = [
    { device: 'lo', addr: '127.0.0.1', prefix: 8 },
    { device: 'eth0', addr: '10.0.0.1', prefix: 8 },
    { device: 'eth1', addr: '10.0.1.1', prefix: 24 },
    { device: 'eth2', addr: '10.0.2.9', prefix: 32 },
    { device: 'eth3', addr: 'fd00::1', prefix: 64 },
    { device: 'eth4', addr: '2001:db8::9', prefix: 128 },
  ];
  const rows = [
    ['10.0.0.100', 'eth0'],
    ['10.0.1.100', 'eth1'],
    ['10.0.2.10', 'eth0'],
    ['192.168.0.1', null],
    ['fd00::64', 'eth3'],
    ['fd00:0:0:1::64', null],
    ['2001:db8::8', null],
  ] as const;
  for (const [addr, device] of rows) {
    it(`${addr}: ${device}`, () => assert.equal(nearestDevice(addresses, addr), device));
  }
});

describe('gateways', () => {
  it('of IPv4: the default route of the device with the best metric', () => {
    const table = [
      'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
      'eth0\t00000000\tFE00000A\t0003\t0\t0\t100\t00000000\t0\t0\t0',
      'eth0\t00000000\tFD00000A\t0003\t0\t0\t50\t00000000\t0\t0\t0',
      'eth1\t00000000\t0107A8C0\t0003\t0\t0\t10\t00000000\t0\t0\t0',
      'eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0',
      'eth2\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0',
    ].join('\n');
    assert.equal(gateway4(table, 'eth0'), '10.0.0.253');
    assert.equal(gateway4(table, 'eth1'), '192.168.7.1');
    assert.equal(gateway4(table, 'eth2'), null);
    assert.equal(gateway4('', 'eth0'), null);
  });

  it('of IPv6 too', () => {
    const zero = '0'.repeat(32);
    const table = [
      `${zero} 00 ${zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0`,
      `${zero} 00 ${zero} 00 fe800000000000000000000000000002 00000100 00000001 00000000 00000003     eth0`,
      `fd000000000000000000000000000000 40 ${zero} 00 ${zero} 00000100 00000001 00000000 00000001     eth0`,
      `${zero} 00 ${zero} 00 ${zero} ffffffff 00000001 00000000 00200200       lo`,
    ].join('\n');
    assert.equal(gateway6(table, 'eth0'), 'fe80:0000:0000:0000:0000:0000:0000:0002');
    assert.equal(gateway6(table, 'lo'), null);
  });
});
