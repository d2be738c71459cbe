/** A farm in a lab, as the traffic and fault tests use it. */
import assert from 'node:assert/strict';
import type { ModuleStatus } from '../../src/host/face.ts';
import type { LoadGenerator, LoadOptions, LoadStats, SniffStats } from '../../src/lab/clients.ts';
import { type ClusterTiming, LabCluster } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab, type LabOptions } from '../../src/lab/lab.ts';
import type { Family } from '../../src/lab/plan.ts';
import { toolPath } from '../../src/lab/tool.ts';

export const skip = process.getuid?.() === 0 ? false : 'needs root: it builds network namespaces';

/** Each is a module of its own with its own virtual IPs; both run on the same servers. */
export const modes = ['invisible', 'directed'] as const;
export type Mode = (typeof modes)[number];

/** The groups of test/fixtures/modules/lab_farm, with the last two digits of their ports. */
const services = {
  /** Power 1 each, by client and port. */
  spread: { tcp: 80, udp: 53 },
  /** Power 1 each, by client. */
  sticky: { tcp: 81, udp: 54 },
  /** Powers 3, 2, 1; udp of IPv4 by packet identification. */
  shares: { tcp: 82, udp: 55 },
  /** Powers 4096, 64, 1. */
  cascade: { tcp: 83, udp: 56 },
} as const;
export type Service = keyof typeof services;

const folder = 'test/fixtures/modules/lab_farm';
const place = { invisible: 1, directed: 2 } as const;

export interface FarmOptions {
  readonly lab?: LabOptions;
  readonly timing?: ClusterTiming;
  readonly modes?: readonly Mode[];
  /** Names of the servers on which the modules are started at once; all where absent. */
  readonly on?: readonly string[];
}

/** One way to ask a farm: which of the modules, over which protocol and family, which group. */
export interface Way {
  readonly mode: Mode;
  readonly family: Family;
  readonly service?: Service;
}

export class Farm {
  readonly lab: Lab;
  readonly cluster: LabCluster;
  readonly modes: readonly Mode[];

  private constructor(lab: Lab, cluster: LabCluster, used: readonly Mode[]) {
    this.lab = lab;
    this.cluster = cluster;
    this.modes = used;
  }

  /** Builds the lab and the cluster, installs the modules, starts them; resolves when all serve. */
  static async up(options: FarmOptions = {}): Promise<Farm> {
    const lab = await Lab.up({ hosts: 3, ...options.lab });
    try {
      const cluster = await LabCluster.start(lab, options.timing);
      const farm = new Farm(lab, cluster, options.modes ?? modes);
      for (const mode of farm.modes) {
        await cluster.install(mode, folder, {
          VIP4: farm.vip(mode, 4),
          VIP6: farm.vip(mode, 6),
          TYPE: `vmac_${mode}`,
          PORTS: String(place[mode]),
          TOOL: toolPath(),
        });
      }
      await farm.members(options.on ?? cluster.hosts.map(({ name }) => name));
      return farm;
    } catch (error) {
      await lab.down();
      throw error;
    }
  }

  async down(): Promise<void> {
    await this.lab.down();
  }

  host(name: string): Host {
    return this.lab.host(name);
  }

  vip(mode: Mode, family: Family): string {
    return this.lab.vip(place[mode], family);
  }

  port(mode: Mode, service: Service, proto: 'tcp' | 'udp'): number {
    return Number(`${place[mode]}${services[service][proto]}`);
  }

  /** Starts the modules where they must run, stops them elsewhere; resolves when the farm is so. */
  async members(names: readonly string[]): Promise<void> {
    await Promise.all(
      this.cluster.hosts
        .filter((host) => host.isOn)
        .map(async (host) => {
          const verb = names.includes(host.name) ? 'start' : 'stop';
          for (const mode of this.modes) await this.cluster.client(host).command(mode, verb);
        }),
    );
    await this.settled(names);
  }

  /** Resolves when these are the members and every bucket is owned. */
  async settled(names: readonly string[]): Promise<void> {
    const hosts = names.map((name) => this.host(name));
    for (const mode of this.modes) await this.cluster.settled(mode, hosts);
  }

  /** Echo requests that a host's kernel has answered since it was switched on. */
  async echoes(host: Host, family: Family): Promise<number> {
    const file = family === 4 ? '/proc/net/snmp' : '/proc/net/snmp6';
    const { stdout } = await host.exec(['cat', file]);
    if (family === 6) return Number(/^Icmp6OutEchoReplies\s+(\d+)/m.exec(stdout)?.[1]);
    const [names, values] = stdout
      .split('\n')
      .filter((line) => line.startsWith('Icmp:'))
      .map((line) => line.split(' '));
    return Number(values?.[names?.indexOf('OutEchoReps') ?? -1]);
  }

  /** Waits until the buckets that servers own in a group are these, in every module. */
  async owned(service: Service, buckets: Readonly<Record<string, number>>): Promise<void> {
    const hosts = Object.keys(buckets).map((name) => this.host(name));
    for (const mode of this.modes) {
      await this.cluster.until(
        `${service} of ${mode} to be shared ${JSON.stringify(buckets)}`,
        (statuses) =>
          statuses.every(({ node, modules }) => {
            const groups = modules.find(({ name }) => name === mode)?.farm?.groups;
            return (groups?.find(({ name }) => name === service)?.buckets ?? 0) === buckets[node];
          }),
        hosts.filter((host) => host.isOn),
      );
    }
  }

  /** The server to which clients send what is for a virtual IP, by their neighbour table. */
  async director(way: Way): Promise<string | null> {
    const [clients] = this.lab.clients;
    const argv = ['ip', 'neigh', 'show', this.vip(way.mode, way.family)];
    const stdout = (await clients?.exec(argv))?.stdout ?? '';
    const mac = /lladdr (\S+)/.exec(stdout)?.[1];
    return this.lab.hosts.find((host) => host.mac() === mac)?.name ?? null;
  }

  /** Since when each agent runs: another number means that one has ended and came back. */
  async agents(): Promise<readonly string[]> {
    const hosts = this.cluster.hosts.filter((host) => host.isOn);
    const statuses = await onAll(hosts, (host) => this.cluster.client(host).status());
    return statuses.map(({ node, startedWallMs }) => `${node} since ${startedWallMs}`);
  }

  async status(mode: Mode, name: string): Promise<ModuleStatus> {
    return this.cluster.client(this.host(name)).module(mode);
  }

  /** Starts clients; 100 of them ask every 500 ms and give a try up after 2 s where not said. */
  load(
    kind: LoadOptions['kind'],
    way: Way,
    options: Partial<LoadOptions> = {},
  ): Promise<LoadGenerator> {
    const proto = kind === 'udp' ? 'udp' : 'tcp';
    return this.lab.load({
      kind,
      server: this.vip(way.mode, way.family),
      port: this.port(way.mode, way.service ?? 'spread', proto),
      count: 100,
      intervalMs: 500,
      ...(kind === 'keep' ? {} : { timeoutMs: 2000 }),
      ...options,
    });
  }
}

/** Each mode with each family. */
export function waysOf(used: readonly Mode[] = modes): readonly Way[] {
  return used.flatMap((mode) => ([4, 6] as const).map((family) => ({ mode, family })));
}

/** Runs something on all, at the same time, and gives back all results. */
export function onAll<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  return Promise.all(items.map(work));
}

/** Waits for that many answers, then until no request is open; the figures of both. */
export async function settledStats(load: LoadGenerator, answers: number): Promise<LoadStats> {
  await load.until((stats) => stats.answers >= answers, 60_000);
  await load.pause();
  return load.until(({ waiting }) => waiting === 0, 20_000);
}

/**
 * Looks until it finds what it wants (null: not there yet), and fails after timeoutMs with what the
 * servers say by then.
 */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | null>,
  timeoutMs = 30_000,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== null) return found;
    if (performance.now() > end) {
      const story = (await LabCluster.newest?.story().catch(String)) ?? '';
      assert.fail(`not within ${timeoutMs} ms: ${what}\n${story}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits until every client has been answered once more. */
export async function everybody(load: LoadGenerator): Promise<void> {
  const { atUs } = await load.stats();
  await eventually('an answer to every client', async () =>
    (await load.clients()).every(({ lastAnswerUs }) => lastAnswerUs > atUs) ? true : null,
  );
}

/** Ends loads; their last figures. */
export function stopAll(loads: readonly LoadGenerator[]): Promise<LoadStats[]> {
  return onAll(loads, (load) => load.stop());
}

/** What no client may see while servers are in order: ends of connections, double answers. */
export function assertUnharmed(stats: LoadStats, where = ''): void {
  const { resets, refused, closed, unreachable, doubles, localErrors } = stats;
  assert.deepEqual(
    { resets, refused, closed, unreachable, doubles, localErrors },
    { resets: 0, refused: 0, closed: 0, unreachable: 0, doubles: 0, localErrors: 0 },
    `${where} ${JSON.stringify(stats)}`,
  );
}

/** The wire itself: no SYN answered by two servers, and nothing that was not seen. */
export function assertSingle(seen: SniffStats): void {
  assert.deepEqual(
    { doubles: seen.doubles, forgotten: seen.forgotten, lost: seen.lost },
    { doubles: 0, forgotten: 0, lost: 0 },
    JSON.stringify(seen),
  );
}

/**
 * Are the answers shared as the buckets are? Each request falls into a bucket at random, so that
 * a server's answers are binomial; 6 standard deviations are passed once in 10^9 runs.
 */
export function assertShares(stats: LoadStats, owned: Readonly<Record<string, number>>): void {
  const total = Object.values(owned).reduce((sum, count) => sum + count, 0);
  for (const [name, count] of Object.entries(owned)) {
    const share = count / total;
    const bound = 6 * Math.sqrt(stats.answers * share * (1 - share));
    const answers = stats.servers[name] ?? 0;
    const where = `${name}: ${answers} of ${stats.answers}, by its share ${share * stats.answers}`;
    assert.ok(Math.abs(answers - share * stats.answers) <= bound + 1, where);
    if (count === 0) assert.equal(answers, 0, where);
  }
}
