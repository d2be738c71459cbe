/** The virtual IP of a mirror with a device, neighbours and a clock that tests move. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import type { DevicePart, FarmDevice } from '../../src/host/device.ts';
import { MirrorVip } from '../../src/host/mirror-vip.ts';
import { config as good } from '../config/fixtures.ts';
import { mirrorClusterXml } from '../config/mirror-cases.ts';

const cluster = good(parseClusterConfig(mirrorClusterXml));
export const vip4 = '10.0.0.100';
export const vip6 = '2001:db8::64';
export const foreign = '02:00:00:00:00:ee';
export const peerMac = '02:00:00:00:00:02';

export function configOf(attributes = '', vip = '') {
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
export class World {
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
  readonly #t: TestContext | null;

  /** t null: its timers are mocked already, and no time passes. */
  constructor(t: TestContext | null, config = configOf()) {
    t?.mock.timers.enable({ apis: ['setTimeout'] });
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
      this.#t?.mock.timers.tick(50);
      // oxlint-disable-next-line no-await-in-loop
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async open(): Promise<void> {
    await this.vip.perform('on');
    await this.vip.perform('open');
  }
}

function stateOf({ tables, vips, rules, leaseSlot, isGuard }: DevicePart): string {
  const [table] = tables;
  if (isGuard === true) {
    assert.deepEqual([tables, rules, leaseSlot], [[], [], 4]);
    assert.deepEqual(
      vips.map((vip) => [vip.addr, vip.prefix, vip.mode, vip.arpGroup]),
      [
        [vip4, 32, 'vmac_directed', -1],
        [vip6, 128, 'vmac_directed', -1],
      ],
    );
    return 'guard';
  }
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
