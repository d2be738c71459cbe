/**
 * The leader's side of the farm: who follows, who may still own which bucket, when a view may be
 * issued. What the next view contains is made in farm-next.ts.
 */
import {
  type Bitmaps,
  bitOf,
  commonMaps,
  emptyMaps,
  exceptMaps,
  isEmpty,
  maskHas,
  ownedBy,
  sameMaps,
  unionMaps,
} from './bits.ts';
import { farmRules } from './farm-rules.ts';
import { openWitnessed, takeView } from './farm-member.ts';
import { inputsOf, membersNow, nextView, sameContent } from './farm-next.ts';
import {
  announcedName,
  type FarmState,
  type Follower,
  freshStatus,
  groupsOf,
  isAlive,
  isBetter,
  isBoth,
  isMember,
  type Lead,
  mayOpen,
  nameOf,
  nodeKeys,
  nobody,
  patienceBeats,
  type Peer,
  peerOf,
  record,
  retryMs,
  sameName,
  setLead,
  statusExpiryMs,
  withKey,
  withoutKey,
  type Work,
} from './farm-state.ts';
import type { StatusMessage, View } from './farm-types.ts';

/** Takes in who asked to follow, drops who went away, learns what each has installed. */
export function refreshFollowers(work: Work): void {
  if (work.lead === null) return;
  for (const node of work.others) {
    const peer = peerOf(work, node);
    const status = isAlive(peer, work.nowMs) && !peer.hung ? freshStatus(work, node) : null;
    const known = work.lead.followers[node];
    // One that was left out, and cannot say that it let go, is judged by its heartbeats alone.
    const inTouch = isBoth(peer) || isMember(work.view, node);
    const says = status?.running === true && status.follows === work.config.me;
    const wants = inTouch && says && !wentElsewhere(work, peer, status);
    const { follow } = peer;
    if (
      wants &&
      follow !== null &&
      follow.status.startedMs === status.startedMs &&
      follow.status.followMark === status.followMark
    ) {
      const same = known?.startedMs === status.startedMs && known.followMark === status.followMark;
      if (!same) admit(work, node);
      learnInstalled(work, node);
    } else if (known !== undefined) {
      setLead(work, { followers: withoutKey(work.lead.followers, node) });
      work.peers = withKey(work.peers, node, { ...peer, follow: null });
    }
  }
  dropDeadClaims(work);
}

/**
 * Heartbeats name a view of another leader, later than all that the peer's last status knew: it was
 * said before. (After a pause of this node its peers' statuses are as old as the pause.)
 */
function wentElsewhere(work: Work, peer: Peer, status: StatusMessage): boolean {
  const name = announcedName(peer);
  if (peer.viewMembers === 0n || status.installed === null) return false;
  return name.leader !== work.config.me && isBetter(name, status.installed);
}

function admit(work: Work, node: number): void {
  const { follow } = peerOf(work, node);
  const known = work.lead;
  if (follow === null || known === null) return;
  if (follow.view !== null && outdates(work, follow.view)) forgetAll(work, node);
  const lead = work.lead ?? known;
  const follower: Follower = {
    learned: null,
    learnedEpoch: 0,
    startedMs: follow.status.startedMs,
    followMark: follow.status.followMark,
    closeMark: follow.status.closeMark,
  };
  // What it was offered before and has not refused may still be on its way to it.
  const before = lead.claims[node];
  const claims = before === undefined ? follow.owned : unionMaps(follow.owned, before);
  const base =
    follow.view !== null && isBetter(follow.view, nameOf(lead.base)) ? follow.view : lead.base;
  setLead(work, {
    followers: withKey(lead.followers, node, follower),
    claims: withKey(lead.claims, node, claims),
    base,
  });
  work.epochMax = Math.max(work.epochMax, follow.status.epochMax, follow.view?.epoch ?? 0);
  hold(work, node, follow.sockets, follow.owned);
}

/**
 * A view of another leader, later than the own one and new to this node: while it led here, others
 * have led elsewhere, perhaps those it takes for its followers.
 */
function outdates(work: Work, view: View): boolean {
  const led = work.view?.leader === work.config.me;
  return led && view.leader !== work.config.me && isBetter(view, nameOf(baseOf(work)));
}

/** All but one have to say anew whom they follow and what they own; who still follows does at once. */
function forgetAll(work: Work, but: number): void {
  setLead(work, { followers: {}, claims: {} });
  const peers = { ...work.peers };
  for (const node of work.others) {
    const peer = peers[node];
    if (node !== but && peer !== undefined) peers[node] = { ...peer, follow: null };
  }
  work.peers = peers;
}

/** A newcomer's connections in buckets that others serve: they are its to finish. */
export function hold(work: Work, node: number, sockets: Bitmaps, owned: Bitmaps): void {
  const { lead } = work;
  if (lead === null) return;
  const foreign = exceptMaps(sockets, owned);
  const known = lead.holding[node];
  const maps = known === undefined ? foreign : unionMaps(known.maps, foreign);
  if (known !== undefined && sameMaps(known.maps, maps)) return;
  if (known === undefined && isEmpty(maps)) return;
  const epoch = known?.epoch ?? baseOf(work)?.epoch ?? 0;
  setLead(work, { holding: withKey(lead.holding, node, { maps, epoch, sinceMs: work.nowMs }) });
}

function learnInstalled(work: Work, node: number): void {
  const { lead, view } = work;
  const status = freshStatus(work, node);
  const follower = lead?.followers[node];
  if (lead === null || follower === undefined || status === null) return;
  const learnedEpoch = view?.epoch ?? 0;
  if (status === follower.learned && learnedEpoch === follower.learnedEpoch) return;
  const { closeMark } = status;
  const none = emptyMaps(groupsOf(work));
  const next = { ...follower, learned: status, learnedEpoch, closeMark };
  const followers = withKey(lead.followers, node, next);
  // A higher closeMark: it owns nothing, and no view made before can change that.
  const closed = closeMark > follower.closeMark;
  setLead(work, closed ? { followers, claims: withKey(lead.claims, node, none) } : { followers });
  if (view === null || view.leader !== work.config.me) return;
  if (!sameName(status.installed, nameOf(view))) return;
  const opened = (view.marks[node] ?? -1) >= status.closeMark;
  const exact = opened ? ownedBy(view.owners, node) : none;
  const { claims } = work.lead ?? lead;
  const known = claims[node];
  if (known !== undefined && sameMaps(known, exact)) return;
  setLead(work, { claims: withKey(claims, node, exact) });
}

/** A node that does not follow and that nobody hears serving owns nothing, whatever was known. */
function dropDeadClaims(work: Work): void {
  const open = openWitnessed(work);
  for (const node of nodeKeys(work.lead?.claims ?? {})) {
    if (work.lead === null || work.lead.followers[node] !== undefined) continue;
    if (maskHas(open, node)) continue;
    setLead(work, { claims: withoutKey(work.lead.claims, node) });
  }
}

/** The view that the next one is made from. */
export function baseOf(work: Work): View | null {
  const base = work.lead?.base ?? null;
  return base !== null && isBetter(base, nameOf(work.view)) ? base : work.view;
}

/**
 * Why no view may be issued now; null: it may. Every node within reach that may serve must follow,
 * or be held by one that does: otherwise it could act on a view of its own in the same moment.
 */
function refusalToIssue(work: Work): string | null {
  for (const node of work.others) {
    if (work.lead?.followers[node] !== undefined) continue;
    const peer = peerOf(work, node);
    if (isBoth(peer) && mayOpen(peer, work.nowMs)) {
      const status = freshStatus(work, node);
      const follows = status?.follows ?? nobody;
      if (follows !== nobody && follows !== work.config.me) {
        return `node ${node} follows node ${follows}`;
      }
      // One that speaks with us will choose soon: its agent was started again and still listens.
      const speaks = status !== null;
      if (speaks || work.nowMs - peer.reachMs < statusExpiryMs(work.config.timing)) {
        return `node ${node} has not yet answered`;
      }
      continue;
    }
    if (peer.hung || !maskHas(openWitnessed(work), node)) continue;
    // A follower may not have noticed yet that it is not heard any more, either.
    if (work.nowMs - peer.reachMs < farmRules.settleMs(work.config.timing)) {
      return `node ${node} was lost from sight only just now`;
    }
    const bit = bitOf(node);
    const heldBy = nodeKeys(work.lead?.followers ?? {}).some(
      (member) => ((freshStatus(work, member)?.both ?? 0n) & bit) !== 0n,
    );
    if (heldBy) continue;
    return peer.reach === 'silent'
      ? `node ${node} is out of reach, but others hear it`
      : `node ${node} is heard but does not hear this node`;
  }
  return null;
}

/** Members that are known to enforce an older view than the current one. */
export function behind(work: FarmState): number[] {
  const { view, lead } = work;
  if (view === null || lead === null || view.leader !== work.config.me) return [];
  return nodeKeys(lead.followers).filter(
    (node) => isMember(view, node) && !sameName(peerOf(work, node).status?.installed ?? null, view),
  );
}

export function patienceMs(work: FarmState): number {
  return patienceBeats * work.config.timing.heartbeatMs;
}

/** Issues the next view where one is due and nothing forbids it. */
export function leadViews(work: Work): void {
  if (work.lead === null || work.nowMs < work.listenUntilMs) return;
  const base = baseOf(work);
  const { members, cutMs } = membersNow(work, base);
  setLead(work, { cutMs });
  const current =
    base !== null && base.leader === work.config.me && base === work.view ? base : null;
  if (current?.members === members) {
    const inputs = inputsOf(work, members);
    if (inputs === work.lead.judged) return;
    // Moves go on when all have followed the last step, or one is slow about it.
    const slow = work.nowMs - work.lead.issuedMs >= patienceMs(work);
    if (!slow && behind(work).length > 0) return;
    const draft = nextView(work, base, members);
    if (sameContent(work, current, draft.view)) {
      setLead(work, { judged: inputs });
      refuse(work, null);
    } else if (allowedToIssue(work)) {
      issue(work, draft.view, draft.holding);
    }
    return;
  }
  if (!allowedToIssue(work)) return;
  const draft = nextView(work, base, members);
  issue(work, draft.view, draft.holding);
}

function allowedToIssue(work: Work): boolean {
  const refusal = refusalToIssue(work);
  refuse(work, refusal);
  return work.out.rules.mayIssue(refusal);
}

function refuse(work: Work, refusal: string | null): void {
  if (work.lead === null || work.lead.refusal === (refusal ?? '')) return;
  setLead(work, { refusal: refusal ?? '' });
  if (refusal !== null) {
    record(work, 'refusal', `not issuing a view because ${refusal}`, { epoch: work.epochMax });
  }
}

function issue(work: Work, view: View, holding: Lead['holding']): void {
  if (work.lead === null) return;
  const claims: Record<number, Bitmaps> = { ...work.lead.claims };
  for (const node of nodeKeys(work.lead.followers)) {
    if (!isMember(view, node)) continue;
    const given = ownedBy(view.owners, node);
    claims[node] = unionMaps(claims[node] ?? given, given);
  }
  const sentMs = 0;
  setLead(work, { claims, holding, base: null, issuedMs: work.nowMs, sentMs });
  takeView(work, view);
}

/** Sends the current view to the members that do not enforce it yet. */
export function tellView(work: Work): void {
  const { view, lead } = work;
  if (view === null || lead === null || view.leader !== work.config.me) return;
  if (work.nowMs - lead.sentMs < retryMs) return;
  const late = behind(work);
  if (late.length === 0) return;
  setLead(work, { sentMs: work.nowMs });
  for (const to of late)
    work.out.effects.push({ kind: 'send', to, message: { kind: 'view', view } });
}

/** A holder says in which buckets it still has connections. */
export function onReport(work: Work, node: number, epoch: number, sockets: Bitmaps): void {
  const { lead } = work;
  const holding = lead?.holding[node];
  if (lead === null || holding === undefined || sockets.length !== groupsOf(work)) return;
  if (!work.out.rules.reportCounts(epoch, holding.epoch)) return;
  const maps = commonMaps(holding.maps, sockets);
  if (sameMaps(maps, holding.maps)) return;
  const { [node]: _done, ...others } = lead.holding;
  setLead(work, { holding: isEmpty(maps) ? others : { ...others, [node]: { ...holding, maps } } });
}
