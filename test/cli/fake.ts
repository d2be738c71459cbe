/** An agent in memory, one per node, and a run of the command line against it. */
import type { AgentClient, ClusterStatus } from '../../src/api/client.ts';
import type { Io } from '../../src/cli/io.ts';
import { main } from '../../src/cli/program.ts';
import { type ErrorRecord, HoldfastError } from '../../src/errors.ts';
import type {
  EventRecord,
  FarmStatus,
  ModuleStatus,
  NodeStatus,
  ReplicaStatus,
  SecondWay,
  TimingQuery,
  TimingRow,
  VerifyStatus,
} from '../../src/host/face.ts';
import { pathsBelow } from '../../src/paths.ts';

export const nowMs = Date.UTC(2026, 2, 4, 12, 0, 0);

export function farmStatus(change: Partial<FarmStatus> = {}): FarmStatus {
  return {
    viewEpoch: 4,
    leader: 'n1',
    members: ['n1', 'n2'],
    serving: true,
    draining: false,
    groups: [{ name: 'tcp', buckets: 2048, power: 1, holding: 0 }],
    vips: ['10.0.0.100'],
    hook: 'xdp_native',
    device: 'eth0',
    hookReasons: [],
    ...change,
  };
}

export function replicaStatus(change: Partial<ReplicaStatus> = {}): ReplicaStatus {
  return {
    role: 'prim',
    peer: 'n2',
    peerState: 'connected',
    peerReason: '',
    alone: false,
    epoch: 3,
    port: 5600,
    directories: ['/srv/data'],
    distant: [],
    behind: null,
    engine: { last: '120', durable: '118', applied: '110', features: 'io_uring,resend' },
    verify: null,
    ...change,
  };
}

export function moduleStatus(change: Partial<ModuleStatus> = {}): ModuleStatus {
  return {
    name: 'web',
    mode: 'farm',
    state: 'UP',
    readiness: 'Ready',
    why: [],
    loopCount: 0,
    maxloop: 3,
    signature: 'ab12cd34ef56',
    resources: { 'intf.eth0': 'up' },
    farm: farmStatus(),
    replica: null,
    pair: null,
    ...change,
  };
}

export function nodeStatus(node: string, modules: readonly ModuleStatus[]): NodeStatus {
  return {
    node,
    id: 0,
    version: '0.1.0',
    clusterSignature: '0123456789abcdef',
    startedWallMs: nowMs - 3_723_000,
    modules,
    peers: [
      {
        node: 'n2',
        id: 1,
        reach: 'both',
        lans: [
          { name: 'blue', up: true, rttUs: 85 },
          { name: 'green', up: false, rttUs: 0 },
        ],
        connected: true,
        sameConfig: true,
      },
    ],
    alerts: [
      {
        id: 'lan',
        severity: 'warning',
        message: 'network green to n2 is down',
        sinceWallMs: nowMs,
      },
    ],
  };
}

export function eventRecord(seq: number, text: string, module: string | null = 'web'): EventRecord {
  return { seq, wallMs: nowMs, bootMs: 1, node: 'n1', module, kind: 'view', text, data: {} };
}

/** Keeps what was asked, answers from plain fields; a test changes the fields. */
export class FakeNode implements AgentClient {
  readonly node: string;
  modulesHere: ModuleStatus[] = [moduleStatus()];
  journal: EventRecord[] = [];
  logLines: string[] = [];
  whyLines: string[] = [];
  timingRows: TimingRow[] = [{ of: 'cluster', name: 'lease', ms: 150, meaning: 'the VIP lapses' }];
  configErrors: ErrorRecord[] = [];
  verified: VerifyStatus = { running: false, figures: {}, differences: [], differing: 0 };
  readonly asked: unknown[][] = [];
  /** Thrown by every call while set. */
  failure: HoldfastError | null = null;
  readonly cluster: Map<string, FakeNode>;
  readonly #followers = new Set<(event: EventRecord) => void>();

  constructor(node: string, cluster: Map<string, FakeNode> = new Map()) {
    this.node = node;
    this.cluster = cluster;
    cluster.set(node, this);
  }

  onNode(node: string): AgentClient {
    const other = this.cluster.get(node);
    if (other !== undefined) return other;
    const missing = new FakeNode(node);
    missing.failure = new HoldfastError('HF-API-007', { node });
    return missing;
  }

  emit(event: EventRecord): void {
    this.journal.push(event);
    for (const follower of this.#followers) follower(event);
  }

  get followers(): number {
    return this.#followers.size;
  }

  async #answer<T>(value: () => T, ...asked: unknown[]): Promise<T> {
    this.asked.push(asked);
    if (this.failure !== null) throw this.failure;
    return value();
  }

  #module(name: string): ModuleStatus {
    const found = this.modulesHere.find((module) => module.name === name);
    if (found === undefined) throw new HoldfastError('HF-MODULE-002', { name });
    return found;
  }

  status = () => this.#answer(() => nodeStatus(this.node, this.modulesHere), 'status');
  modules = () => this.#answer(() => this.modulesHere, 'modules');
  module = (name: string) => this.#answer(() => this.#module(name), 'module', name);
  command = (module: string, verb: string) =>
    this.#answer(() => this.#module(module), 'command', module, verb);
  prim = (module: string, alone: boolean, force = false) =>
    this.#answer(() => this.#module(module), 'prim', module, alone, force);
  second = (module: string, way: SecondWay = 'plain') =>
    this.#answer(() => this.#module(module), 'second', module, way);
  swap = (module: string, sync: boolean) =>
    this.#answer(() => this.#module(module), 'swap', module, sync);
  setResource = (module: string, resource: string, state: 'up' | 'down', reason: string) =>
    this.#answer(() => this.#module(module), 'setResource', module, resource, state, reason);
  failover = (module: string, on: boolean) =>
    this.#answer(() => this.#module(module), 'failover', module, on);
  verify = (module: string) => this.#answer(() => this.verified, 'verify', module);
  installModule = (name: string, archive: Uint8Array, replace: boolean) =>
    this.#answer(() => moduleStatus({ name, state: 'STOP' }), 'install', name, archive, replace);
  packageModule = (name: string) =>
    this.#answer(() => new TextEncoder().encode(`archive of ${name}`), 'package', name);
  uninstallModule = (name: string) => this.#answer(() => undefined, 'uninstall', name);
  checkConfig = (name: string, xml: string | null) =>
    this.#answer(() => this.configErrors, 'check', name, xml);
  applyConfig = (name: string, xml: string | null) =>
    this.#answer(() => this.#module(name), 'apply', name, xml);
  drain = (module: string, node: string, on: boolean) =>
    this.#answer(() => this.#module(module), 'drain', module, node, on);
  power = (module: string, node: string, group: string | null, power: number) =>
    this.#answer(() => this.#module(module), 'power', module, node, group, power);
  events = (query: { limit?: number; module?: string | null } = {}) =>
    this.#answer(
      () =>
        this.journal
          .filter((event) => (query.module ?? event.module) === event.module)
          .slice(-(query.limit ?? 100)),
      'events',
      query,
    );
  log = (module: string | null, lines: number) =>
    this.#answer(() => this.logLines.slice(-lines), 'log', module, lines);
  why = (module: string) => this.#answer(() => this.whyLines, 'why', module);
  timing = (query: Partial<TimingQuery> = {}) =>
    this.#answer(() => this.timingRows, 'timing', query);
  metrics = () => this.#answer(() => '', 'metrics');
  clusterStatus = () =>
    this.#answer(
      (): ClusterStatus => ({
        node: this.node,
        signature: '0123456789abcdef',
        caFingerprint: 'ff00',
        nodes: [...this.cluster.keys()].map((node, id) => ({
          node,
          id,
          addrs: [{ lan: 'blue', addr: `10.0.0.${id + 1}` }],
          admits: id === 0,
          reach: node === this.node ? 'self' : 'both',
          connected: true,
          sameConfig: true,
        })),
      }),
      'cluster',
    );
  issueToken = (options: object = {}) =>
    this.#answer(
      () => ({ token: 'hf1.abc', expiresInMs: 1_800_000, joinLine: 'holdfast cluster join …' }),
      'token',
      options,
    );
  clusterXml = () => this.#answer(() => '<cluster/>\n', 'clusterXml');
  applyClusterXml = async (xml: string) => {
    await this.#answer(() => undefined, 'applyCluster', xml);
    return this.clusterStatus();
  };
  shutdown = () => this.#answer(() => undefined, 'shutdown');

  async *followEvents(
    options: { after?: number; module?: string | null; signal?: AbortSignal } = {},
  ): AsyncGenerator<EventRecord, void, void> {
    if (this.failure !== null) throw this.failure;
    const waiting: EventRecord[] = this.journal.filter((event) => event.seq > (options.after ?? 0));
    let wake = (): void => {};
    const follower = (event: EventRecord): void => {
      waiting.push(event);
      wake();
    };
    this.#followers.add(follower);
    options.signal?.addEventListener('abort', () => wake());
    try {
      while (options.signal?.aborted !== true) {
        const next = waiting.shift();
        if (next !== undefined) yield next;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.#followers.delete(follower);
    }
  }
}

export interface CliResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface CliOptions {
  readonly root?: string;
  readonly color?: boolean;
  readonly tty?: boolean;
  readonly interrupt?: AbortSignal;
  /** What a person types; without it, nobody is there. */
  readonly answer?: string;
  /** Sees all of stdout each time it grows. */
  readonly onOut?: (out: string) => void;
}

/** The world of one command line; `text` is what it printed so far. */
export function fakeIo(
  agent: AgentClient,
  options: CliOptions = {},
): { readonly io: Io; readonly text: { out: string; err: string } } {
  const text = { out: '', err: '' };
  const io: Io = {
    out: (more) => {
      text.out += more;
      options.onOut?.(text.out);
    },
    err: (more) => {
      text.err += more;
    },
    tty: options.tty ?? false,
    color: options.color ?? false,
    columns: 100,
    canAsk: options.answer !== undefined,
    ask: async (question) => {
      text.err += question;
      return options.answer ?? '';
    },
    paths: pathsBelow(options.root ?? '/nonexistent'),
    untilInterrupt: () => options.interrupt ?? new AbortController().signal,
    nowMs: () => nowMs,
    connect: () => agent,
  };
  return { io, text };
}

/** Runs one command line against an agent. */
export async function cli(
  agent: AgentClient,
  args: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  const { io, text } = fakeIo(agent, options);
  const code = await main(args, io);
  return { code, ...text };
}
