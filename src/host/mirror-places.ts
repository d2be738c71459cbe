/** Which servers a mirror has, and where each is reached, as one of them sees it. */
import type { ClusterConfig, LanNode, ModuleConfig, RfsConfig } from '../config/model.ts';

/** Where a server gives and takes changes of a mirror. */
export interface Places {
  /** Own address, on which a secondary waits for its primary. */
  readonly listen: string;
  /** The server whose copy synced writes of a primary here wait for. */
  readonly peer: string;
  /** What a primary here feeds beside it, in the engine's order. */
  readonly distant: readonly string[];
}

/** Ids of all servers that a mirror has: its two, then those of the distant copies. */
export function serversOf({ rfs }: ModuleConfig): readonly number[] {
  return rfs === null ? [] : [...rfs.nodes, ...rfs.distant.map(({ node }) => node)];
}

/** Is the copy of this server a distant one? */
export function isDistant({ rfs }: ModuleConfig, me: number): boolean {
  return rfs?.distant.some(({ node }) => node === me) ?? false;
}

/**
 * Ids of the distant copies that a primary on this server has, in the engine's order. After a
 * disaster it is the far server that is primary: the mirror's first server is its peer then, and
 * the second one a distant copy.
 */
export function distantOf(config: ModuleConfig, me: number): readonly number[] {
  const { rfs } = config;
  if (rfs === null) return [];
  return isDistant(config, me) ? rfs.nodes.slice(1) : rfs.distant.map(({ node }) => node);
}

/**
 * `primary`: the server that is known to be primary now, or null. A secondary of a distant copy's
 * server waits for it on the network on which that one is. Null where this server has no part in
 * the mirror, or cluster.xml does not say where the others are.
 */
export function placesOf(
  config: ModuleConfig,
  cluster: ClusterConfig,
  me: number,
  primary: number | null,
): Places | null {
  const { rfs } = config;
  if (rfs === null || !serversOf(config).includes(me)) return null;
  const at = (lan: string, node: number): LanNode | undefined =>
    cluster.lans.find(({ name }) => name === lan)?.nodes.find((one) => one.node === node);
  const own = lanOf(rfs, me);
  const [first = -1] = rfs.nodes.filter((node) => node !== me);
  const isFed = primary !== null && !isDistant(config, me);
  const listen = at(isFed ? lanOf(rfs, primary, own) : own, me);
  const peer = at(own, first);
  const distant = distantOf(config, me).map((node) => at(lanOf(rfs, node, own), node));
  if (listen === undefined || peer === undefined) return null;
  const known = distant.flatMap((place) => place?.addr ?? []);
  if (known.length < distant.length) return null;
  return { listen: listen.laddr, peer: peer.addr, distant: known };
}

/** Network on which a server takes part; `other` where it is one of the mirror's two. */
function lanOf(rfs: RfsConfig, node: number, other = rfs.lan): string {
  return rfs.distant.find((one) => one.node === node)?.lan ?? other;
}
