/**
 * The side of the farm that every node has: whose views it takes, when it must own nothing, what it
 * tells the others.
 */
import { bitOf, exceptMaps, isEmpty, maskHas, nodesOf, unionMaps } from './bits.ts';
import {
  announcedName,
  freshStatus,
  isAlive,
  isBetter,
  isBoth,
  isMember,
  isRunning,
  mayServe,
  nameOf,
  nextMark,
  nodeKeys,
  nobody,
  noMaps,
  oneWayBeats,
  ownHearing,
  peerOf,
  record,
  retryMs,
  sameName,
  statusMs,
  type FarmRole,
  type FarmState,
  type Holding,
  type Lead,
  type Work,
} from './farm-state.ts';
import type { Snapshot, StatusMessage, View, ViewName } from './farm-types.ts';

/** The one place that assigns the role. */
export function setRole(work: Work, to: FarmRole, why: string): void {
  const from = work.role;
  if (from === to) return;
  work.role = to;
  record(work, 'transition', `${from}->${to}: ${why}`, {
    from,
    to,
    why,
    epoch: work.view?.epoch ?? 0,
    leader: work.follows,
  });
}

/** Time in which agents that can reach each other are connected, on a machine under full load. */
const channelMs = 2000;

const noLead: Lead = {
  followers: {},
  claims: {},
  holding: {},
  cutMs: {},
  base: null,
  issuedMs: 0,
  sentMs: 0,
  refusal: '',
  version: 0,
  judged: '',
};

/** Follows the lowest node that it reaches both ways and that answers; itself where there is none. */
export function chooseLeader(work: Work): void {
  const { me } = work.config;
  if (!work.electable && work.nowMs >= work.listenUntilMs) {
    if (awaitsLower(work)) work.listenUntilMs = work.nowMs + work.config.timing.heartbeatMs;
    else work.electable = true;
  }
  const lower = work.others.find((node) => {
    if (node > me) return false;
    const status = isBoth(peerOf(work, node)) ? freshStatus(work, node) : null;
    return status !== null && status.running && status.electable;
  });
  const best = lower ?? (work.electable ? me : nobody);
  if (best === work.follows) return;
  work.follows = best;
  work.followMark = nextMark(work);
  work.followSentMs = 0;
  if (work.lead !== null) forgetFollows(work);
  work.lead = best === me ? newLead(work) : null;
}

/**
 * A lower node runs the module by its heartbeats, and its status is still on the way: agents connect
 * in some 100 ms, and a node that led in the meantime would only be left out by the lower one's view.
 */
function awaitsLower(work: Work): boolean {
  if (work.nowMs - work.startedMs >= channelMs) return false;
  return work.others.some((node) => {
    const peer = peerOf(work, node);
    return node < work.config.me && isBoth(peer) && isRunning(peer) && peer.status === null;
  });
}

/** What followers said they own is out of date once this node has led them and stopped. */
export function forgetFollows(work: Work): void {
  const peers = { ...work.peers };
  for (const node of work.others) {
    const peer = peers[node];
    if (peer !== undefined && peer.follow !== null) peers[node] = { ...peer, follow: null };
  }
  work.peers = peers;
}

/** A leader that issued the view in force itself still knows its holders by it. */
function newLead(work: Work): Lead {
  const { view } = work;
  if (view === null || view.leader !== work.config.me) return noLead;
  const holding: Record<number, Holding> = {};
  for (const [node, maps] of Object.entries(view.holders)) {
    holding[Number(node)] = { maps, epoch: view.epoch, sinceMs: work.nowMs };
  }
  return { ...noLead, holding };
}

/**
 * The best view that this node hears of and that shuts it out; null: none. A view without this node
 * does; so does a better one that includes it, when its own view is without the open node that
 * announces it: this node went its own way and is called back. A view of one that does not hear this
 * node comes first: that one cannot be told, so this node and whoever follows it must give way.
 */
function rivalHeard(work: Work, own: View): ViewName | null {
  const { me, timing } = work.config;
  let best: ViewName | null = null;
  let deaf: ViewName | null = null;
  for (const node of work.others) {
    const peer = peerOf(work, node);
    if (!isAlive(peer, work.nowMs) || peer.hung || !isRunning(peer)) continue;
    if (!maskHas(peer.viewMembers, node)) continue;
    const name = announcedName(peer);
    const without = !maskHas(peer.viewMembers, me);
    const left = !isMember(own, node) && mayServe(peer, work.nowMs);
    if (!without && !(left && isBetter(name, nameOf(own)))) continue;
    // A member that no longer hears us: our lease has lapsed by now. A stranger may be about to.
    const since = isMember(own, node) ? 0 : oneWayBeats * timing.heartbeatMs;
    const oneWay = peer.reach === 'heard' && work.nowMs - peer.reachMs >= since;
    if (!work.out.rules.excludes(name, own, oneWay)) continue;
    if (isBetter(name, best)) best = name;
    if (oneWay && isBetter(name, deaf)) deaf = name;
  }
  return deaf ?? best;
}

/**
 * What a rival does to one node it does to those who share its view: a leader is excluded with any
 * of its members, a follower with its leader. The way of the news is a star, so it cannot circle.
 */
function rivalToldOf(work: Work, own: View): ViewName | null {
  const { me } = work.config;
  if (work.lead === null) {
    const rival = freshStatus(work, work.follows)?.excludedBy ?? null;
    return rival?.leader === own.leader ? null : rival;
  }
  for (const node of Object.keys(work.lead.followers).map(Number)) {
    const status = freshStatus(work, node);
    const rival = status?.excludedBy ?? null;
    if (status === null || rival === null || rival.leader === me) continue;
    // One that does not share it may still hear that the own view was outdone.
    const shares = isMember(own, node) && sameName(status.installed, nameOf(own));
    if (shares || isBetter(rival, nameOf(own))) return rival;
  }
  return null;
}

/** Decides whether this node is left out, and whether it has stood long enough to own buckets. */
export function judgeStanding(work: Work): void {
  const { view } = work;
  if (view === null) {
    work.excludedBy = null;
    work.standsMs = null;
    work.settled = false;
    return;
  }
  work.excludedBy = rivalHeard(work, view) ?? rivalToldOf(work, view);
  if (work.excludedBy !== null) {
    work.standsMs = null;
    work.settled = false;
    return;
  }
  if (work.settled) return;
  // Its claim is announced for as long as another needs to notice, before it answers any client.
  if (work.stands === null || (openWitnessed(work) & ~view.members) !== 0n) {
    work.standsMs = null;
    return;
  }
  work.standsMs ??= work.nowMs;
  if (work.nowMs - work.standsMs >= work.out.rules.settleMs(work.config.timing))
    work.settled = true;
}

/** Nodes that may serve, as this node or any that it can speak with hears them. */
export function openWitnessed(work: Work): bigint {
  let open = ownHearing(work).open;
  for (const node of work.others) {
    const speaks = isBoth(peerOf(work, node)) || work.lead?.followers[node] !== undefined;
    if (speaks) open |= freshStatus(work, node)?.open ?? 0n;
  }
  return open & ~bitOf(work.config.me);
}

export function refreshRole(work: Work): void {
  if (work.role === 'stopped') return;
  const { view, follows } = work;
  const rival = work.excludedBy;
  if (rival !== null) {
    setRole(work, 'excluded', `view ${rival.epoch} of node ${rival.leader} is without this node`);
  } else if (follows === work.config.me) {
    setRole(work, 'leading', 'lowest node in reach');
  } else if (follows !== nobody) {
    setRole(work, 'following', `node ${follows} is the lowest in reach`);
  } else {
    setRole(work, 'listening', view === null ? 'started' : 'its leader is gone');
  }
}

/** A view from the node that this one follows. */
export function onView(work: Work, from: number, view: View): void {
  work.epochMax = Math.max(work.epochMax, view.epoch);
  if (from !== work.follows || view.leader !== from || !isMember(view, work.config.me)) return;
  if (!work.out.rules.mayAdopt(work, view)) return;
  takeView(work, view);
}

export function takeView(work: Work, view: View): void {
  const before = work.view;
  work.view = view;
  work.epochMax = Math.max(work.epochMax, view.epoch);
  record(work, 'view', `view ${view.epoch} of node ${view.leader}`, {
    epoch: view.epoch,
    leader: view.leader,
    members: view.members,
  });
  const gone = before === null ? nobody : departed(before, view, work.config.me);
  if (gone !== nobody) work.out.effects.push({ kind: 'gratuitous', gone });
}

/**
 * A node of `before` that answers no client any more, where it falls to this one, the lowest owner,
 * to tell the neighbours so; else nobody. They may have been sending to it: in vmac_directed a
 * server that leaves forwards only as long as its filter is there.
 */
function departed(before: View, view: View, me: number): number {
  const owns = (of: View, node: number) => of.owners.some((owner) => owner.includes(node));
  if (nodesOf(view.members).find((node) => owns(view, node)) !== me) return nobody;
  const gone = (node: number) => !isMember(view, node) || (owns(before, node) && !owns(view, node));
  return nodesOf(before.members).find(gone) ?? nobody;
}

/** Ends a closing whose table the filter enforces by now. */
export function finishClosing(work: Work): void {
  if (!work.closing || work.installDone !== work.install) return;
  work.closing = false;
  work.closeMark = nextMark(work);
  work.out.effects.push({ kind: 'count' });
}

/** Connections in buckets that it neither owns nor holds: they are from a life apart. */
export function strays(work: Work): boolean {
  return !isEmpty(exceptMaps(work.sockets, unionMaps(work.owned, work.held)));
}

export function statusOf(work: Work): StatusMessage {
  const { me } = work.config;
  const followers: Record<number, number> = {};
  for (const [node, follower] of Object.entries(work.lead?.followers ?? {})) {
    followers[Number(node)] = follower.followMark;
  }
  const running = work.role !== 'stopped' || work.installDone !== work.install;
  return {
    kind: 'status',
    startedMs: work.startedMs,
    seq: work.seq,
    running,
    electable: work.electable && work.role !== 'stopped',
    ready: work.ready && work.settled && work.excludedBy === null,
    draining: work.draining,
    powers: work.powers,
    follows: work.role === 'stopped' ? nobody : work.follows,
    followers,
    ...ownHearing(work),
    // A follower's own hearing only: told by the leader, it would come back to it as news.
    excludedBy:
      work.view === null
        ? null
        : work.follows === me
          ? work.excludedBy
          : rivalHeard(work, work.view),
    epochMax: work.epochMax,
    installed: work.installed,
    followMark: work.followMark,
    closeMark: work.closeMark,
  };
}

/** Does it say the same in all that every peer should know at once? */
function sameNews(a: StatusMessage, b: StatusMessage): boolean {
  return (
    a.heard === b.heard &&
    a.both === b.both &&
    a.open === b.open &&
    a.running === b.running &&
    a.electable === b.electable &&
    a.ready === b.ready &&
    a.draining === b.draining &&
    a.follows === b.follows &&
    a.followMark === b.followMark &&
    a.closeMark === b.closeMark &&
    sameName(a.excludedBy, b.excludedBy) &&
    a.powers.every((power, g) => power === b.powers[g]) &&
    sameFollowers(a.followers, b.followers)
  );
}

function sameFollowers(a: StatusMessage['followers'], b: StatusMessage['followers']): boolean {
  const nodes = nodeKeys(a);
  return nodes.length === nodeKeys(b).length && nodes.every((node) => a[node] === b[node]);
}

/** Sends what changed to whom it concerns, and everything once in a while. */
export function tellStatus(work: Work): void {
  const status = statusOf(work);
  const { told } = work;
  const all = told === null || !sameNews(status, told) || work.nowMs - work.toldMs >= statusMs;
  // What is installed concerns the leader only: it waits for it.
  const leader = work.follows !== work.config.me ? work.follows : nobody;
  if (!all && (leader === nobody || sameName(status.installed, told.installed))) return;
  work.seq++;
  const message = { ...status, seq: work.seq };
  work.told = message;
  if (all) work.toldMs = work.nowMs;
  for (const node of all ? work.others : [leader]) {
    const peer = peerOf(work, node);
    if (isBoth(peer) && isRunning(peer)) {
      work.out.effects.push({ kind: 'send', to: node, message });
    }
  }
}

/** Tells the leader that this node takes its views, until the leader says that it knows. */
export function tellFollow(work: Work): void {
  const { follows } = work;
  if (follows === work.config.me || follows === nobody || work.role === 'stopped') return;
  const known = peerOf(work, follows).status?.followers[work.config.me] === work.followMark;
  if (known || work.nowMs - work.followSentMs < retryMs) return;
  work.followSentMs = work.nowMs;
  work.seq++;
  work.out.effects.push({
    kind: 'send',
    to: follows,
    message: {
      kind: 'follow',
      status: { ...statusOf(work), seq: work.seq },
      owned: work.owned,
      // The newest walk may be older than what it gave up since.
      sockets: unionMaps(work.sockets, work.held),
      view: work.view,
    },
  });
}

/** A holder reports, with a walk over its sockets that began well after it gave the buckets up. */
export function reportable(work: Work, beganMs: number): boolean {
  return (
    work.view !== null &&
    sameName(work.installed, nameOf(work.view)) &&
    work.installDone === work.install &&
    work.out.rules.walkCounts(beganMs, work.installedMs) &&
    work.held.some((map) => map.some((byte) => byte !== 0))
  );
}

export function snapshotOf(work: FarmState): Snapshot {
  return {
    view: work.view,
    epochMax: work.epochMax,
    mark: work.mark,
    closeMark: work.closeMark,
    owned: work.owned,
    powers: work.powers,
    draining: work.draining,
  };
}

/** This node as a stopped module leaves it. */
export function leaveFarm(work: Work): void {
  work.follows = nobody;
  work.lead = null;
  forgetFollows(work);
  work.electable = false;
  work.settled = false;
  work.standsMs = null;
  work.excludedBy = null;
  work.sockets = noMaps(work);
}
