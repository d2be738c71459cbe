/** The contents of the next view: members, owners and holders from all that the leader knows. */
import {
  type Bitmaps,
  bitOf,
  emptyMaps,
  exceptMaps,
  isEmpty,
  maskHas,
  maskOf,
  nodesOf,
  ownerMaps,
  sameBytes,
  sameMaps,
  unionMaps,
} from './bits.ts';
import { openWitnessed } from './farm-member.ts';
import {
  freshStatus,
  groupsOf,
  type Holding,
  isMember,
  nameOf,
  nodeKeys,
  nobody,
  peerOf,
  sameName,
  type Work,
} from './farm-state.ts';
import { bitmapBytes, bucketCount, type View } from './farm-types.ts';
import type { Weight } from './table.ts';

/**
 * The members: lowest id first, every follower that this node and all members so far reach both
 * ways. One that no longer fits but lives stays for `suspect`: a few lost heartbeats move nothing.
 */
export function membersNow(
  work: Work,
  base: View | null,
): { members: bigint; cutMs: Record<number, number> } {
  const { me } = work.config;
  let members = bitOf(me);
  const cutMs: Record<number, number> = {};
  for (const node of work.others) {
    // A lower node leads or is left out: the leader is always the lowest member.
    if (node < me) continue;
    if (reachedByAll(work, node, members & ~bitOf(me))) {
      members |= bitOf(node);
      continue;
    }
    if (!isMember(base, node) || !mayCome(work, node)) continue;
    const since = work.lead?.cutMs[node] ?? work.nowMs;
    cutMs[node] = since;
    if (work.nowMs - since < work.config.timing.suspectMs) members |= bitOf(node);
  }
  return { members, cutMs };
}

function reachedByAll(work: Work, node: number, others: bigint): boolean {
  const status = freshStatus(work, node);
  if (work.lead?.followers[node] === undefined || status === null) return false;
  if (!work.out.rules.mayInclude(peerOf(work, node))) return false;
  if ((status.both & others) !== others) return false;
  return nodesOf(others).every((other) => maskHas(freshStatus(work, other)?.both ?? 0n, node));
}

/** A member out of reach of some, or whose agent has just restarted, that has not gone elsewhere. */
function mayCome(work: Work, node: number): boolean {
  const peer = peerOf(work, node);
  const status = freshStatus(work, node);
  if (status === null || !status.running || peer.hung || work.nowMs < peer.lapseMs) return false;
  return status.follows === work.config.me || status.follows === nobody;
}

function weightsOf(work: Work, members: bigint, group: number): Weight[] {
  const { me } = work.config;
  return nodesOf(members).map((node) => {
    const status = node === me ? null : freshStatus(work, node);
    const serves =
      node === me
        ? work.ready && work.settled && work.excludedBy === null && !work.draining
        : status !== null && status.ready && !status.draining;
    const set = node === me ? work.powers[group] : status?.powers[group];
    const power = set ?? work.config.groups[group]?.powers[node] ?? 0;
    return { node, power: serves ? power : 0 };
  });
}

/** Buckets that a node may own now, by the leader's knowledge. null: every one of them. */
function claimsOf(work: Work, node: number, open: bigint): Bitmaps | null {
  const { lead } = work;
  if (node === work.config.me) return work.owned;
  const known = lead?.claims[node];
  if (lead?.followers[node] !== undefined) return known ?? null;
  if (!maskHas(open, node)) return emptyMaps(groupsOf(work));
  return known ?? null;
}

/** Of one group: buckets that any node may own, and those that more than one may. */
function unionOf(
  claims: ReadonlyMap<number, Bitmaps | null>,
  group: number,
): { any: Uint8Array; twice: Uint8Array } {
  const any = new Uint8Array(bitmapBytes);
  const twice = new Uint8Array(bitmapBytes);
  for (const maps of claims.values()) {
    const map = maps?.[group];
    for (let i = 0; i < bitmapBytes; i++) {
      const byte = map === undefined ? 255 : (map[i] ?? 0);
      twice[i] = (twice[i] ?? 0) | ((any[i] ?? 0) & byte);
      any[i] = (any[i] ?? 0) | byte;
    }
  }
  return { any, twice };
}

/** Everything that nextView is made from, as one string: unchanged means that it would be, too. */
export function inputsOf(work: Work, members: bigint): string {
  const parts: unknown[] = [work.view?.epoch, members, openWitnessed(work), work.lead?.version];
  parts.push(work.install, work.installDone, work.closeMark, work.epochMax);
  for (let g = 0; g < groupsOf(work); g++) {
    for (const { power } of weightsOf(work, members, g)) parts.push(power);
  }
  for (const node of nodesOf(members)) {
    const follower = work.lead?.followers[node];
    const holding = work.lead?.holding[node];
    parts.push(follower?.followMark, follower?.closeMark, isCurrent(work, node));
    if (holding === undefined) continue;
    parts.push(work.nowMs - holding.sinceMs < work.config.timing.drainTimeoutMs);
  }
  return parts.join(' ');
}

function isCurrent(work: Work, node: number): boolean {
  return sameName(peerOf(work, node).status?.installed ?? null, nameOf(work.view));
}

interface Draft {
  readonly view: View;
  readonly holding: Readonly<Record<number, Holding>>;
}

/** The view that should be in force now; the leader compares it with the one that is. */
export function nextView(work: Work, base: View | null, members: bigint): Draft {
  const { me } = work.config;
  const groups = groupsOf(work);
  const open = openWitnessed(work);
  const claims = new Map(work.config.nodes.map((node) => [node, claimsOf(work, node, open)]));
  const epoch = work.epochMax + 1;
  // A view that leaves somebody out takes nothing from the others: each may name it at once.
  const shrinks = base !== null && (base.members & ~members) !== 0n;
  const powers: Record<number, number>[] = [];
  const owners: Uint8Array[] = [];
  for (let g = 0; g < groups; g++) {
    const weights = weightsOf(work, members, g);
    powers.push(Object.fromEntries(weights.map(({ node, power }) => [node, power])));
    const previous = base?.owners[g] ?? new Uint8Array(bucketCount).fill(nobody);
    const target = work.out.rules.table(weights, previous);
    const keeps = shrinks ? serving(weights) : 0n;
    owners.push(allowed(work, { previous, target, claims, group: g, keeps }));
  }
  const given = ownerMaps(owners);
  // A follower that is left out for a moment may come back as it went: it holds what it held.
  const followers = maskOf(nodeKeys(work.lead?.followers ?? {}));
  const holding = holdingNow(work, base, members | followers, { owners, given, claims });
  const holders: Record<number, readonly Uint8Array[]> = {};
  for (const node of nodeKeys(holding)) {
    if (!maskHas(members, node)) continue;
    const maps = exceptMaps(holding[node]?.maps ?? [], given.get(node) ?? []);
    if (!isEmpty(maps)) holders[node] = maps;
  }
  const marks: Record<number, number> = {};
  for (const node of nodesOf(members))
    marks[node] = node === me ? ownMark(work) : markOf(work, node);
  return { view: { epoch, leader: me, members, owners, holders, marks, powers }, holding };
}

function ownMark(work: Work): number {
  return Math.max(work.followMark, work.closeMark);
}

function markOf(work: Work, node: number): number {
  const follower = work.lead?.followers[node];
  return follower === undefined ? -1 : Math.max(follower.followMark, follower.closeMark);
}

function serving(weights: readonly Weight[]): bigint {
  return maskOf(weights.filter(({ power }) => power > 0).map(({ node }) => node));
}

interface Change {
  readonly previous: Uint8Array;
  readonly target: Uint8Array;
  readonly claims: ReadonlyMap<number, Bitmaps | null>;
  readonly group: number;
  /** Nodes that give up nothing in this view. */
  readonly keeps: bigint;
}

/** The target, but nobody in each bucket that its new owner must not have yet. */
function allowed(work: Work, change: Change): Uint8Array {
  const owners = kept(change);
  const { any, twice } = unionOf(change.claims, change.group);
  let result = owners;
  for (const [to, maps] of ownerMaps([owners])) {
    const given = maps[0];
    const own = change.claims.get(to);
    for (let i = 0; i < bitmapBytes; i++) {
      const byte = own === null ? 255 : (own?.[change.group]?.[i] ?? 0);
      // Claimed by another: by two at least, or by one that is not its owner to be.
      const others = (given?.[i] ?? 0) & ((twice[i] ?? 0) | ((any[i] ?? 0) & ~byte));
      for (let b = i * 8; others >> (b - i * 8) !== 0; b++) {
        if (((others >> (b & 7)) & 1) === 0) continue;
        // It may have closed since, and another opened: then it is not its own any more. Where both
        // are open it is kept, as this view is what makes the other one give way.
        const stays = change.previous[b] === to && ((byte >> (b & 7)) & 1) === 1;
        if (stays || work.out.rules.mayTake(true)) continue;
        if (result === owners) result = owners.slice();
        result[b] = nobody;
      }
    }
  }
  return result;
}

/** The target, with what the nodes that give up nothing have already. */
function kept({ previous, target, keeps }: Change): Uint8Array {
  if (keeps === 0n || target === previous) return target;
  const owners = target.slice();
  for (let b = 0; b < bucketCount; b++) {
    const from = previous[b] ?? nobody;
    if (from !== target[b] && from !== nobody && maskHas(keeps, from)) owners[b] = from;
  }
  return owners;
}

/** A new leader takes over what the last view of another said of holders. */
function knownHolding(work: Work, base: View | null, node: number): Holding | null {
  const known = work.lead?.holding[node] ?? null;
  const told = base?.holders[node];
  if (told === undefined || base === null || base.leader === work.config.me) return known;
  const maps = known === null ? told : unionMaps(known.maps, told);
  return { maps, epoch: base.epoch, sinceMs: known?.sinceMs ?? work.nowMs };
}

/** Who may hold connections where, with what this view takes away from its owners. */
function holdingNow(
  work: Work,
  base: View | null,
  nodes: bigint,
  next: {
    readonly owners: readonly Uint8Array[];
    readonly given: ReadonlyMap<number, Bitmaps>;
    readonly claims: ReadonlyMap<number, Bitmaps | null>;
  },
): Record<number, Holding> {
  const result: Record<number, Holding> = {};
  const none = emptyMaps(groupsOf(work));
  const { owners, given: after, claims } = next;
  const moved = base?.owners.some((owner, g) => !sameBytes(owner, owners[g])) === true;
  const before = moved ? ownerMaps(base.owners) : after;
  for (const node of nodesOf(nodes)) {
    const known = knownHolding(work, base, node);
    const fresh = known !== null && work.nowMs - known.sinceMs < work.config.timing.drainTimeoutMs;
    const live = fresh ? known : null;
    const had = unionMaps(before.get(node) ?? none, claims.get(node) ?? none);
    const lost = exceptMaps(had, after.get(node) ?? none);
    const gained = !isEmpty(exceptMaps(lost, live?.maps ?? none));
    if (gained) {
      const maps = unionMaps(live?.maps ?? none, lost);
      result[node] = { maps, epoch: work.epochMax + 1, sinceMs: work.nowMs };
    } else if (live !== null) {
      result[node] = live;
    }
  }
  return result;
}

/** Would the new view change anything for anyone? */
export function sameContent(work: Work, current: View, next: View): boolean {
  if (current.members !== next.members) return false;
  if (current.owners.some((owner, g) => !sameBytes(owner, next.owners[g]))) return false;
  const holders = new Set([...nodeKeys(current.holders), ...nodeKeys(next.holders)]);
  for (const node of holders) {
    const none = emptyMaps(groupsOf(work));
    if (!sameMaps(current.holders[node] ?? none, next.holders[node] ?? none)) return false;
  }
  return nodesOf(next.members).every((node) => !isVoid(work, current, next, node));
}

/** Does a member need a view only because the current one opens nothing for it any more? */
function isVoid(work: Work, current: View, next: View, node: number): boolean {
  const mark = current.marks[node] ?? -1;
  const follower = work.lead?.followers[node];
  const closeMark = node === work.config.me ? work.closeMark : (follower?.closeMark ?? -1);
  if (closeMark > mark && next.owners.some((owner) => owner.includes(node))) return true;
  if (follower === undefined || follower.followMark <= mark) return false;
  return !isCurrent(work, node);
}
