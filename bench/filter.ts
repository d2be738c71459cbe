/**
 * `npm run bench -- filter [rounds]`: nanoseconds per packet, end to end on a veth pair: generator,
 * device, program, drop. Everything in one run, interleaved, medians; random clients throughout.
 * Needs root; works in namespaces of its own.
 */
import { createServer } from 'node:net';
import { packConfig } from '../src/native/filter-abi.ts';
import { type Hook, loadFilterAddon, filterObjectPath, bucketFlag } from '../src/native/filter.ts';
import { builtFile } from '../src/native/load.ts';
import { command, configWith, farmMac, frameOf, makeRig, receiver, vip } from './filter/rig.ts';

const rounds = Number(process.argv[2] ?? 15);
const perRound = 100_000;
const chunk = 20_000;
const pinDir = '/sys/fs/bpf/holdfast-bench';
const forever = 0xffff_ffff_ffffn * 1000n;

interface Contestant {
  readonly name: string;
  readonly frame: Uint8Array;
  /** Sets up; returns how to take it away. */
  start(): () => void;
}

if (process.getuid?.() !== 0) {
  console.log('bench filter: needs root (network namespaces, BPF)');
  process.exit(1);
}

const addon = loadFilterAddon();
addon.sandbox();
const rig = makeRig(addon);
const { own, hold, quiet } = bucketFlag;
const toFarm = { udp: frameOf(farmMac, 'udp'), tcp: frameOf(farmMac, 'tcp') };
const toHost = frameOf(rig.mac, 'udp');

/** `after`: where accepted packets end, so that both sides of a comparison pay the same. */
const dropBehind =
  'nft add table netdev after && ' +
  `nft 'add chain netdev after in { type filter hook ingress device ${receiver} priority 100; policy drop; }'`;

function bare(program: string, behind = false): () => () => void {
  return () => {
    if (behind) command(dropBehind);
    const loaded = addon.loadProgram(builtFile('filter_bench.bpf.o'), program);
    const link = addon.attachProgram(loaded, receiver, true);
    return () => {
      link.close();
      loaded.close();
      if (behind) command('nft delete table netdev after');
    };
  };
}

function filterWith(flags: number, hook: Hook, behind = false): () => () => void {
  return () => {
    if (behind) command(dropBehind);
    const objectPath = filterObjectPath();
    const filter = new addon.NativeFilter({ device: receiver, pinDir, hook, objectPath });
    filter.commit(packConfig(configWith(rig.mac, flags)));
    filter.setLease(0, forever);
    return () => {
      filter.detach();
      command(`tc qdisc del dev ${receiver} clsact`);
      if (behind) command('nft delete table netdev after');
    };
  };
}

function nft(family: string, hook: string): () => () => void {
  const match = `ip daddr ${vip} udp dport 80 jhash ip saddr . udp sport mod 3 seed 0x7 != 0 drop`;
  return () => {
    command(
      `nft add table ${family} rival && ` +
        `nft 'add chain ${family} rival in { type filter hook ${hook}; policy drop; }' && ` +
        `nft 'add rule ${family} rival in ${match}'`,
    );
    return () => command(`nft delete table ${family} rival`);
  };
}

/** All three "nodes" are local, so that every packet takes the whole match and is dropped. */
function cluster(): () => void {
  const rule =
    `PREROUTING -d ${vip} -m cluster --cluster-total-nodes 3 --cluster-local-nodemask 7 ` +
    '--cluster-hash-seed 0x7 -j DROP';
  command(`iptables -t mangle -A ${rule}`);
  return () => command(`iptables -t mangle -D ${rule}`);
}

const contestants: readonly Contestant[] = [
  { name: 'XDP_DROP, bare', frame: toFarm.udp, start: bare('bench_drop') },
  { name: 'foreign, XDP native', frame: toFarm.udp, start: filterWith(0, 'xdp-native') },
  { name: 'HOLD, no socket', frame: toFarm.tcp, start: filterWith(hold, 'xdp-native') },
  { name: 'QUIET, no socket', frame: toFarm.tcp, start: filterWith(own | quiet, 'xdp-native') },
  { name: 'foreign, XDP generic', frame: toFarm.udp, start: filterWith(0, 'xdp-generic') },
  { name: 'foreign, tc', frame: toFarm.udp, start: filterWith(0, 'tc') },
  {
    name: 'nft jhash, netdev',
    frame: toHost,
    start: nft('netdev', `ingress device ${receiver} priority 0`),
  },
  { name: 'nft jhash, prerouting', frame: toHost, start: nft('ip', 'prerouting priority raw') },
  { name: 'iptables xt_cluster', frame: toHost, start: cluster },
  { name: 'XDP_PASS, bare, + drop', frame: toFarm.udp, start: bare('bench_pass', true) },
  {
    name: 'own, XDP native, + drop',
    frame: toFarm.udp,
    start: filterWith(own, 'xdp-native', true),
  },
];

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

function measure(contestant: Contestant): number[] {
  const stop = contestant.start();
  try {
    rig.send(contestant.frame, 5000);
    const samples = [];
    for (let sent = 0; sent < perRound; sent += chunk) {
      samples.push(rig.send(contestant.frame, chunk));
    }
    return samples;
  } finally {
    stop();
  }
}

/** Copying 4096 buckets into the idle buffer and flipping; the wait before the copy is not in it. */
function flipTimes(): number[] {
  const objectPath = filterObjectPath();
  const filter = new addon.NativeFilter({
    device: receiver,
    pinDir,
    hook: 'xdp-native',
    objectPath,
  });
  const packed = packConfig(configWith(rig.mac, own));
  const times = Array.from({ length: 200 }, () => filter.commit(packed));
  filter.detach();
  return times;
}

// A listener on the VIP: the socket lookup of HOLD and QUIET then finds it, as on a real server.
command(`ip addr add ${vip}/32 dev lo`);
const server = createServer().listen(80, vip);
await new Promise((resolve) => server.once('listening', resolve));

const samples = contestants.map((): number[] => []);
for (let round = 0; round < rounds; round++) {
  for (const [at, contestant] of contestants.entries()) samples[at]?.push(...measure(contestant));
}
server.close();

const medians = new Map(
  contestants.map(({ name }, at) => [name, quantile(samples[at] ?? [], 0.5)]),
);
const of = (name: string): number => medians.get(name) ?? Number.NaN;
const base = of('XDP_DROP, bare');
const foreign = of('foreign, XDP native');

console.log(`filter: ns per packet on veth, one CPU, random clients, median of ${rounds} rounds`);
console.log(`${'path'.padEnd(26)}${'p50'.padStart(8)}${'p10'.padStart(8)}${'x bare'.padStart(8)}`);
for (const [at, { name }] of contestants.entries()) {
  const p10 = quantile(samples[at] ?? [], 0.1);
  const cells = [of(name).toFixed(0), p10.toFixed(0), (of(name) / base).toFixed(2)];
  console.log(name.padEnd(26) + cells.map((cell) => cell.padStart(8)).join(''));
}

const flips = flipTimes();
const rows: readonly (readonly [string, string, string, boolean])[] = [
  ['foreign / bare XDP_DROP', (foreign / base).toFixed(2), '<= 1.35', foreign / base <= 1.35],
  ...(
    [
      ['xt_cluster / foreign', of('iptables xt_cluster') / foreign, 5],
      ['nft jhash netdev / foreign', of('nft jhash, netdev') / foreign, 2.5],
      ['nft jhash prerouting / foreign', of('nft jhash, prerouting') / foreign, 2.5],
    ] as const
  ).map(([what, ratio, goal]) => [what, ratio.toFixed(2), `>= ${goal}`, ratio >= goal] as const),
  [
    'table flip p50 / p99, us',
    `${(quantile(flips, 0.5) / 1000).toFixed(1)} / ${(quantile(flips, 0.99) / 1000).toFixed(1)}`,
    '< 1000',
    quantile(flips, 0.99) < 1_000_000,
  ],
];
console.log(`\n${'ratio'.padEnd(34)}${'here'.padStart(14)}${'target'.padStart(10)}`);
for (const [what, here, target, met] of rows) {
  console.log(
    `${what.padEnd(34)}${here.padStart(14)}${target.padStart(10)}  ${met ? 'met' : 'MISSED'}`,
  );
}
