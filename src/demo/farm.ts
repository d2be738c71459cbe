/** The farm: nginx on three servers, 1,000 clients; a server joins, one leaves, one loses its power. */
import { setTimeout as delay } from 'node:timers/promises';
import type { LoadStats, SniffStats } from '../lab/clients.ts';
import { LabCluster } from '../lab/cluster.ts';
import type { Host } from '../lab/host.ts';
import type { Lab } from '../lab/lab.ts';
import { conclude, mark, say, type Verdict, verdict } from './report.ts';

const module = 'web';
export const clientCount = 1000;
/** Longest time a client may wait for an answer when a server loses its power, default timing. */
const gapLimitMs = 300;
/** Part of its share by which a server's number of clients may differ. */
const shareLimit = 0.05;
/** Time that each phase is watched. */
const watchMs = 4000;

interface Phase {
  readonly name: string;
  readonly stats: LoadStats;
  readonly seen: SniffStats;
}

/** Shows it on the lab's three servers; true when every promise was kept. */
export async function showFarm(lab: Lab): Promise<boolean> {
  say('three servers, each with its own network, disk and agent; one switch; 1,000 clients');
  const cluster = await LabCluster.start(lab);
  const [s1, s2, s3] = cluster.hosts as [Host, Host, Host];
  const vip = lab.vip();
  await cluster.install(module, 'modules/nginx_farm', (xml) =>
    xml
      .replace(/(<macro name="VIP" value=")[^"]*/, `$1${vip}`)
      .replace('filter="on_addr"', 'filter="on_port"'),
  );
  say(`nginx farm on ${vip}: started on s1 and s2`);
  await cluster.startModule(module, [s1, s2]);
  await cluster.settled(module, [s1, s2]);

  const load = await lab.load({
    kind: 'tcp',
    server: vip,
    port: 80,
    count: clientCount,
    intervalMs: 500,
    timeoutMs: 60,
  });
  const sniffer = await lab.sniff();
  const phases: Phase[] = [];
  const phase = async (name: string, work: () => Promise<void>): Promise<Phase> => {
    await load.mark(name);
    await sniffer.mark();
    await work();
    await delay(watchMs);
    const done = { name, stats: await load.stats(), seen: await sniffer.stats() };
    phases.push(done);
    say(phaseText(done));
    return done;
  };

  await phase('two servers', () => delay(0));
  await phase('s3 joins', async () => {
    await cluster.startModule(module, [s3]);
    await cluster.settled(module, [s1, s2, s3]);
  });
  const shares = await phase('three servers', () => delay(watchMs));
  await phase('s2 leaves', async () => {
    await cluster.client(s2).command(module, 'stop');
    await cluster.settled(module, [s1, s3]);
  });
  await phase('s2 returns', async () => {
    await cluster.startModule(module, [s2]);
    await cluster.settled(module, [s1, s2, s3]);
  });
  const pull = await phase('power of s3 pulled', () => s3.power());
  const clients = await load.clients();
  await load.stop();
  await sniffer.stop();

  const planned = phases.filter((entry) => entry !== pull);
  const verdicts = [
    verdictOnShares(shares.stats),
    verdict(
      'resets while servers join and leave',
      sum(planned, ({ stats, seen }) => stats.resets + stats.refused + seen.resets),
      0,
      '',
    ),
    verdict(
      'double answers',
      sum(phases, ({ stats, seen }) => stats.doubles + seen.doubles),
      0,
      '',
    ),
    verdict(
      `clients of ${clients.length} whom no other server has answered since`,
      clients.filter(({ server }) => server === s3.name || server === null).length,
      0,
      '',
    ),
    verdict(
      'longest gap of any client when s3 lost its power',
      Math.round(Math.max(pull.stats.longestGapUs, pull.stats.oldestWaitUs) / 1000),
      gapLimitMs,
      ' ms',
    ),
  ];
  return conclude(verdicts);
}

function phaseText({ name, stats, seen }: Phase): string {
  const shares = Object.entries(stats.servers)
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([server, answers]) => `${server} ${answers}`)
    .join(', ');
  const gap = (stats.longestGapUs / 1000).toFixed(0);
  return (
    `${name.padEnd(20)} answers: ${shares}; resets ${stats.resets + stats.refused}, ` +
    `tries in vain ${stats.timeouts}, double answers ${stats.doubles + seen.doubles}, longest gap ${gap} ms`
  );
}

/** Each server's part of the answers against its part of the buckets. */
function verdictOnShares(stats: LoadStats): Verdict {
  const total = Object.values(stats.servers).reduce((a, b) => a + b, 0);
  const share = total / 3;
  const parts = Object.entries(stats.servers).sort(([a], [b]) => a.localeCompare(b));
  const isGood =
    parts.length === 3 && parts.every(([, count]) => Math.abs(count - share) <= shareLimit * share);
  const text = parts
    .map(([server, count]) => `${server} ${((100 * count) / total).toFixed(1)} %`)
    .join(', ');
  return {
    isGood,
    text: `${mark(isGood)} distribution of ${total} answers over three equal servers: ${text} (each within ${100 * shareLimit} % of its share)`,
  };
}

function sum(phases: readonly Phase[], value: (phase: Phase) => number): number {
  return phases.reduce((total, phase) => total + value(phase), 0);
}

/** Command lines to try while the lab is up. */
export function farmLines(lab: Lab): readonly string[] {
  const { name } = lab.summary();
  return [
    `  bin/holdfast lab exec --lab ${name} clients -- curl -s http://${lab.vip()}/`,
    `  bin/holdfast lab exec --lab ${name} s1 -- holdfast status`,
    `  bin/holdfast lab exec --lab ${name} s1 -- holdfast farm drain s2 -m ${module}`,
    `  bin/holdfast lab power --lab ${name} s2`,
  ];
}
