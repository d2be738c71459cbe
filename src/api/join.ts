/** `cluster init` and `cluster join`: what the CLI runs on a server that is in no cluster yet. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { connect, type DetailedPeerCertificate, type TLSSocket } from 'node:tls';
import { parseClusterConfig, renderClusterXml } from '../config/cluster.ts';
import type { ClusterConfig } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { Paths } from '../paths.ts';
import { exchange } from './client.ts';
import { JoinAnswer, joinLine, type JoinRequest } from './cluster.ts';
import { apiPort, hostPort } from './dial.ts';
import { makePrivateFolder, writeDurable } from './files.ts';
import {
  checkNodeName,
  checkPair,
  fingerprint,
  keyFiles,
  makeCa,
  makeRequest,
  type NodeKeys,
  pemOfCertificate,
  sameBytes,
  signRequest,
  writeKeys,
} from './pki.ts';
import { parseToken, TokenStore, tokenTtlMs } from './token.ts';

/** An address of this server on one network of the cluster. */
export interface LanAddress {
  readonly name: string;
  readonly addr: string;
}

export interface InitOptions {
  /** Shown in the CA certificate only. */
  readonly name?: string;
  readonly node: string;
  /** The first is the network of commands. Empty: this server's only address. */
  readonly lans: readonly LanAddress[];
  readonly paths: Paths;
  /** Port of the API, for the join line. */
  readonly port?: number;
}

export interface InitResult {
  readonly clusterXml: string;
  readonly caFingerprint: string;
  readonly token: string;
  readonly joinLine: string;
}

/**
 * Makes a cluster of this one server: CA, keys, cluster.xml, and a first join token. No agent is
 * needed. HF-CLUSTER-001 where there is one already; cluster.xml is written last, so a crash before
 * leaves nothing that counts.
 */
export async function clusterInit(options: InitOptions): Promise<InitResult> {
  const { node, paths } = options;
  refuseExisting(paths);
  checkNodeName(node);
  const lans = options.lans.length > 0 ? options.lans : [{ name: 'default', addr: onlyAddress() }];
  const clusterXml = renderClusterXml({
    nodes: [{ id: 0, name: node }],
    lans: lans.map(({ name, addr }, index) => ({
      name,
      command: index === 0,
      nodes: [{ node: 0, addr, laddr: addr }],
    })),
  });
  const config = accepted(clusterXml);
  const ca = await makeCa(options.name ?? node);
  const { key, request } = await makeRequest(node);
  const addrs = [...new Set(lans.map((lan) => lan.addr))];
  const cert = await signRequest(ca, request, node, addrs);
  const keys: NodeKeys = { node, caCert: ca.cert, cert, key, secret: randomBytes(32) };
  writeKeys(paths, keys, ca.key);
  const tokens = new TokenStore(keyFiles(paths).tokens, node);
  const token = tokens.issue(fingerprint(ca.cert), tokenTtlMs, null);
  makePrivateFolder(paths.etc);
  writeDurable(paths.clusterXml, clusterXml, 0o644);
  return {
    clusterXml,
    caFingerprint: fingerprint(ca.cert).toString('hex'),
    token,
    joinLine: joinLine(config, node, options.port ?? apiPort, token),
  };
}

export interface JoinOptions {
  /** `ADDR`, `ADDR:PORT` or `[ADDR]:PORT` of a server of the cluster. */
  readonly addr: string;
  readonly token: string;
  readonly node: string;
  /** Addresses on networks where the subnet does not tell which one it is. */
  readonly lans?: readonly LanAddress[];
  readonly paths: Paths;
}

export interface JoinResult {
  readonly node: string;
  readonly nodes: readonly string[];
  /** Nodes that were away and are told of this one when they return. */
  readonly pending: readonly string[];
}

/**
 * Makes this server a node of the cluster that issued the token. The private key is made here and
 * stays here. Nothing, not even the token, is sent before the other side has proved to be of that
 * cluster. No agent is needed here. HF-CLUSTER-001, -003, -006, -016, -017, or what the other says.
 */
export async function clusterJoin(options: JoinOptions): Promise<JoinResult> {
  const { node, paths, token } = options;
  refuseExisting(paths);
  checkNodeName(node);
  const { caFingerprint } = parseToken(token);
  const { host, port } = splitAddr(options.addr);
  const where = hostPort(host, port);
  const caCert = await fetchCa(host, port, caFingerprint);
  const { key, request } = await makeRequest(node);
  const body: JoinRequest = {
    token,
    node,
    request,
    lans: [...(options.lans ?? [])],
    addrs: ownAddresses(),
  };
  const bytes = await exchange(
    { dial: () => open(host, port, caCert), where },
    { method: 'POST', path: '/api/v1/cluster/join', json: body, timeoutMs: joinTimeoutMs },
  );
  const bad = (reason: string, cause?: unknown): HoldfastError =>
    new HoldfastError('HF-CLUSTER-017', { addr: where, reason }, null, cause);
  let keys: NodeKeys;
  let answer: JoinAnswer;
  try {
    answer = JoinAnswer.parse(JSON.parse(bytes.toString('utf8')));
    const { cert } = answer;
    if (checkPair({ cert, key }, caCert) !== node) throw new Error('the certificate is of another');
    keys = { node, caCert, cert, key, secret: Buffer.from(answer.secret, 'hex') };
  } catch (cause) {
    throw bad(cause instanceof Error ? cause.message : String(cause), cause);
  }
  const config = accepted(answer.clusterXml);
  if (!config.nodes.some((at) => at.name === node)) throw bad('cluster.xml lacks this server');
  writeKeys(paths, keys, null);
  writeDurable(paths.clusterXml, answer.clusterXml, 0o644);
  return { node, nodes: config.nodes.map((at) => at.name), pending: answer.pending };
}

/** The issuing node tells all others before it answers; one that is away costs it some seconds. */
const joinTimeoutMs = 60_000;
const connectTimeoutMs = 5000;

function refuseExisting(paths: Paths): void {
  if (existsSync(paths.clusterXml)) {
    throw new HoldfastError('HF-CLUSTER-001', { file: paths.clusterXml });
  }
}

function accepted(xml: string): ClusterConfig {
  const { config, errors } = parseClusterConfig(xml);
  if (errors[0] !== undefined) throw errors[0];
  if (config === null) throw new HoldfastError('HF-CLUSTER-012', { reason: 'no configuration' });
  return config;
}

/** `a`, `a:1`, `[v6]:1` or a bare IPv6 address. */
export function splitAddr(text: string): { readonly host: string; readonly port: number } {
  if (isIP(text) !== 0) return { host: text, port: apiPort };
  const parts = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text);
  const host = parts?.[1] ?? parts?.[2];
  const port = parts?.[3] === undefined ? apiPort : Number(parts[3]);
  if (host === undefined || port < 1 || port > 65535) {
    throw new HoldfastError('HF-CLUSTER-016', { addr: text, reason: 'this is no ADDR:PORT' });
  }
  return { host, port };
}

/** A TLS connection; without a CA the other side is not authenticated. */
export function open(host: string, port: number, caCert: string | null): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port,
      minVersion: 'TLSv1.3',
      rejectUnauthorized: caCert !== null,
      // Any node of that cluster may answer: only its CA gives such certificates.
      checkServerIdentity: () => undefined,
      ...(caCert === null ? {} : { ca: caCert }),
    });
    const timer = setTimeout(
      () => socket.destroy(new Error(`no answer in ${connectTimeoutMs} ms`)),
      connectTimeoutMs,
    );
    socket.once('error', (cause) => {
      clearTimeout(timer);
      const values = { addr: hostPort(host, port), reason: cause.message };
      reject(new HoldfastError('HF-CLUSTER-016', values, null, cause));
    });
    socket.once('secureConnect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      resolve(socket);
    });
  });
}

/**
 * Gets the CA certificate that a server shows and checks it against the token. Only a first look:
 * the request itself goes over a second connection on which TLS verifies the server with this CA.
 */
export async function fetchCa(host: string, port: number, expected: Uint8Array): Promise<string> {
  const socket = await open(host, port, null);
  socket.on('error', () => undefined);
  const leaf = socket.getPeerCertificate(true);
  socket.destroy();
  let cert: DetailedPeerCertificate | undefined = leaf;
  for (let depth = 0; cert?.raw !== undefined && depth < 4; depth += 1) {
    if (sameBytes(fingerprint(cert.raw), expected)) return pemOfCertificate(cert.raw);
    cert = cert.issuerCertificate === cert ? undefined : cert.issuerCertificate;
  }
  throw new HoldfastError('HF-CLUSTER-006', { addr: hostPort(host, port) });
}

/** This server's addresses that others can use, with their prefix lengths. */
export function ownAddresses(): { addr: string; prefix: number }[] {
  return Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter(({ internal, address }) => !internal && !address.toLowerCase().startsWith('fe80:'))
    .map(({ address, cidr }) => ({ addr: address, prefix: Number(cidr?.split('/')[1] ?? 0) }))
    .filter(({ prefix }) => prefix > 0)
    .slice(0, 64);
}

function onlyAddress(): string {
  const addrs = ownAddresses().map(({ addr }) => addr);
  const ipv4 = addrs.filter((addr) => isIP(addr) === 4);
  const [first, second] = ipv4.length > 0 ? ipv4 : addrs;
  if (first !== undefined && second === undefined) return first;
  const reason =
    first === undefined
      ? 'this server has no address'
      : `this server has several addresses (${addrs.join(', ')}); say which ones to use`;
  throw new HoldfastError('HF-CLUSTER-012', { reason });
}
