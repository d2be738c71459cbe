/** TLS between nodes: both show a certificate of the cluster CA, and the name in it counts. */
import { isIPv6 } from 'node:net';
import { connect, type PeerCertificate, type TLSSocket } from 'node:tls';
import type { ClusterConfig } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import { type AgentClient, connectAgent } from './client.ts';
import type { NodeKeys } from './pki.ts';

export const apiPort = 9453;
export const peerPort = 9454;

/** A node as others reach it: addresses in the order to try, the command network's first. */
export interface NodeAddress {
  readonly id: number;
  readonly name: string;
  readonly addrs: readonly string[];
}

/** The nodes of a cluster with their addresses; `me` is left out. */
export function otherNodes(config: ClusterConfig, me: string): NodeAddress[] {
  const lans = config.lans.toSorted((a, b) => Number(b.command) - Number(a.command));
  return config.nodes
    .filter((node) => node.name !== me)
    .map(({ id, name }) => ({
      id,
      name,
      addrs: lans.flatMap((lan) => lan.nodes.filter((at) => at.node === id).map((at) => at.addr)),
    }));
}

/** TLS options of a node, as server and as client. The CA goes along for joining servers. */
export function tlsIdentity(keys: NodeKeys) {
  return {
    ca: keys.caCert,
    cert: keys.cert + keys.caCert,
    key: keys.key,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
  } as const;
}

/** The node that a verified certificate names; null where there is none. */
export function certificateNode(cert: Partial<PeerCertificate> | null | undefined): string | null {
  const name: unknown = cert?.subject?.CN;
  return typeof name === 'string' && name !== '' ? name : null;
}

/** For checkServerIdentity: the certificate must be that of `node`, whatever the address. */
export function identityOf(
  node: string,
): (host: string, cert: PeerCertificate) => Error | undefined {
  return (_host, cert) => {
    const name = certificateNode(cert);
    return name === node ? undefined : new Error(`${name ?? 'a nameless node'} answered there`);
  };
}

/** `addr:port`, with brackets around IPv6. */
export function hostPort(addr: string, port: number): string {
  return isIPv6(addr) ? `[${addr}]:${port}` : `${addr}:${port}`;
}

/** Time for one address; a LAN answers in under 1 ms, a busy server in some 100 ms. */
const attemptMs = 1500;

/**
 * Opens a TLS connection to a node, trying its addresses in turn. HF-PEER-001 with the last reason.
 */
export async function dialNode(
  node: NodeAddress,
  port: number,
  keys: NodeKeys,
): Promise<TLSSocket> {
  let reason = 'it has no address';
  for (const host of node.addrs) {
    try {
      return await dialOnce(host, port, node.name, keys);
    } catch (cause) {
      reason = cause instanceof Error ? cause.message : String(cause);
    }
  }
  throw new HoldfastError('HF-PEER-001', { node: node.name, reason, port });
}

/** A client of another node's API, with full rights; tries the node's addresses in turn. */
export function connectNode(
  node: NodeAddress,
  keys: NodeKeys,
  port: number = apiPort,
): AgentClient {
  return connectAgent({ dial: () => dialNode(node, port, keys), where: node.name });
}

function dialOnce(host: string, port: number, node: string, keys: NodeKeys): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port,
      ...tlsIdentity(keys),
      checkServerIdentity: identityOf(node),
    });
    const timer = setTimeout(
      () => socket.destroy(new Error(`no answer from ${hostPort(host, port)}`)),
      attemptMs,
    );
    socket.once('error', (cause) => {
      clearTimeout(timer);
      reject(cause);
    });
    socket.once('secureConnect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}
