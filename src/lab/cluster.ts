/**
 * A real cluster in a lab: `holdfast cluster init` on the first host, `join` on the others, modules
 * installed through the API, as an administrator would do it.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type AgentClient, connectAgent } from '../api/client.ts';
import { parseClusterConfig, renderClusterXml } from '../config/cluster.ts';
import type { ClusterConfig } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { NodeStatus } from '../host/face.ts';
import { packageFolder } from '../module/package.ts';
import { packageRoot } from '../version.ts';
import type { AgentOptions, Host, HostProcess } from './host.ts';
import type { Lab } from './lab.ts';

/** Timing of the heartbeats, and the arbiter; what is absent is as the product ships. */
export type ClusterTiming = Partial<
  Pick<ClusterConfig, 'heartbeatMs' | 'lostCount' | 'leaseMs' | 'agentDeadlineMs' | 'arbiter'>
>;

/** Answers of the cluster come within this, on a busy machine. */
const waitMs = 30_000;
/** A server that is asked what happened, and does not say it within this, is stopped. */
const storyMs = 5_000;

export class LabCluster {
  /** The one of this process that was started last: whoever waits in vain can ask it why. */
  static newest: LabCluster | null = null;

  readonly lab: Lab;
  readonly hosts: readonly Host[];
  /** holdfastd of each host, by name. */
  readonly daemons = new Map<string, HostProcess>();
  readonly #agent: AgentOptions;

  private constructor(lab: Lab, hosts: readonly Host[], agent: AgentOptions) {
    this.lab = lab;
    this.hosts = hosts;
    this.#agent = agent;
  }

  /** Makes the cluster of hosts of the lab, all where not said, with an agent on each. */
  static async start(
    lab: Lab,
    timing: ClusterTiming = {},
    names: readonly string[] = lab.summary().hosts.map(({ name }) => name),
    agent: AgentOptions = {},
  ): Promise<LabCluster> {
    const cluster = new LabCluster(
      lab,
      names.map((name) => lab.host(name)),
      agent,
    );
    LabCluster.newest = cluster;
    const [first, ...others] = cluster.hosts;
    if (first === undefined) return cluster;
    await cluster.cli(first, ['cluster', 'init', '--node', first.name, ...cluster.#lans(first)]);
    retime(first, timing);
    await cluster.startAgent(first);
    for (const host of others) {
      const { token } = await cluster.client(first).issueToken();
      const words = ['cluster', 'join', first.address(), '--token', token, '--node', host.name];
      await cluster.cli(host, [...words, ...cluster.#lans(host)]);
      await cluster.startAgent(host);
    }
    await cluster.until('all nodes to reach each other', (statuses) =>
      statuses.every(({ peers }) =>
        peers.every((peer) => peer.connected && (peer.reach === 'both' || peer.reach === 'self')),
      ),
    );
    return cluster;
  }

  async startAgent(host: Host): Promise<void> {
    this.daemons.set(host.name, await host.startAgent(this.#agent));
  }

  /** Runs the `holdfast` command on a host; rejects when it fails. */
  async cli(host: Host, words: readonly string[]): Promise<string> {
    const program = join(packageRoot, 'dist/src/cli/main.js');
    return (await host.exec([process.execPath, program, ...words])).stdout;
  }

  client(host: Host): AgentClient {
    return connectAgent({ socketPath: host.agentSocket });
  }

  /**
   * Installs a module folder of the package on hosts under a name, with macros of its
   * userconfig.xml set, or with another userconfig.xml altogether.
   */
  async install(
    name: string,
    folder: string,
    edit: Readonly<Record<string, string>> | ((xml: string) => string),
    hosts: readonly Host[] = this.hosts,
  ): Promise<void> {
    const path = join(packageRoot, folder);
    const archive = await packageFolder(name, path);
    const shipped = readFileSync(join(path, 'conf/userconfig.xml'), 'utf8');
    const xml = typeof edit === 'function' ? edit(shipped) : setMacros(shipped, edit);
    for (const host of hosts) {
      await this.client(host).installModule(name, archive, true);
      await this.client(host).applyConfig(name, xml);
    }
  }

  /** Starts a module on hosts; resolves when each is Ready. */
  async startModule(name: string, hosts: readonly Host[] = this.hosts): Promise<void> {
    await Promise.all(hosts.map((host) => this.client(host).command(name, 'start')));
  }

  /** Resolves when every host named shows these members and all buckets have one owner. */
  async settled(module: string, members: readonly Host[]): Promise<void> {
    const names = members
      .map((host) => host.name)
      .sort()
      .join();
    await this.until(
      `${module} to settle on ${names}`,
      (statuses) => {
        const farms = statuses.map(
          (status) => status.modules.find((entry) => entry.name === module)?.farm ?? null,
        );
        const epochs = new Set(farms.map((farm) => farm?.viewEpoch));
        const groups = farms[0]?.groups.length ?? 0;
        const isWhole = Array.from({ length: groups }, (_, index) =>
          farms.reduce((sum, farm) => sum + (farm?.groups[index]?.buckets ?? 0), 0),
        ).every((sum) => sum === 4096);
        return (
          epochs.size === 1 &&
          isWhole &&
          farms.every((farm) => farm !== null && farm.members.toSorted().join() === names)
        );
      },
      members,
    );
  }

  /** Waits until what the agents say fulfils a condition. HF-LAB-008 with what they said last. */
  async until(
    what: string,
    isDone: (statuses: readonly NodeStatus[]) => boolean,
    hosts: readonly Host[] = this.hosts,
  ): Promise<void> {
    const end = performance.now() + waitMs;
    for (;;) {
      const answers = await Promise.allSettled(hosts.map((host) => this.client(host).status()));
      const statuses = answers.flatMap((answer) =>
        answer.status === 'fulfilled' ? [answer.value] : [],
      );
      if (statuses.length === hosts.length && isDone(statuses)) return;
      if (performance.now() > end) {
        const last = `${JSON.stringify(statuses)}\n${await this.story()}`;
        throw new HoldfastError('HF-LAB-020', { what, waitMs, last });
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** What each server says: its modules and why they are so, what happened, its agent's last words. */
  async story(): Promise<string> {
    const told = await Promise.all(
      this.hosts.map(async (host) => {
        const said = await inTime(this.#told(host)).catch((error: unknown) => [String(error)]);
        return [`-- ${host.name}`, ...said, host.agentSaid()].join('\n');
      }),
    );
    return told.join('\n');
  }

  async #told(host: Host): Promise<readonly string[]> {
    if (!host.isOn) return ['is off'];
    const client = this.client(host);
    const { modules, alerts } = await client.status();
    const states = modules.map(({ name, state, readiness }) => `${name} ${state} ${readiness}`);
    const why = await Promise.all(modules.map(({ name }) => client.why(name)));
    const events = await client.events({ limit: 40 });
    return [
      ...states,
      ...why.flat(),
      ...alerts.map((alert) => JSON.stringify(alert)),
      ...events.map(({ bootMs, module, text }) => `${Math.round(bootMs)} ${module ?? ''} ${text}`),
    ];
  }

  #lans(host: Host): string[] {
    return Array.from({ length: this.lab.summary().lans }, (_, lan) => [
      '--lan',
      `net${lan + 1}=${host.address(lan)}`,
    ]).flat();
  }
}

/** What is promised, or an error when that takes longer than a story may. */
async function inTime<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${storyMs} ms`)), storyMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Sets values of `<macro name= value=>` in a userconfig.xml. */
export function setMacros(xml: string, values: Readonly<Record<string, string>>): string {
  return Object.entries(values).reduce(
    (text, [name, value]) =>
      text.replace(new RegExp(`(<macro name="${name}" value=")[^"]*`), `$1${value}`),
    xml,
  );
}

function retime(host: Host, timing: ClusterTiming): void {
  if (Object.keys(timing).length === 0) return;
  const { config } = parseClusterConfig(host.readFile('/etc/holdfast/cluster.xml'), {});
  if (config === null) throw new Error('cluster init wrote a cluster.xml that cannot be read');
  host.writeFile('/etc/holdfast/cluster.xml', renderClusterXml({ ...config, ...timing }));
}
