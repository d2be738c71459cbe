/**
 * The typed client of the agent's API: what the CLI, the lab and the node proxy's callers use.
 * Over the unix socket it has full rights; over HTTPS it needs the key of a node of the cluster.
 */
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import type { Duplex } from 'node:stream';
import { errorRegistry, HoldfastError, type ErrorCode, type ErrorRecord } from '../errors.ts';
import type {
  EventRecord,
  ModuleStatus,
  ModuleVerb,
  NodeStatus,
  SecondWay,
  TimingQuery,
  TimingRow,
  VerifyStatus,
} from '../host/face.ts';

/** Where the agent is: its unix socket, or a way to a TLS connection (see dial.ts). */
export type AgentTarget =
  | { readonly socketPath: string }
  | { readonly dial: () => Promise<Duplex>; readonly where: string };

/** One node of the cluster as another one sees it. */
export interface ClusterNodeStatus {
  readonly node: string;
  readonly id: number;
  readonly addrs: readonly { readonly lan: string; readonly addr: string }[];
  /** True where the node that answers holds the key of the cluster CA and so can admit servers. */
  readonly admits: boolean;
  readonly reach: 'silent' | 'heard' | 'both' | 'self';
  readonly connected: boolean;
  readonly sameConfig: boolean | null;
}

export interface ClusterStatus {
  readonly node: string;
  readonly signature: string;
  readonly caFingerprint: string;
  readonly nodes: readonly ClusterNodeStatus[];
}

/** A join token as the operator gets it. */
export interface IssuedToken {
  readonly token: string;
  readonly expiresInMs: number;
  /** The command to run on the server that joins. */
  readonly joinLine: string;
}

export interface EventQuery {
  /** Only records with a greater sequence number; default 0. */
  readonly after?: number;
  /** Newest so many; default 100, at most 1000. */
  readonly limit?: number;
  readonly module?: string | null;
}

/** The methods of the host's Agent, over the wire. Each rejects with HoldfastError. */
export interface AgentClient {
  /** The same client, answered by another node of the cluster (the CLI's `-H node`). */
  onNode(node: string): AgentClient;
  status(): Promise<NodeStatus>;
  modules(): Promise<readonly ModuleStatus[]>;
  module(name: string): Promise<ModuleStatus>;
  command(module: string, verb: ModuleVerb): Promise<ModuleStatus>;
  prim(module: string, alone: boolean, force?: boolean): Promise<ModuleStatus>;
  second(module: string, way?: SecondWay): Promise<ModuleStatus>;
  swap(module: string, sync: boolean): Promise<ModuleStatus>;
  failover(module: string, on: boolean): Promise<ModuleStatus>;
  setResource(
    module: string,
    resource: string,
    state: 'up' | 'down',
    reason: string,
  ): Promise<ModuleStatus>;
  verify(module: string): Promise<VerifyStatus>;
  installModule(name: string, archive: Uint8Array, replace: boolean): Promise<ModuleStatus>;
  packageModule(name: string): Promise<Uint8Array>;
  uninstallModule(name: string): Promise<void>;
  checkConfig(name: string, xml: string | null): Promise<readonly ErrorRecord[]>;
  applyConfig(name: string, xml: string | null): Promise<ModuleStatus>;
  drain(module: string, node: string, on: boolean): Promise<ModuleStatus>;
  power(module: string, node: string, group: string | null, power: number): Promise<ModuleStatus>;
  events(query?: EventQuery): Promise<readonly EventRecord[]>;
  /** The records after `after`, then each new one as it happens; ends when `signal` aborts. */
  followEvents(options?: {
    readonly after?: number;
    readonly module?: string | null;
    readonly signal?: AbortSignal;
  }): AsyncGenerator<EventRecord, void, void>;
  log(module: string | null, lines: number): Promise<readonly string[]>;
  why(module: string): Promise<readonly string[]>;
  timing(query?: Partial<TimingQuery>): Promise<readonly TimingRow[]>;
  metrics(): Promise<string>;
  clusterStatus(): Promise<ClusterStatus>;
  /** A new join token; `replaces` names a dead node whose place the joining server takes. */
  issueToken(options?: {
    readonly ttlMs?: number;
    readonly replaces?: string | null;
  }): Promise<IssuedToken>;
  /** The cluster.xml in force. */
  clusterXml(): Promise<string>;
  /**
   * Checks a cluster.xml and applies it; 'cluster' (only on the node with the CA's key) also sends
   * it to all other nodes.
   */
  applyClusterXml(xml: string, scope?: 'node' | 'cluster'): Promise<ClusterStatus>;
  shutdown(): Promise<void>;
}

/** Answers that need no work of the agent. */
const readTimeoutMs = 15_000;
/** Commands wait for scripts; the modules' own limits end them long before this. */
const commandTimeoutMs = 30 * 60_000;
/** A comparison reads all data of both servers. */
const verifyTimeoutMs = 24 * 3600_000;
/** Bound on an answer held in memory: a module archive of 16 MiB and some. */
const maxAnswerBytes = 20 * 1024 * 1024;
const prefix = '/api/v1';

/**
 * Makes a client; nothing is sent yet. HF-API-010 on first use where no agent answers.
 * One connection per request: a CLI sends one, and no idle connection keeps the process alive.
 */
export function connectAgent(target: AgentTarget): AgentClient {
  return makeClient(target, prefix);
}

export interface Call {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly json?: unknown;
  readonly bytes?: Uint8Array;
  readonly timeoutMs?: number;
}

function makeClient(target: AgentTarget, base: string): AgentClient {
  const raw = (call: Call): Promise<Buffer> =>
    exchange(target, { ...call, path: `${base}${call.path}` });
  const json = async <T>(call: Call): Promise<T> => {
    const body = await raw(call);
    return (body.length === 0 ? undefined : JSON.parse(body.toString('utf8'))) as T;
  };
  const get = <T>(path: string): Promise<T> => json<T>({ method: 'GET', path });
  const act = <T>(path: string, body: unknown, method: Call['method'] = 'POST'): Promise<T> =>
    json<T>({ method, path, json: body, timeoutMs: commandTimeoutMs });
  const at = (name: string): string => `/modules/${encodeURIComponent(name)}`;
  return {
    onNode: (node) => makeClient(target, `${prefix}/nodes/${encodeURIComponent(node)}`),
    status: () => get('/status'),
    modules: () => get('/modules'),
    module: (name) => get(at(name)),
    command: (module, verb) => act(`${at(module)}/${verb}`, {}),
    prim: (module, alone, force = false) => act(`${at(module)}/prim`, { alone, force }),
    second: (module, way = 'plain') => act(`${at(module)}/second`, { way }),
    swap: (module, sync) => act(`${at(module)}/swap`, { sync }),
    setResource: (module, resource, state, reason) =>
      act(`${at(module)}/resource`, { resource, state, reason }),
    failover: (module, on) => act(`${at(module)}/failover`, { on }),
    verify: (module) =>
      json({
        method: 'POST',
        path: `${at(module)}/verify`,
        json: {},
        timeoutMs: verifyTimeoutMs,
      }),
    installModule: (name, archive, replace) =>
      json({
        method: 'PUT',
        path: `${at(name)}/package?replace=${replace}`,
        bytes: archive,
        timeoutMs: commandTimeoutMs,
      }),
    packageModule: async (name) =>
      raw({ method: 'GET', path: `${at(name)}/package`, timeoutMs: commandTimeoutMs }),
    uninstallModule: async (name) => {
      await act(at(name), undefined, 'DELETE');
    },
    checkConfig: (name, xml) => act(`${at(name)}/config/check`, { xml }),
    applyConfig: (name, xml) => act(`${at(name)}/config`, { xml }, 'PUT'),
    drain: (module, node, on) => act(`${at(module)}/drain`, { node, on }),
    power: (module, node, group, power) => act(`${at(module)}/power`, { node, group, power }),
    events: (query = {}) => get(`/events${queryString({ ...query })}`),
    followEvents: (options = {}) => followEvents(target, base, options),
    log: (module, lines) => get(`/log${queryString({ module, lines })}`),
    why: (module) => get(`${at(module)}/why`),
    timing: (query = {}) => get(`/timing${queryString({ ...query })}`),
    metrics: async () => (await raw({ method: 'GET', path: '/metrics' })).toString('utf8'),
    clusterStatus: () => get('/cluster'),
    issueToken: (options = {}) => act('/cluster/tokens', options),
    clusterXml: async () =>
      (await raw({ method: 'GET', path: '/cluster/config' })).toString('utf8'),
    applyClusterXml: (xml, scope = 'cluster') => act('/cluster/config', { xml, scope }, 'PUT'),
    shutdown: async () => {
      await act('/shutdown', {});
    },
  };
}

function queryString(values: Readonly<Record<string, string | number | null | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined) query.set(name, String(value));
  }
  return query.size === 0 ? '' : `?${query.toString()}`;
}

function targetName(target: AgentTarget): string {
  return 'socketPath' in target ? target.socketPath : target.where;
}

/** Opens a request; the caller writes the body and ends it. */
async function open(
  target: AgentTarget,
  method: string,
  path: string,
  headers: Record<string, string>,
): Promise<ClientRequest> {
  const common = { method, path, headers: { host: 'agent', ...headers } } as const;
  if ('socketPath' in target)
    return request({ ...common, agent: false, socketPath: target.socketPath });
  const socket = await target.dial();
  return request({ ...common, createConnection: () => socket });
}

/** One request and its whole answer. Rejects with the error that the agent sent, as it sent it. */
export async function exchange(target: AgentTarget, call: Call): Promise<Buffer> {
  const headers: Record<string, string> = { accept: 'application/json' };
  let body: Uint8Array | null = null;
  if (call.bytes !== undefined) {
    body = call.bytes;
    headers['content-type'] = 'application/octet-stream';
  } else if (call.json !== undefined) {
    body = Buffer.from(JSON.stringify(call.json));
    headers['content-type'] = 'application/json';
  }
  if (body !== null) headers['content-length'] = String(body.length);
  const timeoutMs = call.timeoutMs ?? readTimeoutMs;
  const outgoing = await open(target, call.method, call.path, headers);
  const timer = setTimeout(
    () =>
      outgoing.destroy(
        new HoldfastError('HF-API-011', { where: targetName(target), ms: timeoutMs }),
      ),
    timeoutMs,
  );
  try {
    const answer = await response(outgoing, body, target);
    const bytes = await readAll(answer);
    if ((answer.statusCode ?? 500) >= 400) throw errorOf(bytes, answer.statusCode ?? 500);
    return bytes;
  } catch (cause) {
    throw asHoldfastError(cause, target);
  } finally {
    clearTimeout(timer);
  }
}

function response(
  outgoing: ClientRequest,
  body: Uint8Array | null,
  target: AgentTarget,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    outgoing.once('response', resolve);
    // The listener stays: after the response an error must not become an uncaught exception.
    outgoing.on('error', (cause) => reject(asHoldfastError(cause, target)));
    if (body === null) outgoing.end();
    else outgoing.end(body);
  });
}

async function readAll(answer: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxAnswerBytes) throw new Error(`the answer exceeds ${maxAnswerBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function asHoldfastError(cause: unknown, target: AgentTarget): HoldfastError {
  if (cause instanceof HoldfastError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new HoldfastError('HF-API-010', { where: targetName(target), reason }, null, cause);
}

/** Rebuilds the error that the agent sent; one that this version does not know keeps its text. */
function errorOf(body: Buffer, status: number): HoldfastError {
  let record: Partial<ErrorRecord> = {};
  try {
    const parsed: unknown = JSON.parse(body.toString('utf8'));
    record = (parsed as { error?: Partial<ErrorRecord> }).error ?? {};
  } catch {
    // Not JSON: the status code alone must do.
  }
  const message = record.message ?? `HTTP status ${status}`;
  const place = record.file === undefined ? null : { file: record.file, line: record.line ?? 0 };
  const known = record.code !== undefined && record.code in errorRegistry;
  const code = known ? (record.code as ErrorCode) : 'HF-API-009';
  const error = new HoldfastError(
    code,
    { message: record.code === undefined ? message : `${record.code}: ${message}` },
    place,
  );
  if (known) Object.assign(error, { message, hint: record.hint ?? error.hint });
  return error;
}

async function* followEvents(
  target: AgentTarget,
  base: string,
  options: {
    readonly after?: number;
    readonly module?: string | null;
    readonly signal?: AbortSignal;
  },
): AsyncGenerator<EventRecord, void, void> {
  const { signal } = options;
  if (signal?.aborted === true) return;
  const query = queryString({ after: options.after, module: options.module });
  const outgoing = await open(target, 'GET', `${base}/events/stream${query}`, {
    accept: 'text/event-stream',
  });
  let wasStopped = false;
  const stop = (): void => {
    wasStopped = true;
    outgoing.destroy();
  };
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const answer = await response(outgoing, null, target);
    if (answer.statusCode !== 200) {
      throw errorOf(await readAll(answer), answer.statusCode ?? 500);
    }
    yield* parseEventStream(answer);
  } catch (cause) {
    if (wasStopped) return;
    throw asHoldfastError(cause, target);
  } finally {
    signal?.removeEventListener('abort', stop);
    outgoing.destroy();
  }
}

/** Longest line of an event stream that is taken; records are far smaller. */
const maxLineBytes = 1024 * 1024;

async function* parseEventStream(answer: IncomingMessage): AsyncGenerator<EventRecord> {
  answer.setEncoding('utf8');
  let rest = '';
  let kind = 'message';
  for await (const chunk of answer as AsyncIterable<string>) {
    rest += chunk;
    let end = rest.indexOf('\n');
    while (end >= 0) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 1);
      if (line === '') kind = 'message';
      else if (line.startsWith('event: ')) kind = line.slice(7);
      else if (line.startsWith('data: ') && kind === 'message') {
        yield JSON.parse(line.slice(6)) as EventRecord;
      }
      end = rest.indexOf('\n');
    }
    if (rest.length > maxLineBytes) throw new Error('a line of the event stream is too long');
  }
}
