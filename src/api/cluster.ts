/**
 * Admitting servers and changing cluster.xml on a running cluster. One node writes: the one with
 * the key of the cluster CA. It sends a new cluster.xml to all others, and again to each that shows
 * another signature when it connects; so a node that was away catches up by itself.
 */
import { BlockList, isIP, isIPv6 } from 'node:net';
import { z } from 'zod';
import { nodesMax, parseClusterConfig, renderClusterXml } from '../config/cluster.ts';
import type { ClusterConfig, Lan } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { Agent } from '../host/face.ts';
import type { ClusterStatus, IssuedToken } from './client.ts';
import { apiPort, connectNode, hostPort, type NodeAddress, otherNodes } from './dial.ts';
import {
  checkRequest,
  clusterKeys,
  fingerprint,
  type KeyPair,
  type NodeKeys,
  sameBytes,
  signRequest,
} from './pki.ts';
import { parseToken, type TokenStore, tokenTtlMs } from './token.ts';
import type { WitnessAnswer, WitnessRequest } from './witness.ts';

const addrText = z.string().min(1).max(255);

/** What a joining server sends, once it knows that the server is of the token's cluster. */
export const JoinRequest = z.strictObject({
  token: z.string().max(200),
  node: z.string().max(80),
  /** Certificate request, PEM. */
  request: z.string().max(4096),
  /** Its addresses on networks of the cluster, as the operator gave them. */
  lans: z.array(z.strictObject({ name: z.string().max(64), addr: addrText })).max(16),
  /** All its addresses: on networks that `lans` does not name, the one in our subnet is taken. */
  addrs: z.array(z.strictObject({ addr: addrText, prefix: z.int().min(1).max(128) })).max(64),
});
export type JoinRequest = z.infer<typeof JoinRequest>;

/** What it gets. */
export const JoinAnswer = z.object({
  cert: z.string().max(8192),
  secret: z.string().regex(/^[0-9a-f]{64}$/),
  clusterXml: z.string().max(512 * 1024),
  /** Nodes that could not be told yet; they are told when they return. */
  pending: z.array(z.string()),
});
export type JoinAnswer = z.infer<typeof JoinAnswer>;

export interface ClusterOptions {
  readonly agent: Pick<Agent, 'node' | 'status' | 'cluster' | 'applyCluster'>;
  readonly keys: NodeKeys;
  /** The CA's keys where this node holds them. */
  readonly ca: KeyPair | null;
  readonly tokens: TokenStore;
  /** Port of the API on all nodes. */
  readonly port?: number;
}

/** Commands on the cluster as such, for the API. */
export class ClusterService {
  readonly #options: ClusterOptions;
  readonly #port: number;
  /** Changes of cluster.xml run one after another. */
  #turn: Promise<unknown> = Promise.resolve();
  /** Nodes that are being sent the configuration now. */
  readonly #sending = new Set<string>();

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.#port = options.port ?? apiPort;
  }

  status(): ClusterStatus {
    const { agent, keys, ca } = this.#options;
    const { config } = agent.cluster();
    const peers = new Map(agent.status().peers.map((peer) => [peer.node, peer]));
    return {
      node: agent.node,
      signature: config.signature,
      caFingerprint: fingerprint(keys.caCert).toString('hex'),
      nodes: config.nodes.map(({ id, name }) => {
        const peer = peers.get(name);
        const isSelf = name === agent.node;
        return {
          node: name,
          id,
          addrs: config.lans.flatMap((lan) =>
            lan.nodes
              .filter((at) => at.node === id)
              .map((at) => ({ lan: lan.name, addr: at.addr })),
          ),
          admits: isSelf && ca !== null,
          reach: isSelf ? 'self' : (peer?.reach ?? 'silent'),
          connected: isSelf || (peer?.connected ?? false),
          sameConfig: isSelf ? true : (peer?.sameConfig ?? null),
        };
      }),
    };
  }

  /** HF-CLUSTER-010, -019, HF-API-007 where `replaces` is no node. */
  issueToken(ttlMs: number = tokenTtlMs, replaces: string | null = null): IssuedToken {
    const { agent, keys, tokens } = this.#options;
    this.#ca();
    const { config } = agent.cluster();
    if (replaces === agent.node) {
      throw new HoldfastError('HF-CLUSTER-018', { node: replaces, name: 'another server now' });
    }
    if (replaces !== null && !config.nodes.some((node) => node.name === replaces)) {
      throw new HoldfastError('HF-API-007', { node: replaces });
    }
    const token = tokens.issue(fingerprint(keys.caCert), ttlMs, replaces);
    return { token, expiresInMs: ttlMs, joinLine: joinLine(config, agent.node, this.#port, token) };
  }

  /**
   * Admits a server. All that can be checked is checked before the token is used up; from there on
   * only a full disk or a configuration that the agent refuses can fail it.
   */
  async join(request: JoinRequest): Promise<JoinAnswer> {
    const { agent, tokens, keys } = this.#options;
    const { secret, caFingerprint } = parseToken(request.token);
    const record = tokens.look(secret);
    const ca = this.#ca();
    if (!sameBytes(caFingerprint, fingerprint(keys.caCert))) {
      throw new HoldfastError('HF-CLUSTER-004', { node: agent.node });
    }
    await checkRequest(request.request, request.node);
    return await this.#exclusive(async () => {
      const { config } = agent.cluster();
      const next = withNode(config, agent.node, request, record.replaces);
      const xml = renderClusterXml(next.config);
      const refusal = parseClusterConfig(xml).errors[0];
      if (refusal !== undefined) throw refusal;
      tokens.use(secret);
      const cert = await signRequest(ca, request.request, request.node, next.addrs);
      await agent.applyCluster(xml);
      const pending = await this.#sendToAll(request.node);
      return { cert, secret: Buffer.from(keys.secret).toString('hex'), clusterXml: xml, pending };
    });
  }

  /**
   * Gives a machine the certificate of a witness. cluster.xml stays as it is: an operator says there
   * that mirrors go by this witness. HF-CLUSTER-004, -005, -007 to -010.
   */
  async admitWitness(request: WitnessRequest): Promise<WitnessAnswer> {
    const { agent, tokens, keys } = this.#options;
    const { name } = request;
    const { secret, caFingerprint } = parseToken(request.token);
    tokens.look(secret);
    const ca = this.#ca();
    if (!sameBytes(caFingerprint, fingerprint(keys.caCert))) {
      throw new HoldfastError('HF-CLUSTER-004', { node: agent.node });
    }
    await checkRequest(request.request, name, 'witness');
    const { nodes } = agent.cluster().config;
    if (nodes.some((node) => node.name.toLowerCase() === name.toLowerCase())) {
      throw new HoldfastError('HF-CLUSTER-009', { name });
    }
    tokens.use(secret);
    const cert = await signRequest(ca, request.request, name, request.addrs, 'witness');
    return { cert, clusterId: clusterKeys(keys.secret).clusterId };
  }

  /** Applies a cluster.xml here, or here and everywhere. HF-CLUSTER-010, HF-CONFIG-… */
  async apply(xml: string, scope: 'node' | 'cluster'): Promise<ClusterStatus> {
    if (scope === 'cluster') this.#ca();
    await this.#exclusive(async () => {
      await this.#options.agent.applyCluster(xml);
      if (scope === 'cluster') await this.#sendToAll(null);
    });
    return this.status();
  }

  /**
   * To be called when a peer shows its configuration's signature: the node with the CA's key sends
   * its own where they differ. Never rejects; a failure is repeated at the next occasion.
   */
  async onSignature(peer: NodeAddress, signature: string): Promise<void> {
    const { agent, ca } = this.#options;
    if (ca === null || signature === agent.cluster().config.signature) return;
    await this.#exclusive(() => this.#sendTo(peer)).catch(() => undefined);
  }

  #ca(): KeyPair {
    const { ca, agent } = this.#options;
    if (ca === null) throw new HoldfastError('HF-CLUSTER-010', { node: agent.node });
    return ca;
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  /** Sends the configuration in force to all others but one; returns those it did not reach. */
  async #sendToAll(except: string | null): Promise<string[]> {
    const { agent } = this.#options;
    const nodes = otherNodes(agent.cluster().config, agent.node).filter(
      (node) => node.name !== except,
    );
    const isSent = await Promise.all(nodes.map((node) => this.#sendTo(node)));
    return nodes.filter((_node, index) => !isSent[index]).map((node) => node.name);
  }

  async #sendTo(node: NodeAddress): Promise<boolean> {
    if (this.#sending.has(node.name)) return false;
    this.#sending.add(node.name);
    const client = connectNode(node, this.#options.keys, this.#port);
    try {
      await client.applyClusterXml(this.#options.agent.cluster().xml, 'node');
      return true;
    } catch {
      // It is told when it shows its signature the next time.
      return false;
    } finally {
      this.#sending.delete(node.name);
    }
  }
}

/** The command that lets a server join by way of `node`. */
export function joinLine(config: ClusterConfig, node: string, port: number, token: string): string {
  const id = config.nodes.find((at) => at.name === node)?.id;
  const lan = config.lans.find((at) => at.command) ?? config.lans[0];
  const addr = lan?.nodes.find((at) => at.node === id)?.addr ?? 'ADDR';
  return `holdfast cluster join ${hostPort(addr, port)} --token ${token}`;
}

/** The configuration with the joining server in it, last or in the place of the one it replaces. */
function withNode(
  config: ClusterConfig,
  me: string,
  request: JoinRequest,
  replaces: string | null,
): { readonly config: ClusterConfig; readonly addrs: readonly string[] } {
  const { node: name } = request;
  if (replaces !== null && replaces !== name) {
    throw new HoldfastError('HF-CLUSTER-018', { node: replaces, name });
  }
  const known = config.nodes.find((node) => node.name.toLowerCase() === name.toLowerCase());
  if (known !== undefined && known.name !== replaces) {
    throw new HoldfastError('HF-CLUSTER-009', { name: known.name });
  }
  if (known === undefined && config.nodes.length >= nodesMax) {
    throw new HoldfastError('HF-CLUSTER-011', { count: nodesMax });
  }
  const mine = config.nodes.find((node) => node.name === me)?.id;
  const id = known?.id ?? config.nodes.length;
  const addrs = new Map(config.lans.map((lan) => [lan.name, addressOn(lan, mine, request)]));
  const extra = request.lans.find((lan) => !addrs.has(lan.name));
  if (extra !== undefined) throw networks(`there is no network ${extra.name}`);
  const lans = config.lans.map((lan) => {
    const addr = addrs.get(lan.name) ?? '';
    const entry = { node: id, addr, laddr: addr };
    const isThere = lan.nodes.some((at) => at.node === id);
    return {
      ...lan,
      nodes: isThere ? lan.nodes.map((at) => (at.node === id ? entry : at)) : [...lan.nodes, entry],
    };
  });
  const nodes = known === undefined ? [...config.nodes, { id, name }] : config.nodes;
  return { config: { ...config, nodes, lans }, addrs: [...new Set(addrs.values())] };
}

/** The joining server's address on one network: the given one, or its only one in our subnet. */
function addressOn(lan: Lan, mine: number | undefined, request: JoinRequest): string {
  const given = request.lans.filter((at) => at.name === lan.name);
  if (given.length > 1) throw networks(`${lan.name} is given twice`);
  if (given[0] !== undefined) {
    if (isIP(given[0].addr) === 0) throw networks(`"${given[0].addr}" is no IP address`);
    return given[0].addr;
  }
  const own = lan.nodes.find((at) => at.node === mine)?.addr ?? '';
  const near = request.addrs.filter(({ addr, prefix }) => isSameSubnet(own, addr, prefix));
  const [first, second] = near;
  if (first === undefined) {
    throw networks(`none of its addresses is in the subnet of ${own} (network ${lan.name})`);
  }
  if (second !== undefined) {
    const both = `${first.addr} and ${second.addr}`;
    throw networks(`${both} are both in the subnet of ${own} (network ${lan.name})`);
  }
  return first.addr;
}

function isSameSubnet(own: string, addr: string, prefix: number): boolean {
  const family = isIPv6(addr) ? 'ipv6' : 'ipv4';
  if (isIP(own) === 0 || isIP(addr) !== isIP(own) || own === addr) return false;
  if (family === 'ipv4' && prefix > 32) return false;
  const subnet = new BlockList();
  subnet.addSubnet(addr, prefix, family);
  return subnet.check(own, family);
}

function networks(reason: string): HoldfastError {
  return new HoldfastError('HF-CLUSTER-012', { reason });
}
