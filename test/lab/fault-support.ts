/** Clients, watchers and waits that the fault tests share. */
import assert from 'node:assert/strict';
import type { NodeStatus } from '../../src/host/face.ts';
import type { LoadGenerator, LoadStats, Sniffer, SniffStats } from '../../src/lab/clients.ts';
import type { Host } from '../../src/lab/host.ts';
import { type ProcessId, signal, until } from '../../src/lab/tool.ts';
import { assertSingle, type Farm } from './support.ts';

/** What the rule grants a server from its last heartbeat to its silence, in default timing. */
export const silentMs = 150 + 50;

/** Things happen within this on a busy machine, or not at all. */
const waitMs = 30_000;

/** What all clients saw since the last mark, and what the wire showed of their servers. */
export interface Phase {
  readonly answers: number;
  readonly timeouts: number;
  /** Resets, refusals, closed connections, unreachable servers. */
  readonly breaks: number;
  readonly doubles: number;
  readonly waiting: number;
  readonly longestGapUs: number;
  readonly servers: Readonly<Record<string, number>>;
  readonly seen: SniffStats;
}

const sum = (all: readonly LoadStats[], pick: (stats: LoadStats) => number) =>
  all.reduce((total, stats) => total + pick(stats), 0);

function phaseOf(all: readonly LoadStats[], seen: SniffStats): Phase {
  const servers: Record<string, number> = {};
  for (const stats of all) {
    for (const [name, count] of Object.entries(stats.servers)) {
      if (count > 0) servers[name] = (servers[name] ?? 0) + count;
    }
  }
  return {
    answers: sum(all, ({ answers }) => answers),
    timeouts: sum(all, ({ timeouts }) => timeouts),
    breaks: sum(all, (s) => s.resets + s.refused + s.closed + s.unreachable + s.localErrors),
    doubles: sum(all, ({ doubles }) => doubles),
    waiting: sum(all, ({ waiting }) => waiting),
    longestGapUs: Math.max(...all.map(({ longestGapUs }) => longestGapUs)),
    servers,
    seen,
  };
}

/**
 * TCP and UDP clients of each module, one over IPv4 and the other over IPv6, from one client
 * namespace: 40 clients each, twice a second.
 */
export class Traffic {
  static readonly #running = new Set<Traffic>();
  readonly #loads: readonly LoadGenerator[];
  readonly #sniffer: Sniffer;

  private constructor(loads: readonly LoadGenerator[], sniffer: Sniffer) {
    this.#loads = loads;
    this.#sniffer = sniffer;
  }

  static async start(
    farm: Farm,
    options: { readonly timeoutMs: number; readonly clients?: string },
  ): Promise<Traffic> {
    const sniffer = await farm.lab.sniff(options.clients);
    const loads = await Promise.all(
      farm.modes.flatMap((mode) =>
        (['tcp', 'udp'] as const).map((kind) => {
          const family = (mode === 'invisible') === (kind === 'tcp') ? 4 : 6;
          const first = kind === 'tcp' ? 0 : 500;
          return farm.load(kind, { mode, family }, { count: 40, first, ...options });
        }),
      ),
    );
    const traffic = new Traffic(loads, sniffer);
    Traffic.#running.add(traffic);
    await traffic.healthy();
    return traffic;
  }

  /** Ends a phase and gives its figures; nobody may have been answered twice in it. */
  async mark(): Promise<Phase> {
    const all = await Promise.all(this.#loads.map((load) => load.mark('phase')));
    const phase = phaseOf(all, await this.#sniffer.mark());
    assertSingle(phase.seen);
    assert.equal(phase.doubles, 0, JSON.stringify(phase));
    return phase;
  }

  /** Begins a phase; what was before does not count. */
  async settle(): Promise<void> {
    await Promise.all([...this.#loads.map((load) => load.mark('phase')), this.#sniffer.mark()]);
  }

  /**
   * Begins a phase by a fault; the time from which its effects count: the fault is in force.
   * Microseconds, CLOCK_BOOTTIME.
   */
  async strike(fault: () => unknown): Promise<number> {
    await this.mark();
    await fault();
    return (await this.#sniffer.stats()).atUs;
  }

  /** The wire's own figures so far. */
  seen(): Promise<SniffStats> {
    return this.#sniffer.stats();
  }

  /** Waits until every client was answered twice in a row without a try given up. */
  async healthy(): Promise<void> {
    await Promise.all(this.#loads.map((load) => steady(load)));
  }

  /** Ends all clients. */
  static async stop(): Promise<void> {
    const tools = [...Traffic.#running].flatMap((traffic) => [...traffic.#loads, traffic.#sniffer]);
    Traffic.#running.clear();
    await Promise.all(tools.map((tool) => tool.stop()));
  }
}

async function steady(load: LoadGenerator): Promise<void> {
  const clients = load.options.count ?? 1000;
  let from = await load.stats();
  const whole = (stats: LoadStats) => {
    // A mark of another waiter, or a failed try: the count begins anew.
    if (stats.answers < from.answers || stats.timeouts !== from.timeouts) from = stats;
    return stats.answers - from.answers >= 3 * clients;
  };
  await load.until(whole, waitMs);
}

/** The agent's process on a host, and all of Holdfast there, holdfastd first. */
export function processesOf(host: Host): { agent: ProcessId | null; all: readonly ProcessId[] } {
  const known = host.processes();
  const agent = known.find(({ command }) => /^\S*node \S*\/src\/agent\.js/.test(command));
  const keeper = known.find(({ command }) => /^\S*\/holdfastd /.test(command));
  const all = [keeper, agent].flatMap((found) => (found === undefined ? [] : [found.id]));
  return { agent: agent?.id ?? null, all };
}

/** Kills the agent that runs now, or the next one that comes up. */
export async function killAgent(host: Host): Promise<void> {
  const killed = await until(() => {
    const { agent } = processesOf(host);
    return agent !== null && signal(agent, 'SIGKILL');
  }, waitMs);
  assert.ok(killed, `no agent came up on ${host.name}`);
}

/** Waits until the agents of hosts say that all modules are Ready there. */
export function ready(farm: Farm, names: readonly string[]): Promise<void> {
  return farm.cluster.until(
    `${names.join()} to be Ready`,
    (statuses) =>
      statuses.every(({ modules }) =>
        modules.every(({ state, readiness }) => state === 'UP' && readiness === 'Ready'),
      ),
    names.map((name) => farm.host(name)),
  );
}

/** The numbers of the views in force, by module. */
export type Epochs = Readonly<Record<string, number>>;

function epochsOf(status: NodeStatus): Epochs {
  return Object.fromEntries(status.modules.map(({ name, farm }) => [name, farm?.viewEpoch ?? 0]));
}

/**
 * Waits until the farm has nothing left to do: these members, each with its share, all agents
 * connected to each other, no bucket kept for old connections. The epochs that stay from then on
 * when nothing happens.
 */
export async function calm(farm: Farm, names: readonly string[]): Promise<Epochs> {
  const hosts = names.map((name) => farm.host(name));
  await farm.settled(names);
  let epochs: Epochs = {};
  await farm.cluster.until(
    'no bucket to be held',
    (statuses) => {
      epochs = epochsOf(statuses[0] as NodeStatus);
      return statuses.every(
        (status) =>
          JSON.stringify(epochsOf(status)) === JSON.stringify(epochs) &&
          status.modules.every(({ farm: it }) =>
            it?.groups.every(({ buckets, holding }) => buckets > 0 && holding === 0),
          ) &&
          status.peers.every((peer) => !names.includes(peer.node) || peer.connected),
      );
    },
    hosts,
  );
  return epochs;
}

/** The views in force on a host now. */
export async function epochsAt(farm: Farm, name: string): Promise<Epochs> {
  return epochsOf(await farm.cluster.client(farm.host(name)).status());
}

/** Waits for an alert on a host to be raised, or to end. */
export function alerted(farm: Farm, name: string, id: RegExp, raised = true): Promise<void> {
  return farm.cluster.until(
    `alert ${id} of ${name} to ${raised ? 'be raised' : 'end'}`,
    ([status]) => status?.alerts.some((alert) => id.test(alert.id)) === raised,
    [farm.host(name)],
  );
}

/** The server's last answer came so long after a moment; negative: before it, or never since. */
export function lastAnswerMs(seen: SniffStats, host: Host, sinceUs: number): number {
  const last = seen.lastUsByMac[host.mac()];
  return last === undefined ? Number.NEGATIVE_INFINITY : (last - sinceUs) / 1000;
}
