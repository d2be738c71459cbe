/**
 * The agent's API. It is served twice from one table of routes: on the unix socket, which only root
 * can open and which has full rights; and by HTTPS, where a client certificate of a node of the
 * cluster has full rights and others see only what is open: health, ready.txt and join.
 */
import { chmodSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { dirname } from 'node:path';
import type { TLSSocket } from 'node:tls';
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import { HoldfastError } from '../errors.ts';
import type { Agent } from '../host/face.ts';
import { checked, errorAnswer } from './check.ts';
import type { ClusterService } from './cluster.ts';
import { apiPort, certificateNode, tlsIdentity } from './dial.ts';
import { makePrivateFolder } from './files.ts';
import { JoinLimit } from './limit.ts';
import { openApi } from './openapi.ts';
import type { NodeKeys } from './pki.ts';
import { forward, localUrl } from './proxy.ts';
import { maxArchiveBytes, maxJsonBytes, metricsType, type Route, routes } from './routes.ts';
import { EventStreams } from './stream.ts';

export interface ApiOptions {
  readonly keys: NodeKeys;
  readonly cluster: ClusterService;
  /** Path of the unix socket; null: none. */
  readonly socketPath: string | null;
  /** HTTPS port, here and on the other nodes; default 9453. 0 is for tests of one node. */
  readonly port?: number;
  /** Address to listen on; default all. */
  readonly listenAddr?: string;
}

/** Both servers. */
export interface Api {
  /** Port of HTTPS as bound. */
  readonly port: number;
  /** Counters for the metrics. */
  stats(): Readonly<Record<string, number>>;
  /** Ends open streams and stops listening. */
  close(): Promise<void>;
}

/** Time for a whole request to arrive. Answers may take as long as the modules' scripts. */
const requestTimeoutMs = 30_000;
/** Idle connections give their place up soon: strangers can open some, too. */
const keepAliveMs = 5000;
const maxConnections = 256;
const prefix = '/api/v1';

const securityHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
} as const;

/** Starts the API. Rejects where the port or the socket cannot be opened (HF-API-013). */
export async function startApi(agent: Agent, options: ApiOptions): Promise<Api> {
  const streams = new EventStreams(agent);
  const context = { agent, streams, limit: new JoinLimit(), ...options };
  const remote = buildApi({ ...context, isLocal: false });
  const local = options.socketPath === null ? null : buildApi({ ...context, isLocal: true });
  const close = async (): Promise<void> => {
    streams.closeAll();
    await Promise.all([remote.close(), local?.close()]);
  };
  try {
    await listenRemote(remote, options.port ?? apiPort, options.listenAddr);
    if (local !== null && options.socketPath !== null) await listenLocal(local, options.socketPath);
  } catch (cause) {
    await close();
    throw cause;
  }
  const address = remote.server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    stats: () => {
      const { open, cutOff } = streams.stats();
      return { streams_open: open, streams_cut_off: cutOff, joins_limited: context.limit.refused };
    },
    close,
  };
}

export interface BuildOptions extends ApiOptions {
  readonly agent: Agent;
  readonly streams: EventStreams;
  readonly limit: JoinLimit;
  /** True: for the unix socket. */
  readonly isLocal: boolean;
}

/** One server with all routes; not listening yet. */
export function buildApi(options: BuildOptions): FastifyInstance {
  const { agent, cluster, keys, isLocal, limit, streams } = options;
  const app = Fastify({
    bodyLimit: maxJsonBytes,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveMs,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 100 },
    rewriteUrl: (request) => localUrl(request.url ?? '/', agent.node),
    ...(isLocal
      ? {}
      : {
          https: {
            ...tlsIdentity(keys),
            requestCert: true,
            // Callers without a certificate may still ask for what is open to all.
            rejectUnauthorized: false,
            handshakeTimeout: 10_000,
          },
        }),
  }) as FastifyInstance;
  app.server.maxConnections = maxConnections;
  app.addHook('onRequest', async (_request, reply) => {
    reply.headers(securityHeaders);
  });
  app.setErrorHandler((error, request, reply) => {
    const { status, body } = errorAnswer(error, request.routeOptions.bodyLimit ?? maxJsonBytes);
    return reply.status(status).send(body);
  });
  app.setNotFoundHandler((request) => {
    const path = request.url.slice(0, 200);
    throw new HoldfastError('HF-API-003', { method: request.method, path });
  });
  const allow = (request: FastifyRequest): void => {
    if (!isLocal && !isNode(agent, request.raw.socket)) throw new HoldfastError('HF-API-002');
  };
  const limitJoin = (from: string): void => limit.take(from);
  const table = routes({ agent, cluster, limitJoin });
  for (const route of table) addRoute(app, route, allow);
  app.get(`${prefix}/openapi.json`, (request, reply) => {
    allow(request);
    return reply.send(openApi(table, agent.status().version));
  });
  app.get(`${prefix}/events/stream`, (request, reply) => {
    allow(request);
    streams.serve(request, reply);
  });
  app.get('/metrics', async (request, reply) => {
    allow(request);
    return reply.type(metricsType).send(agent.metrics());
  });
  app.get<{ Params: { module: string } }>('/var/modules/:module/ready.txt', (request, reply) => {
    const { module } = request.params;
    const status = agent.status().modules.find(({ name }) => name === module);
    // A load balancer sends nobody to a secondary, however well it is.
    const isReady = status?.readiness === 'Ready' && status.state !== 'SECOND';
    return reply
      .status(isReady ? 200 : 404)
      .type('text/plain; charset=utf-8')
      .send(isReady ? 'Ready\n' : 'NotReady\n');
  });
  void app.register(async (nodes) => {
    // Bodies go through unread.
    nodes.removeAllContentTypeParsers();
    nodes.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
    nodes.all(`${prefix}/nodes/:node/*`, { bodyLimit: maxArchiveBytes }, async (request, reply) => {
      allow(request);
      await forward(request, reply, { agent, keys, port: options.port ?? apiPort });
    });
  });
  return app;
}

function addRoute(
  app: FastifyInstance,
  route: Route,
  allow: (request: FastifyRequest) => void,
): void {
  void app.register(async (scope) => {
    if (route.archive === true) {
      scope.removeAllContentTypeParsers();
      scope.addContentTypeParser(
        'application/octet-stream',
        { parseAs: 'buffer' },
        (_request, body, done) => done(null, body),
      );
    }
    scope.route({
      method: route.method,
      url: `${prefix}${route.path}`,
      bodyLimit: route.limit ?? maxJsonBytes,
      // Before the body is read: a stranger's body is not worth the memory.
      onRequest: async (request) => {
        if (route.open !== true) allow(request);
      },
      handler: async (request, reply) => {
        const query = checkedOr(route.query, request.query, 'query');
        const body = route.archive === true ? null : checkedOr(route.body, request.body, 'body');
        const archive = request.body instanceof Uint8Array ? request.body : new Uint8Array();
        const params = request.params as Record<string, string>;
        const from = request.raw.socket.remoteAddress ?? '';
        const answer = await route.handle({ params, query, body, archive, from });
        if (answer.type !== undefined) return reply.type(answer.type).send(answer.body);
        return reply
          .type('application/json; charset=utf-8')
          .send(JSON.stringify(answer.body ?? null));
      },
    });
  });
}

function checkedOr(schema: Route['body'], value: unknown, where: 'body' | 'query'): unknown {
  return schema === undefined ? null : checked(schema, value ?? {}, where);
}

/** True where the other side has shown the certificate of a node that is in cluster.xml now. */
function isNode(agent: Agent, socket: Socket): boolean {
  const { authorized, getPeerCertificate } = socket as Partial<TLSSocket>;
  if (authorized !== true || getPeerCertificate === undefined) return false;
  const name = certificateNode((socket as TLSSocket).getPeerCertificate());
  return agent.cluster().config.nodes.some((node) => node.name === name);
}

async function listenRemote(
  app: FastifyInstance,
  port: number,
  listenAddr: string | undefined,
): Promise<void> {
  const hosts = listenAddr === undefined ? ['::', '0.0.0.0'] : [listenAddr];
  for (const [index, host] of hosts.entries()) {
    try {
      await app.listen({ port, host });
      return;
    } catch (cause) {
      // A kernel without IPv6 has no "::".
      const { code = '', message } = cause as NodeJS.ErrnoException;
      if (index + 1 < hosts.length && /^(EAFNOSUPPORT|EADDRNOTAVAIL)$/.test(code)) continue;
      throw new HoldfastError(
        'HF-API-013',
        { where: `port ${port}`, reason: message },
        null,
        cause,
      );
    }
  }
}

async function listenLocal(app: FastifyInstance, path: string): Promise<void> {
  try {
    // The folder keeps others out from the start; the agent's lock says that no other one listens.
    makePrivateFolder(dirname(path));
    rmSync(path, { force: true });
    await app.listen({ path });
    chmodSync(path, 0o600);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('HF-API-013', { where: path, reason }, null, cause);
  }
}
