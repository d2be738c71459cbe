/** A mirror that decides for itself in a lab: two servers, an arbiter, clients of its virtual IP. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { clusterKeys, loadCa, loadKeys, makeRequest, signRequest } from '../../src/api/pki.ts';
import { parseClusterConfig, renderClusterXml } from '../../src/config/cluster.ts';
import type { ArbiterConfig } from '../../src/config/model.ts';
import type { ModuleStatus } from '../../src/host/face.ts';
import { LabCluster, setMacros } from '../../src/lab/cluster.ts';
import type { AgentOptions, Host, HostProcess } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { repoRoot, toolPath } from '../../src/lab/tool.ts';
import { paths as ownPaths } from '../../src/paths.ts';
import { eventually } from './support.ts';

export const module = 'db';
/** What is replicated. */
export const dir = '/run/data';
const witnessPort = 9530;
const witnessState = '/var/lib/holdfast/witness';

/** Numbers that were written and synced before they were said: acknowledged. */
export interface Writer {
  readonly process: HostProcess;
  /** The last that was said. */
  last(): number;
}

export interface PairOptions {
  /** A directory that both servers have, instead of a witness on a third host. */
  readonly arbiter?: 'directory' | { readonly type: 'fence'; readonly delayMs: number };
  /** Networks of the servers, 1 or 2; the first carries the changes. Default 1. */
  readonly lans?: number;
  /** Another module of the package than the fixture: its folder. */
  readonly folder?: string;
  /** The program behind the virtual IP; the lab's own server where absent. */
  readonly tool?: (lab: Lab) => string;
  /** Another userconfig.xml than the fixture's, its macros set already. */
  readonly edit?: (xml: string, lab: Lab) => string;
  readonly agent?: AgentOptions;
  /** What is done instead of mounting the data of a server, each time that it is switched on. */
  readonly mount?: (pair: Pair, host: Host) => Promise<void>;
}

function sharedDirectory(lab: Lab): { readonly type: 'directory'; readonly path: string } {
  const path = join(lab.dir, 'register');
  mkdirSync(path);
  writeFileSync(join(path, 'holdfast-register'), '');
  return { type: 'directory', path };
}

/**
 * A power switch for each server: the agent leaves its order in a folder, `PowerStrip` carries it out. What
 * it is told by standard input is kept, to be looked at.
 */
function powerSwitches(lab: Lab, delayMs: number): ArbiterConfig {
  const path = join(lab.dir, 'fence');
  mkdirSync(path);
  const agent = join(path, 'fence_lab');
  const script = `#!/bin/sh
while read -r line; do case $line in plug=*) plug=\${line#plug=};; action=*) action=\${line#action=};; esac; done
state() { cat "${path}/$plug.power" 2>/dev/null; }
case $action in
status) case $(state) in on) exit 0;; off) exit 2;; esac; exit 1;;
on|off) echo "$action" >"${path}/$plug.order"; while [ "$(state)" != "$action" ]; do sleep 0.05; done;;
esac
`;
  writeFileSync(agent, script, { mode: 0o755 });
  for (const name of ['s1', 's2']) {
    const text = `# the lab's\nagent=${agent}\nplug=${name}\npassword=secret\n`;
    writeFileSync(join(path, `${name}.conf`), text, { mode: 0o600 });
    writeFileSync(join(path, `${name}.power`), 'on');
  }
  return { type: 'fence', path, delayMs, timeoutMs: 30_000, nodes: [0, 1] };
}

export class Pair {
  readonly lab: Lab;
  readonly cluster: LabCluster;
  readonly a: Host;
  readonly b: Host;
  #witness: HostProcess | null = null;
  readonly #mount: PairOptions['mount'];

  private constructor(lab: Lab, cluster: LabCluster, mount: PairOptions['mount']) {
    this.#mount = mount;
    this.lab = lab;
    this.cluster = cluster;
    const [a, b] = cluster.hosts;
    assert.ok(a !== undefined && b !== undefined);
    this.a = a;
    this.b = b;
  }

  /** The module is installed, and stopped. */
  static async up(options: PairOptions = {}): Promise<Pair> {
    const servers = ['s1', 's2'];
    const isShared = options.arbiter !== undefined;
    const hosts = isShared ? servers : [...servers, 'wit'];
    const lab = await Lab.up({ hosts, lans: options.lans ?? 1, clientAddresses: 10 });
    try {
      const { arbiter } = options;
      const fence = typeof arbiter === 'object' ? powerSwitches(lab, arbiter.delayMs) : null;
      const config = arbiter === 'directory' ? { arbiter: sharedDirectory(lab) } : {};
      const cluster = await LabCluster.start(lab, config, servers, options.agent);
      const pair = new Pair(lab, cluster, options.mount);
      if (!isShared) await pair.#arbiter();
      if (fence !== null) await pair.#apply(fence);
      for (const host of pair.cluster.hosts) await pair.mountData(host);
      const macros = {
        VIP: lab.vip(1),
        VIP4: lab.vip(1),
        VIP6: lab.vip(1, 6),
        DIR: dir,
        TOOL: options.tool?.(lab) ?? toolPath(),
      };
      const folder = options.folder ?? 'test/fixtures/modules/lab_pair';
      await pair.cluster.install(module, folder, (xml) => {
        const filled = setMacros(xml, macros);
        return options.edit?.(filled, lab) ?? filled;
      });
      return pair;
    } catch (error) {
      await lab.down();
      throw error;
    }
  }

  async down(): Promise<void> {
    await this.lab.down();
  }

  async #arbiter(): Promise<void> {
    const witness = this.lab.host('wit');
    const { key, request } = await makeRequest('w1', 'witness');
    const files = { ...ownPaths(), pki: this.a.path('/etc/holdfast/pki') };
    const ca = loadCa(files);
    const { clusterId } = clusterKeys(loadKeys(files).secret);
    assert.ok(ca !== null);
    const folder = witness.path(join(witnessState, clusterId));
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileSync(join(folder, 'ca.crt'), ca.cert);
    writeFileSync(join(folder, 'witness.key'), key, { mode: 0o600 });
    const cert = await signRequest(ca, request, 'w1', [witness.address()], 'witness');
    writeFileSync(join(folder, 'witness.crt'), cert);
    await this.startWitness();
    const arbiter = {
      type: 'witness',
      name: 'w1',
      addr: witness.address(),
      port: witnessPort,
    } as const;
    await this.#apply(arbiter);
  }

  /** On all nodes. */
  async #apply(arbiter: ArbiterConfig): Promise<void> {
    const { config } = parseClusterConfig(this.a.readFile('/etc/holdfast/cluster.xml'), {});
    assert.ok(config !== null);
    await this.cluster.client(this.a).applyClusterXml(renderClusterXml({ ...config, arbiter }));
  }

  async startWitness(): Promise<void> {
    const witness = this.lab.host('wit');
    const argv = ['--state', witnessState, '--listen', `${witness.address()}:${witnessPort}`];
    this.#witness = await witness.spawn([
      join(repoRoot, 'build/Release/holdfast-witness'),
      ...argv,
    ]);
  }

  stopWitness(): void {
    this.#witness?.kill('SIGKILL');
  }

  pauseWitness(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#witness?.kill(name);
  }

  /** A folder that outlives the server's power. */
  async mountData(host: Host): Promise<void> {
    if (this.#mount !== undefined) return this.#mount(this, host);
    const disk = join(this.lab.dir, `data-${host.name}`);
    await host.exec(['mkdir', '-p', disk, dir]);
    await host.exec(['mount', '--bind', disk, dir]);
  }

  async boot(host: Host): Promise<void> {
    await host.boot();
    await this.mountData(host);
    await this.cluster.startAgent(host);
  }

  status(host: Host): Promise<ModuleStatus> {
    return this.cluster.client(host).module(module);
  }

  async shown(host: Host): Promise<string> {
    const { state, readiness } = await this.status(host);
    return `${state} ${readiness}`;
  }

  /** Waits for it; fails with all that both servers said of the module. */
  async becomes(host: Host, wanted: string, timeoutMs = 30_000): Promise<void> {
    let last = '';
    const look = async (): Promise<true | null> => {
      last = await this.shown(host).catch((error: unknown) => String(error));
      return last === wanted ? true : null;
    };
    try {
      await eventually(`${host.name} to be ${wanted}`, look, timeoutMs);
    } catch (error) {
      throw new Error(`${String(error)}\n${host.name} is ${last}\n${await this.stories()}`, {
        cause: error,
      });
    }
  }

  /** What a server says of the module, and what happened to it. */
  async story(host: Host, limit = 60): Promise<string> {
    const client = this.cluster.client(host);
    const why = await client.why(module);
    const events = await client.events({ module, limit });
    const told = events.map(({ bootMs, text }) => `${Math.round(bootMs)} ${text}`);
    const { state, readiness, pair, replica } = await client.module(module);
    const shown = `${host.name}: ${state} ${readiness} ${JSON.stringify(pair?.record ?? null)}`;
    return [shown, JSON.stringify(replica?.engine ?? null), ...why, ...told].join('\n');
  }

  /** Both stories, for a failure that tells its cause by itself. */
  async stories(): Promise<string> {
    const both = [this.a, this.b].map((host) => this.story(host).catch(String));
    return (await Promise.all(both)).join('\n');
  }

  /** Waits until so many more lines of a writer are acknowledged; fails with both stories. */
  async goesOn(writer: Writer, more = 10, timeoutMs = 30_000): Promise<void> {
    const wanted = writer.last() + more;
    const look = async (): Promise<true | null> => (writer.last() >= wanted ? true : null);
    await eventually('writes to go on', look, timeoutMs).catch(async (error: unknown) => {
      throw new Error(`${String(error)}\n${await this.stories()}`, { cause: error });
    });
  }

  /** Started on both; `a` is primary, `b` follows. */
  async ready(): Promise<void> {
    await this.cluster.startModule(module);
    await this.cluster.client(this.a).prim(module, false);
    await this.becomes(this.a, 'PRIM Ready');
    await this.becomes(this.b, 'SECOND Ready');
  }

  /** Waits until one server is primary and the other follows, both ready; fails with what both say. */
  async settled(timeoutMs = 60_000): Promise<void> {
    const hosts = [this.a, this.b];
    const look = async (): Promise<true | null> => {
      const shown = await Promise.all(hosts.map((host) => this.shown(host).catch(String)));
      return shown.toSorted().join() === 'PRIM Ready,SECOND Ready' ? true : null;
    };
    await eventually('one to be primary, the other to follow', look, timeoutMs).catch(
      async (error: unknown) => {
        throw new Error(`${String(error)}\n${await this.stories()}`, { cause: error });
      },
    );
  }

  sh(host: Host, script: string): ReturnType<Host['exec']> {
    return host.exec(['sh', '-c', script], { check: false });
  }

  async writer(host: Host, file = 'log'): Promise<Writer> {
    const path = `${dir}/${file}`;
    // What is written once the directory is a plain one again is nobody's promise.
    const step = `echo $i >>${path} && sync ${path} && [ "$(stat -f -c %T ${dir})" = fuseblk ]`;
    const script = `i=1; while ${step}; do echo $i; i=$((i+1)); done`;
    const process = await host.spawn(['sh', '-c', script]);
    let said = '';
    process.child.stdout?.on('data', (data: Buffer) => {
      said += data.toString();
    });
    const last = (): number => Number(said.split('\n').slice(0, -1).at(-1) ?? 0);
    const writer = { process, last };
    await this.goesOn(writer);
    return writer;
  }

  /**
   * Every number that was acknowledged, in order. A secondary has them in its journal by then, and in a moment
   * in its files.
   */
  async assertWritten(host: Host, count: number, file = 'log'): Promise<void> {
    const wanted = Array.from({ length: count }, (_, i) => String(i + 1));
    let found: string[] = [];
    const look = async (): Promise<true | null> => {
      const { stdout } = await this.sh(host, `cat ${dir}/${file}`);
      found = stdout.trimEnd().split('\n').slice(0, count);
      return found.length === count ? true : null;
    };
    const mayCome = (await this.status(host)).state === 'SECOND';
    await eventually('what was acknowledged to be applied', look, mayCome ? 30_000 : 0).catch(
      () => undefined,
    );
    assert.deepEqual(found, wanted, await this.stories());
  }
}
