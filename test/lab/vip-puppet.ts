/**
 * An agent that has nothing but the virtual IP of a mirror: runs under holdfastd on a lab host, with $VIP_NODES
 * (name=address, ...), $VIP_ME and $VIP_ADDRS ("," between addresses, ";" between interfaces); carries out orders given as JSON lines on stdin and prints the
 * answers, and what it is told, as JSON lines.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import { Fabric, moduleKey } from '../../src/host/fabric.ts';
import { gatewayOf } from '../../src/host/gateway.ts';
import { clearAddresses, MirrorVip, type VipOrder } from '../../src/host/mirror-vip.ts';
import type { PeerTable } from '../../src/host/peers.ts';
import { type BeatLease, moduleFlag, openBeat } from '../../src/native/beat.ts';
import { openFilter } from '../../src/native/filter.ts';
import { openLink } from '../../src/native/link.ts';

export type PuppetOrder =
  | {
      readonly op: 'announce';
      readonly lease: BeatLease;
      readonly consent?: boolean;
      readonly epoch: number;
    }
  | { readonly op: 'vip'; readonly order: VipOrder }
  | { readonly op: 'reannounce' }
  | { readonly op: 'status' };

const name = 'db';
const env = (key: string): readonly string[] => (process.env[key] ?? '').split(',');
const nodes = env('VIP_NODES').map((entry) => entry.split('='));
const addrXml = (addr: string) => `<virtual_addr addr="${addr}"/>`;
const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);

const cluster = parseClusterConfig(
  `<cluster><lans><lan name="office">${nodes.map(([node, addr]) => `<node name="${node}" addr="${addr}"/>`).join('')}</lan></lans></cluster>`,
).config;
if (cluster === null) throw new Error('the cluster makes no sense');
const { config, errors } = parseModuleConfig(
  `<safe><service mode="mirror">
    <heart><heartbeat name="office"/></heart><rfs><replicated dir="/srv/data"/></rfs>
    <vip><interface_list>${(process.env['VIP_ADDRS'] ?? '')
      .split(';')
      .map(
        (addrs) =>
          `<interface><real_interface>${addrs.split(',').map(addrXml).join('')}</real_interface></interface>`,
      )
      .join('')}</interface_list></vip>
    <user/></service></safe>`,
  { name, cluster },
);
if (config === null) throw new Error(errors.map((error) => error.line()).join('\n'));

const me = nodes.findIndex(([node]) => node === process.env['VIP_ME']);
print({ started: process.pid });
const link = openLink();
const beat = openBeat();
beat.onLost(() => process.exit(70));
const fabric = new Fabric(cluster, {
  me,
  beat,
  link,
  peers: { macs: () => [] } as unknown as PeerTable,
  openFilter,
  pinDir: '/sys/fs/bpf/holdfast',
  clusterId: '00000000000000aa',
  beatKey: Buffer.alloc(32, 7),
  hashKey: Buffer.alloc(16, 7),
});
setInterval(() => beat.confirm(), 50);
const leaseSlot = fabric.takeSlot(name, 0);
const vip = new MirrorVip(config, {
  me,
  devices: fabric.devicesFor(config, process.env['VIP_ME'] ?? ''),
  leaseSlot,
  link,
  nowMs: () => beat.nowMs(),
  serverOf: (mac) => (env('VIP_PEER_MACS').includes(mac) ? 'the peer' : null),
  gatewayOf,
  record: (text) => print({ record: text }),
  alert: (id, on, _severity, message) => print({ alert: id, on, message }),
});
/** What a former agent of this host left, as the driver of a mirror keeps it in /run. */
const stateFile = '/run/vip-puppet.json';
interface Kept {
  announced: Extract<PuppetOrder, { op: 'announce' }> | null;
  where: VipOrder;
}
const kept: Kept = existsSync(stateFile)
  ? (JSON.parse(readFileSync(stateFile, 'utf8')) as Kept)
  : { announced: null, where: 'off' };
if (kept.announced !== null) announce(kept.announced);
if (kept.where === 'off') {
  clearAddresses(config, link, (text) => print({ record: text }));
  vip.guard();
} else vip.adopt(kept.where === 'open');
fabric.release();
beat.onEvents((events) => {
  for (const event of events) {
    if (event.kind === 'lease') print({ lease: event.renewing, why: event.why });
    if (event.kind === 'lease' && event.renewing) vip.reannounce();
    if (event.kind === 'peer') print({ reach: event.reach });
  }
});

function keep(change: Partial<Kept>): void {
  Object.assign(kept, change);
  writeFileSync(stateFile, JSON.stringify(kept));
}

function announce({ lease, consent, epoch }: Extract<PuppetOrder, { op: 'announce' }>): void {
  fabric.announce(name, {
    key: moduleKey(name),
    flags: moduleFlag.running | (consent === true ? moduleFlag.consent : 0),
    viewEpoch: epoch,
    viewMembers: 0n,
    leaseSlots: [leaseSlot],
    lease,
  });
}

async function carryOut(order: PuppetOrder): Promise<unknown> {
  switch (order.op) {
    case 'announce':
      keep({ announced: order });
      announce(order);
      await beat.announced();
      return null;
    case 'vip':
      if (order.order !== 'probe') keep({ where: order.order });
      await vip.perform(order.order);
      return null;
    case 'reannounce':
      vip.reannounce();
      return null;
    case 'status':
      return vip.status();
  }
}

let queue = Promise.resolve();
createInterface({ input: process.stdin }).on('line', (line) => {
  queue = queue.then(async () => {
    print({ answer: await carryOut(JSON.parse(line) as PuppetOrder) });
  });
});
