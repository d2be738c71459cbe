/**
 * The membership of a farm: which servers are in, and which bucket of clients each one answers.
 * One machine per farm module and node; pure: (state, event) -> [state, effects].
 *
 *                start                  no lower node in reach
 *     stopped ----------> listening ----------------------------> leading
 *        ^                    |                                   ^     |
 *        | stop               | a lower node answers              |     |
 *        |                    v                                   |     |
 *     (any role)          following <-----------------------------+-----+
 *                             |    ^
 *   a rival view without this |    | the rival gives way, or this node's
 *   node is announced         v    | view is the better one again
 *                          excluded        (also from and to leading)
 *
 * How it works. A node follows the lowest node that it reaches both ways, and tells it what its
 * filter owns. The leader issues numbered views: members, owner of each bucket, holders. A planned
 * move takes two views: the first gives the bucket to nobody, its loser holds on to its
 * connections; the second, made when the loser's filter is known to have let go, gives it to the
 * gainer, which stays quiet for flows that it does not know. The buckets of a dead node move in one.
 *
 * Invariants (src/sim checks them after every event):
 *  1. At most one node accepts new clients of a bucket, among nodes that hear of each other.
 *  2. What a filter may own is always within the claims that its leader knows of.
 *  3. A leader gives a bucket to a node only when no other node may own it: it acknowledged a view
 *     without it, closed by itself (closeMark), is dead by everybody's hearing, or its lease lapsed.
 *  4. A leader issues nothing while a node that may serve is within reach and follows another.
 *  5. A node's view only gets better: (epoch, then the lower leader). A name is never used twice.
 *  6. A node that is left out by a view it hears of owns nothing, and then nothing again before its
 *     claim was announced for `suspect`.
 *  7. A holder is forgotten only when it saw no connection after it let go, died, or timed out.
 *
 * farm-types.ts: words. farm-state.ts: memory. farm-rules.ts: the guards. farm-member.ts: whom to
 * follow, when to own nothing. farm-lead.ts: claims, issuing. farm-next.ts: the next view.
 * farm-table.ts: view -> filter. farm-status.ts: what to show. docs/internals/farm-core.md: why.
 */
import {
  behind,
  hold,
  leadViews,
  onReport,
  patienceMs,
  refreshFollowers,
  tellView,
} from './farm-lead.ts';
import {
  chooseLeader,
  finishClosing,
  forgetFollows,
  judgeStanding,
  leaveFarm,
  onView,
  refreshRole,
  reportable,
  setRole,
  snapshotOf,
  strays,
  tellFollow,
  tellStatus,
} from './farm-member.ts';
import { farmRules, type FarmRules } from './farm-rules.ts';
import {
  type FarmState,
  groupsOf,
  isBoth,
  isRunning,
  nobody,
  nextMark,
  noMaps,
  nodeKeys,
  oneWayBeats,
  type Peer,
  peerOf,
  record,
  retryMs,
  statusExpiryMs,
  statusMs,
  withKey,
  type Work,
} from './farm-state.ts';
import { onInstalled, refreshAnnouncement, refreshTable, standFor } from './farm-table.ts';
import {
  bitmapBytes,
  type FarmConfig,
  type FarmEffect,
  type FarmEvent,
  type Message,
  type Snapshot,
  type StatusMessage,
  summaryFlag,
} from './farm-types.ts';

export type * from './farm-types.ts';
export { bucketCount, nobody, summaryFlag, tableFlag } from './farm-types.ts';
export type { FarmRole, FarmState } from './farm-state.ts';

/** A farm module that does not run here. */
export function farmInit(config: FarmConfig): FarmState {
  const none = noMaps({ config });
  const nodes = [...config.nodes].sort((a, b) => a - b);
  return {
    out: null,
    config: { ...config, nodes },
    others: nodes.filter((node) => node !== config.me),
    nowMs: 0,
    role: 'stopped',
    startedMs: 0,
    seq: 0,
    electable: false,
    listenUntilMs: 0,
    ready: false,
    draining: false,
    powers: config.groups.map(() => null),
    peers: {},
    epochMax: 0,
    mark: 0,
    followMark: 0,
    closeMark: 0,
    follows: nobody,
    followSentMs: 0,
    view: null,
    standsMs: null,
    settled: false,
    excludedBy: null,
    install: 0,
    installDone: 0,
    installedMs: 0,
    installed: null,
    stands: null,
    owned: none,
    wanted: none,
    held: none,
    sockets: none,
    closing: false,
    lead: null,
    announced: null,
    compiled: '',
    told: null,
    toldMs: 0,
  };
}

/**
 * One event. The effects are to be performed in order. `rules` is for the simulator's planted bugs.
 */
export function farmStep(
  state: FarmState,
  event: FarmEvent,
  rules: FarmRules = farmRules,
): readonly [FarmState, readonly FarmEffect[]] {
  const nowMs = Math.max(state.nowMs, event.nowMs);
  const out: Work['out'] = { effects: [], rules, hearing: null };
  const work = { ...state, nowMs, out };
  const before = work.view;
  const closeMark = work.closeMark;
  perform(work, event);
  out.hearing = null;
  if (work.startedMs > 0) settle(work, before, closeMark);
  // Without a copy: the object is the new state from here on, and nobody else's.
  const next: { out: unknown } & typeof work = Object.assign(work, { out: null });
  return [next, out.effects];
}

/** Everything that follows from the changed state, in the order that the effects need. */
function settle(work: Work, before: FarmState['view'], closeMark: number): void {
  const ahead = work.out.effects;
  work.out.effects = [];
  if (work.role !== 'stopped') {
    chooseLeader(work);
    refreshFollowers(work);
    judgeStanding(work);
    leadViews(work);
    judgeStanding(work);
    refreshRole(work);
  }
  const records = work.out.effects;
  work.out.effects = [];
  const install = refreshTable(work);
  finishClosing(work);
  if (work.view !== before || work.closeMark !== closeMark) {
    work.out.effects.push({ kind: 'persist', snapshot: snapshotOf(work) });
  }
  refreshAnnouncement(work);
  if (install !== null) work.out.effects.push(install);
  tellStatus(work);
  tellFollow(work);
  tellView(work);
  work.out.effects = [...ahead, ...records, ...work.out.effects];
}

function perform(work: Work, event: FarmEvent): void {
  switch (event.kind) {
    case 'start':
      return onStart(work, event);
    case 'stop':
      return onStop(work);
    case 'peer':
      return onPeer(work, event);
    case 'summary':
      return onSummary(work, event);
    case 'message':
      return onMessage(work, event.from, event.message);
    case 'ready':
      work.ready = event.on;
      return;
    case 'drain':
      work.draining = event.on;
      return;
    case 'power':
      work.powers = work.powers.map((power, g) =>
        event.group === null || event.group === g ? event.power : power,
      );
      return;
    case 'installed':
      return onInstalled(work, event.install);
    case 'sockets':
      return onSockets(work, event.groups, event.beganMs);
    case 'lapsed':
      return onLapsed(work);
    case 'news':
      for (const news of event.news) perform(work, { ...news, nowMs: event.nowMs });
      return;
    case 'tick':
      return;
  }
}

function onStart(work: Work, event: FarmEvent & { readonly kind: 'start' }): void {
  if (work.role !== 'stopped') return;
  const { adopt } = event;
  const { timing } = work.config;
  work.startedMs = Math.max(1, event.nowMs);
  work.ready = event.ready;
  work.listenUntilMs = work.nowMs + timing.suspectMs + timing.heartbeatMs;
  work.epochMax = Math.max(work.epochMax, event.epochMax, adopt?.epochMax ?? 0);
  work.mark = Math.max(work.mark, adopt?.mark ?? 0);
  work.compiled = '';
  work.announced = null;
  work.told = null;
  work.view = null;
  work.installed = null;
  work.stands = null;
  work.closing = false;
  if (adopt !== null && adopt.view !== null && adopt.owned.length === groupsOf(work)) {
    // The table in the kernel goes on serving; it is only installed again, the same.
    work.view = adopt.view;
    work.stands = standFor(adopt.view);
    work.closeMark = adopt.closeMark;
    work.owned = adopt.owned;
    work.settled = true;
    // Who led goes on leading, so that nobody changes sides for a restart.
    work.electable = adopt.view.leader === work.config.me;
  }
  work.powers = adopt?.powers.length === groupsOf(work) ? adopt.powers : work.powers;
  work.draining = adopt?.draining ?? false;
  setRole(work, 'listening', adopt === null ? 'started' : 'took over from the agent before');
}

function onStop(work: Work): void {
  if (work.role === 'stopped') return;
  leaveFarm(work);
  setRole(work, 'stopped', 'stopped');
}

function onPeer(work: Work, event: FarmEvent & { readonly kind: 'peer' }): void {
  if (event.node === work.config.me || !work.config.nodes.includes(event.node)) return;
  const old = peerOf(work, event.node);
  const lapse = work.nowMs + work.out.rules.lapseAfterMs(work.config.timing);
  const reborn = old.boot !== 0n && event.boot !== old.boot;
  let peer: Peer = {
    ...old,
    reach: event.reach,
    reachMs: event.reach === old.reach ? old.reachMs : work.nowMs,
    boot: event.boot,
    hung: event.hung,
    lapseMs: reborn || (event.hung && !old.hung) ? lapse : old.lapseMs,
  };
  // Its module summary is of the new boot already: heartbeats bring that event first.
  if (reborn) peer = { ...peer, status: null, follow: null };
  work.peers = withKey(work.peers, event.node, peer);
  // Perhaps this node is deaf: whoever hears its claim needs time to see that it is not heard.
  if (isRunning(peer) && isBoth(old) && !isBoth(peer)) work.standsMs = null;
  // It may know nothing of this node: tell it afresh.
  if (isBoth(peer) && (!isBoth(old) || reborn)) work.told = null;
}

function onSummary(work: Work, event: FarmEvent & { readonly kind: 'summary' }): void {
  if (event.node === work.config.me || !work.config.nodes.includes(event.node)) return;
  const old = peerOf(work, event.node);
  const ended = isRunning(old) && (event.flags & summaryFlag.running) === 0;
  // It ended without a word that its filter is shut: its lease is still good for a moment.
  const abrupt = ended && (old.flags & summaryFlag.open) !== 0;
  const peer: Peer = {
    ...old,
    flags: event.flags,
    viewEpoch: event.viewEpoch,
    viewMembers: event.viewMembers,
    lapseMs: abrupt ? work.nowMs + work.out.rules.lapseAfterMs(work.config.timing) : old.lapseMs,
  };
  work.peers = withKey(work.peers, event.node, peer);
  work.epochMax = Math.max(work.epochMax, event.viewEpoch);
  if (isRunning(peer) && !isRunning(old)) work.told = null;
}

function onMessage(work: Work, from: number, message: Message): void {
  if (from === work.config.me || !work.config.nodes.includes(from)) return;
  if (message.kind !== 'sockets' && work.role === 'stopped') return;
  switch (message.kind) {
    case 'status':
      takeStatus(work, from, message);
      return;
    case 'follow': {
      const groups = groupsOf(work);
      if (message.owned.length !== groups || message.sockets.length !== groups) return;
      if (message.view !== null && message.view.owners.length !== groups) return;
      if (!takeStatus(work, from, message.status)) return;
      work.peers = withKey(work.peers, from, { ...peerOf(work, from), follow: message });
      return;
    }
    case 'view':
      if (message.view.owners.length === groupsOf(work)) onView(work, from, message.view);
      return;
    case 'sockets':
      if (work.lead?.followers[from] !== undefined) {
        onReport(work, from, message.epoch, message.sockets);
      }
  }
}

function takeStatus(work: Work, from: number, status: StatusMessage): boolean {
  const peer = peerOf(work, from);
  const last = peer.status;
  const newer =
    last === null ||
    status.startedMs > last.startedMs ||
    (status.startedMs === last.startedMs && status.seq > last.seq);
  if (!newer || status.powers.length !== groupsOf(work)) return false;
  // Whether it runs and may serve is for the heartbeats to say: this may have been overtaken.
  work.peers = withKey(work.peers, from, { ...peer, status, statusMs: work.nowMs });
  work.epochMax = Math.max(work.epochMax, status.epochMax);
  const restarted = last !== null && status.startedMs !== last.startedMs;
  if (restarted || last === null) work.told = null;
  if (restarted && from === work.follows) work.followSentMs = 0;
  return true;
}

function onSockets(work: Work, groups: readonly Uint8Array[], beganMs: number): void {
  if (groups.length !== groupsOf(work) || groups.some((map) => map.length !== bitmapBytes)) return;
  work.sockets = groups;
  if (strays(work)) {
    if (work.lead !== null) {
      hold(work, work.config.me, groups, work.owned);
    } else {
      // It follows anew, with what its leader does not know of.
      work.followMark = nextMark(work);
      work.followSentMs = 0;
    }
  }
  if (!reportable(work, beganMs) || work.view === null) return;
  if (work.lead !== null) {
    onReport(work, work.config.me, work.view.epoch, groups);
    return;
  }
  work.out.effects.push({
    kind: 'send',
    to: work.follows,
    message: { kind: 'sockets', epoch: work.view.epoch, sockets: groups },
  });
}

/** The lease was withheld for want of a sign of life: whatever it owned may be another's now. */
function onLapsed(work: Work): void {
  if (work.role === 'stopped') return;
  record(work, 'transition', 'the lease lapsed while the agent was not running', {});
  work.settled = false;
  work.standsMs = null;
  work.follows = nobody;
  work.lead = null;
  forgetFollows(work);
}

/** What to persist now (the `persist` effect carries the same when it matters). */
export function farmSnapshot(state: FarmState): Snapshot {
  return snapshotOf(state);
}

/**
 * When the next `tick` is due, on the events' clock; null: only an event can change anything. A
 * tick that is early or late does no harm.
 */
export function farmDeadline(state: FarmState): number | null {
  if (state.role === 'stopped') return null;
  const { timing } = state.config;
  const times: number[] = [state.toldMs + statusMs, state.listenUntilMs];
  if (state.standsMs !== null && !state.settled)
    times.push(state.standsMs + farmRules.settleMs(timing));
  if (state.follows !== state.config.me && state.follows !== nobody) {
    times.push(state.followSentMs + retryMs);
  }
  for (const node of state.others) {
    const peer = peerOf(state, node);
    times.push(peer.lapseMs);
    if (!isBoth(peer)) times.push(peer.reachMs + farmRules.settleMs(timing));
    if (peer.reach === 'heard') times.push(peer.reachMs + oneWayBeats * timing.heartbeatMs);
    if (isBoth(peer)) {
      times.push(peer.reachMs + statusExpiryMs(timing), peer.statusMs + statusExpiryMs(timing));
    }
  }
  const { lead } = state;
  if (lead !== null) {
    for (const node of nodeKeys(lead.cutMs)) times.push((lead.cutMs[node] ?? 0) + timing.suspectMs);
    for (const node of nodeKeys(lead.holding)) {
      times.push((lead.holding[node]?.sinceMs ?? 0) + timing.drainTimeoutMs);
    }
    if (behind(state).length > 0) {
      times.push(lead.issuedMs + patienceMs(state), lead.sentMs + retryMs);
    }
  }
  const later = times.filter((time) => time > state.nowMs);
  return later.length === 0 ? null : Math.min(...later);
}
