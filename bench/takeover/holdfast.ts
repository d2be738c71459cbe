/** Holdfast in the bench: a mirror of two servers that decides for itself, by a witness. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseClusterConfig, renderClusterXml } from '../../src/config/cluster.ts';
import type { EventRecord } from '../../src/host/face.ts';
import { LabCluster } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { toolPath } from '../../src/lab/tool.ts';
import { builtFile } from '../../src/native/load.ts';
import { type Stages, stagesOf, type Trigger } from './figures.ts';
import type { Contestant } from './rig.ts';

const module = 'db';
/** What test/fixtures/modules/lab_pair replicates, and where its server listens. */
const dir = '/run/data';
const udpPort = 1053;

const witnessState = '/var/lib/holdfast-witness';
const witnessPort = 9530;

export type Profile = 'default' | 'fast';

export class HoldfastPair implements Contestant {
  readonly lab: Lab;
  readonly vip: string;
  readonly port = udpPort;
  readonly cluster: LabCluster;

  private constructor(lab: Lab, cluster: LabCluster) {
    this.lab = lab;
    this.vip = lab.vip(1);
    this.cluster = cluster;
  }

  static async up(profile: Profile): Promise<HoldfastPair> {
    const lab = await Lab.up({ hosts: ['s1', 's2', 'wit'], clientAddresses: 100 });
    try {
      const cluster = await LabCluster.start(lab, {}, ['s1', 's2']);
      const pair = new HoldfastPair(lab, cluster);
      const [first] = cluster.hosts;
      if (first === undefined) throw new Error('the lab has no servers');
      await pair.#witness(first, lab.host('wit'));
      for (const host of cluster.hosts) await pair.#mountData(host);
      await cluster.install(module, 'test/fixtures/modules/lab_pair', {
        VIP4: lab.vip(1),
        VIP6: lab.vip(1, 6),
        TOOL: toolPath(),
        TIMING: profile,
      });
      await cluster.startModule(module);
      await cluster.until('the witness to answer both', (statuses) =>
        statuses.every(({ modules }) => modules[0]?.pair?.arbiter.state === 'ok'),
      );
      await cluster.client(first).prim(module, false);
      await pair.settled();
      return pair;
    } catch (error) {
      await lab.down();
      throw error;
    }
  }

  /** Joins and is named in cluster.xml, as docs/operate/arbiter.md tells. */
  async #witness(first: Host, witness: Host): Promise<void> {
    const client = this.cluster.client(first);
    const { token } = await client.issueToken();
    const words = ['--token', token, '--name', 'w1', '--state', witnessState];
    await this.cluster.cli(witness, ['witness', 'join', first.address(), ...words]);
    const listen = `${witness.address()}:${witnessPort}`;
    const argv = ['--state', witnessState, '--listen', listen];
    await witness.spawn([builtFile('holdfast-witness'), ...argv]);
    const { config } = parseClusterConfig(await client.clusterXml());
    if (config === null) throw new Error('cluster init wrote a cluster.xml that cannot be read');
    const addr = witness.address();
    const arbiter = { type: 'witness', name: 'w1', addr, port: witnessPort } as const;
    await client.applyClusterXml(renderClusterXml({ ...config, arbiter }));
  }

  /** A folder that outlives the server's power. */
  async #mountData(host: Host): Promise<void> {
    const disk = join(this.lab.dir, `data-${host.name}`);
    mkdirSync(disk, { recursive: true });
    await host.exec(['mkdir', '-p', dir]);
    await host.exec(['mount', '--bind', disk, dir]);
  }

  async fail(host: Host, trigger: Trigger): Promise<void> {
    if (trigger === 'power') return host.power();
    if (trigger === 'swap') return void (await this.cluster.client(host).swap(module, true));
    // The daemon first: it would start the agent again.
    if (host.kill(/^\S*holdfastd /) !== 1) throw new Error(`no holdfastd runs on ${host.name}`);
    host.kill(/^\S*node \S*agent\.js/);
  }

  async stages(
    host: Host,
    trigger: Trigger,
    faultMs: number,
    firstMs: number,
  ): Promise<Stages | null> {
    const next = this.cluster.hosts.find(({ name }) => name !== host.name);
    if (next === undefined) return null;
    // Its journal has it once it says so.
    await this.cluster.until(
      `${next.name} to serve`,
      (statuses) => statuses.every(({ modules }) => modules[0]?.readiness === 'Ready'),
      [next],
    );
    return stagesOf({
      trigger,
      former: trigger === 'swap' ? await this.#since(host, faultMs) : [],
      next: await this.#since(next, faultMs),
      answeredMs: firstMs,
    });
  }

  /** What the journal of a server says since then, oldest first. */
  async #since(host: Host, faultMs: number): Promise<readonly EventRecord[]> {
    const events = await this.cluster.client(host).events({ limit: 200 });
    return events
      .filter(({ bootMs }) => bootMs >= faultMs)
      .toSorted((one, other) => one.seq - other.seq);
  }

  /** After a kill the server is switched off, too, as somebody would whose server hangs. */
  async restore(host: Host, trigger: Trigger): Promise<void> {
    if (trigger !== 'swap') {
      if (trigger === 'kill') await host.power();
      await host.boot();
      await this.#mountData(host);
      await this.cluster.startAgent(host);
    }
    await this.settled();
  }

  /** Resolves when one serves, the other follows, and the register names both. */
  settled(): Promise<void> {
    return this.cluster.until('one to be PRIM, the other SECOND, both in sync', (statuses) => {
      const found = statuses.flatMap(({ modules }) => modules);
      const shown = found.map(({ state, readiness }) => `${state} ${readiness}`);
      return (
        shown.toSorted().join() === 'PRIM Ready,SECOND Ready' &&
        found.every(({ pair }) => pair?.record?.inSync.length === 2)
      );
    });
  }
}
