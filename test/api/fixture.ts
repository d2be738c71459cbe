/** Nodes on loopback addresses with real keys and real TLS, and an agent that lives in memory. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AgentClient, connectAgent } from '../../src/api/client.ts';
import { ClusterService } from '../../src/api/cluster.ts';
import { clusterInit, clusterJoin } from '../../src/api/join.ts';
import { keyFiles, loadCa, loadKeys, type NodeKeys } from '../../src/api/pki.ts';
import { type Api, startApi } from '../../src/api/server.ts';
import { type BootClock, bootClock, TokenStore } from '../../src/api/token.ts';
import { parseClusterConfig } from '../../src/config/cluster.ts';
import type { ClusterConfig } from '../../src/config/model.ts';
import { HoldfastError } from '../../src/errors.ts';
import type {
  Agent,
  EventRecord,
  ModuleStatus,
  NodeStatus,
  VerifyStatus,
} from '../../src/host/face.ts';
import { type Paths, pathsBelow } from '../../src/paths.ts';

/** A folder that stands for a server's root; removed by `remove`. */
export function makeRoot(): { paths: Paths; remove: () => void } {
  const root = mkdtempSync(join(tmpdir(), 'hf-api-'));
  return { paths: pathsBelow(root), remove: () => rmSync(root, { recursive: true, force: true }) };
}

/** A TCP port that is free on all loopback addresses now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ port: 0, host: '0.0.0.0' }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' ? (address?.port ?? 0) : 0));
    });
  });
}

export function moduleStatus(name: string, over: Partial<ModuleStatus> = {}): ModuleStatus {
  return {
    name,
    mode: 'farm',
    state: 'UP',
    readiness: 'Ready',
    why: [],
    loopCount: 0,
    maxloop: 3,
    signature: 'ab',
    resources: {},
    farm: null,
    replica: null,
    pair: null,
    ...over,
  };
}

/** An agent without anything below it: it records what it is asked. */
export class FakeAgent implements Agent {
  readonly node: string;
  readonly calls: unknown[][] = [];
  readonly journal: EventRecord[] = [];
  readonly applied: string[] = [];
  modules: ModuleStatus[] = [moduleStatus('web')];
  xml: string;
  /** When set, the next command rejects with it. */
  failure: Error | null = null;
  /** Sequence numbers before this one are no longer in the journal. */
  oldestSeq = 1;
  readonly #listeners = new Set<(event: EventRecord) => void>();

  constructor(node: string, xml: string) {
    this.node = node;
    this.xml = xml;
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  emit(text: string, module: string | null = null): void {
    const event: EventRecord = {
      seq: this.journal.length + 1,
      wallMs: 0,
      bootMs: 0,
      node: this.node,
      module,
      kind: 'transition',
      text,
      data: {},
    };
    this.journal.push(event);
    for (const listener of this.#listeners) listener(event);
  }

  status(): NodeStatus {
    return {
      node: this.node,
      id: 0,
      version: '0',
      clusterSignature: this.cluster().config.signature,
      startedWallMs: 0,
      modules: this.modules,
      peers: [],
      alerts: [],
    };
  }

  command(...args: Parameters<Agent['command']>): Promise<ModuleStatus> {
    return this.#act('command', args);
  }

  prim(...args: Parameters<Agent['prim']>): Promise<ModuleStatus> {
    return this.#act('prim', args);
  }

  second(...args: Parameters<Agent['second']>): Promise<ModuleStatus> {
    return this.#act('second', args);
  }

  swap(...args: Parameters<Agent['swap']>): Promise<ModuleStatus> {
    return this.#act('swap', args);
  }

  setResource(...args: Parameters<Agent['setResource']>): Promise<ModuleStatus> {
    return this.#act('setResource', args);
  }
  failover(...args: Parameters<Agent['failover']>): Promise<ModuleStatus> {
    return this.#act('failover', args);
  }

  async verify(...args: Parameters<Agent['verify']>): Promise<VerifyStatus> {
    await this.#act('verify', args);
    return { running: false, figures: { files: 3 }, differences: [], differing: 0 };
  }

  installModule(...args: Parameters<Agent['installModule']>): Promise<ModuleStatus> {
    return this.#act('installModule', args);
  }

  packageModule(name: string): Promise<Uint8Array> {
    this.calls.push(['packageModule', name]);
    return Promise.resolve(Buffer.from('archive of '.concat(name)));
  }

  uninstallModule(name: string): Promise<void> {
    this.calls.push(['uninstallModule', name]);
    return Promise.resolve();
  }

  checkConfig(...args: Parameters<Agent['checkConfig']>): ReturnType<Agent['checkConfig']> {
    this.calls.push(['checkConfig', ...args]);
    return [{ code: 'HF-CONFIG-999', message: 'bad', hint: 'good', file: 'u.xml', line: 4 }];
  }

  applyConfig(...args: Parameters<Agent['applyConfig']>): Promise<ModuleStatus> {
    return this.#act('applyConfig', args);
  }

  drain(...args: Parameters<Agent['drain']>): Promise<ModuleStatus> {
    return this.#act('drain', args);
  }

  power(...args: Parameters<Agent['power']>): Promise<ModuleStatus> {
    return this.#act('power', args);
  }

  events(options: Parameters<Agent['events']>[0]): readonly EventRecord[] {
    return this.journal
      .filter((e) => e.seq > options.after && e.seq >= this.oldestSeq)
      .filter((e) => options.module === null || e.module === options.module)
      .slice(-options.limit);
  }

  onEvent(listener: (event: EventRecord) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  log(module: string | null, lines: number): Promise<readonly string[]> {
    return Promise.resolve([`${module ?? 'agent'} ${lines}`]);
  }

  why(module: string): readonly string[] {
    return [`because of ${module}`];
  }

  timing(query: Parameters<Agent['timing']>[0]): ReturnType<Agent['timing']> {
    this.calls.push(['timing', query]);
    return [{ of: 'cluster', name: 'lease', ms: 150, meaning: 'silence' }];
  }

  metrics(): string {
    return `holdfast_up{node="${this.node}"} 1\n`;
  }

  cluster(): { xml: string; config: ClusterConfig } {
    const { config, errors } = parseClusterConfig(this.xml);
    if (config === null) throw errors[0] ?? new Error('no configuration');
    return { xml: this.xml, config };
  }

  applyCluster(xml: string): Promise<void> {
    const refusal = parseClusterConfig(xml).errors[0];
    if (refusal !== undefined) return Promise.reject(refusal);
    this.xml = xml;
    this.applied.push(xml);
    return Promise.resolve();
  }

  shutdown(): Promise<void> {
    this.calls.push(['shutdown']);
    return Promise.resolve();
  }

  #act(name: string, args: readonly unknown[]): Promise<ModuleStatus> {
    this.calls.push([name, ...args]);
    if (this.failure !== null) return Promise.reject(this.failure);
    return Promise.resolve(moduleStatus(String(args[0])));
  }
}

/** One node of a loopback cluster, its API running. */
export interface TestNode {
  readonly name: string;
  readonly addr: string;
  readonly paths: Paths;
  readonly agent: FakeAgent;
  readonly keys: NodeKeys;
  readonly cluster: ClusterService;
  readonly tokens: TokenStore;
  readonly api: Api;
  readonly local: AgentClient;
}

/** A cluster on 127.0.0.1, .2, … whose nodes all use one port. */
export class TestCluster {
  readonly port: number;
  readonly nodes: TestNode[] = [];
  readonly #removals: (() => unknown)[] = [];
  #joins = 0;

  constructor(port: number) {
    this.port = port;
  }

  static async make(names: readonly string[], clock?: BootClock): Promise<TestCluster> {
    const cluster = new TestCluster(await freePort());
    const [first, ...others] = names;
    await cluster.init(first ?? 'a', clock);
    for (const name of others) await cluster.join(name);
    return cluster;
  }

  root(): Paths {
    const { paths, remove } = makeRoot();
    this.#removals.push(remove);
    return paths;
  }

  async init(name: string, clock?: BootClock): Promise<TestNode> {
    const paths = this.root();
    const lans = [{ name: 'lan', addr: '127.0.0.1' }];
    await clusterInit({ name: 'test', node: name, lans, paths, port: this.port });
    return await this.serve(paths, '127.0.0.1', clock);
  }

  /** Joins by way of the first node, with a new token, and starts the new node's API. */
  async join(name: string): Promise<TestNode> {
    const first = this.node(0);
    const { token } = first.cluster.issueToken();
    const addr = `127.0.0.${this.nodes.length + 1}`;
    const paths = this.root();
    // More than five joins from one address in a row would meet the limit of a real server.
    this.#joins += 1;
    if (this.#joins > 4) throw new Error('a test cluster has at most five nodes');
    await clusterJoin({
      addr: `${first.addr}:${this.port}`,
      token,
      node: name,
      lans: [{ name: 'lan', addr }],
      paths,
    });
    return await this.serve(paths, addr);
  }

  async serve(paths: Paths, addr: string, clock: BootClock = bootClock): Promise<TestNode> {
    const keys = loadKeys(paths);
    const agent = new FakeAgent(keys.node, readFileSync(paths.clusterXml, 'utf8'));
    const tokens = new TokenStore(keyFiles(paths).tokens, keys.node, clock);
    const ca = loadCa(paths);
    const cluster = new ClusterService({ agent, keys, ca, tokens, port: this.port });
    const socketPath = paths.agentSocket;
    const api = await startApi(agent, {
      keys,
      cluster,
      socketPath,
      port: this.port,
      listenAddr: addr,
    });
    this.#removals.push(() => api.close());
    const local = connectAgent({ socketPath });
    const node = { name: keys.node, addr, paths, agent, keys, cluster, tokens, api, local };
    this.nodes.push(node);
    return node;
  }

  node(index: number): TestNode {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`no node ${index}`);
    return node;
  }

  async close(): Promise<void> {
    for (const remove of this.#removals.toReversed()) await remove();
  }
}

/** For assert.rejects: an error of the registry with this code. */
export function coded(code: string): (error: unknown) => boolean {
  return (error) => {
    if (error instanceof HoldfastError && error.code === code) return true;
    throw error;
  };
}
