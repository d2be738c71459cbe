/**
 * `/api/v1/nodes/NODE/…`: the same request, carried out by another node. It goes over mutual TLS
 * to that node's API port, the prefix taken off. A forwarded request is never forwarded again.
 */
import { type IncomingMessage, request as httpRequest } from 'node:http';
import type { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { HoldfastError } from '../errors.ts';
import type { Agent } from '../host/face.ts';
import { dialNode, otherNodes } from './dial.ts';
import type { NodeKeys } from './pki.ts';

export const forwardedHeader = 'holdfast-forwarded';
const nodesPrefix = '/api/v1/nodes/';
/** What of a request goes along; nothing that names hosts, connections or rights. */
const passedHeaders = ['accept', 'content-type', 'content-length', 'last-event-id'] as const;

/** `/api/v1/nodes/<me>/x` as `/api/v1/x`: a node is its own proxy without a detour. */
export function localUrl(url: string, me: string): string {
  const own = `${nodesPrefix}${encodeURIComponent(me)}/`;
  return url.startsWith(own) ? `/api/v1/${url.slice(own.length)}` : url;
}

/** Forwards one request. HF-API-006, -007, HF-PEER-001. */
export async function forward(
  request: FastifyRequest,
  reply: FastifyReply,
  context: { readonly agent: Agent; readonly keys: NodeKeys; readonly port: number },
): Promise<void> {
  const { agent, keys, port } = context;
  const { node: name } = request.params as { node: string };
  const rest = request.raw.url?.slice(nodesPrefix.length).replace(/^[^/]*\//, '') ?? '';
  if (request.headers[forwardedHeader] !== undefined || rest.startsWith('nodes/')) {
    throw new HoldfastError('HF-API-006');
  }
  const node = otherNodes(agent.cluster().config, agent.node).find((other) => other.name === name);
  if (node === undefined) throw new HoldfastError('HF-API-007', { node: name.slice(0, 64) });
  const socket = await dialNode(node, port, keys);
  const headers: Record<string, string> = { host: 'agent', [forwardedHeader]: agent.node };
  for (const header of passedHeaders) {
    const value = request.headers[header];
    if (typeof value === 'string') headers[header] = value;
  }
  const outgoing = httpRequest({
    method: request.method,
    path: `/api/v1/${rest}`,
    headers,
    createConnection: () => socket,
  });
  // The caller gave up: so does the forwarded request.
  reply.raw.once('close', () => outgoing.destroy());
  const answer = new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.once('response', resolve);
    outgoing.on('error', (cause) =>
      reject(new HoldfastError('HF-PEER-001', { node: name, reason: cause.message, port })),
    );
  });
  const body = request.body as Readable | undefined;
  if (body === undefined) outgoing.end();
  else body.pipe(outgoing);
  const incoming = await answer;
  reply.hijack();
  const passed = { ...reply.getHeaders() } as Record<string, string>;
  for (const header of ['content-type', 'content-length'] as const) {
    const value = incoming.headers[header];
    if (value !== undefined) passed[header] = value;
  }
  reply.raw.writeHead(incoming.statusCode ?? 502, passed);
  incoming.once('error', () => reply.raw.destroy());
  incoming.pipe(reply.raw);
}
