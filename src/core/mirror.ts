/**
 * A mirror on one of its two servers: who is primary, who follows, who waits. Pure:
 * (state, event) -> [state, effects]. src/host/pair.ts drives it; mirrors without an arbiter go by hand.
 *
 *            start        prestart ok            a primary is there
 *   stopped ─────▶ prestart ─────▶ waiting ───────────────────────────▶ secondOpening (engine)
 *   STOP           WAIT            WAIT │ ▲                                 │ ▼
 *     ▲                                 │ │ role ended                  secondStarting (start_second)
 *     │ poststop                  claim │ │                                 │ ▼
 *     └──────────── poststop ◀── granted│ ├─────────────── …Closing ◀─── second ───┐ claim granted:
 *                      ▲                ▼ │                          SECOND        │ it has all, and
 *                      │          primOpening (engine) ◀───────── stop_second ◀────┘ the record says so
 *                      │                │ ▼
 *                      │           primGrace (the old lease is over)
 *                      │                │ ▼
 *                      │           primStarting (address, start_prim)
 *                      │                │ ▼
 *                      │           primGate ◀──▶ prim: the address answers
 *                      │           ALONE: inSync = {me}      PRIM: inSync = {me, peer}
 *                      │                │
 *                      └── primClosing ◀┴─ primForcing ◀─ primStopping (address shut first)
 *
 * The register R = {epoch, primary, inSync, …} is changed by compare-and-swap only, epoch by epoch:
 *   claim    {e, *, S ∋ me}       -> {e+1, me, {me}}          a server that has everything becomes primary
 *   degrade  {e, me, {me, peer}}  -> {e+1, me, {me}}          a primary whose peer is lost goes on alone
 *   join     {e, me, {me}}        -> {e+1, me, {me, peer}}    the peer has everything and is waited for
 *
 * Invariants (src/sim checks them after every event):
 *  1. An acknowledged change is on every server that R.inSync names: acknowledged is what all of `required`
 *     have, and required ⊇ R.inSync at all times. It grows before the join is asked, and shrinks
 *     after the degrade is done, by a later epoch and nothing else.
 *  2. A server serves under an epoch only after a swap to that epoch, which it made, was done; never from
 *     memory. So at most one server serves under an epoch, and the next one knows it.
 *  3. Who claims has a whole copy and is named by R.inSync. So whoever is primary has everything.
 *  4. What a server promised is durable before it serves or takes data under it; older data is refused.
 *  5. The virtual IP answers at one server: while R.inSync names the peer, the lease lives by the peer's
 *     consent; a claimer withdraws its consent first, and opens G after the last one at the earliest.
 *  6. A register that is older than what this server knows changes nothing here.
 *  7. The application runs in prim… phases only, after the grace; the address opens when it answers,
 *     and is shut before it is told to stop.
 *  8. Messages change what is tried, never what is allowed: each of them may be lost, late or twice.
 *     One says more: `released`, which stays true.
 *
 * mirror-types.ts: words. mirror-state.ts: memory. mirror-rules.ts: guards. mirror-phase.ts: the ways up and
 * down. mirror-start.ts: waiting. mirror-claim.ts: becoming primary. mirror-second.ts, mirror-lead.ts: the
 * two roles. mirror-arbiter.ts: asking. mirror-orders.ts, mirror-loops.ts: operators and
 * checkers. mirror-tell.ts: announcements. mirror-shown.ts: display. docs/internals/mirror-core.md: why.
 */
import { askRead, type Found, isOvertaken, noteFound, onAnswer } from './mirror-arbiter.ts';
import { extendGrace, granted } from './mirror-claim.ts';
import { decidePrimary, ownRecord, sameRecord, stepDown } from './mirror-lead.ts';
import { onCopy, onHealth, onHold, onOrder, onStartLimit, onSwap } from './mirror-orders.ts';
import {
  goDown,
  onEngineClosed,
  onEngineOpened,
  onScriptDone,
  primGraceToStarting,
  reenter,
  settleEngine,
} from './mirror-phase.ts';
import { mirrorRules, type MirrorRules } from './mirror-rules.ts';
import { decideSecond } from './mirror-second.ts';
import { decideWaiting } from './mirror-start.ts';
import {
  blame,
  clearTimer,
  doubt,
  has,
  isPrimary,
  isPrimaryYet,
  isSame,
  isSecondary,
  isSecondaryYet,
  isSet,
  mayWrite,
  orderEngine,
  persist,
  promise,
  setTimer,
  type Work,
} from './mirror-state.ts';
import { tellBeats, tellShown, tellStatus } from './mirror-tell.ts';
import type {
  ArbiterRecord,
  MirrorEffect,
  MirrorEvent,
  MirrorState,
  TimerName,
} from './mirror-types.ts';

export type * from './mirror-types.ts';
export { mirrorRules, type MirrorRule, type MirrorRules, without } from './mirror-rules.ts';
export { mirrorWhy, shownOf } from './mirror-shown.ts';
export { mirrorProfiles, mirrorTiming, timingFaults } from './mirror-timing.ts';
export { blankDurable, mirrorInit } from './mirror-state.ts';

/** Decisions may follow from one another; more than this in one event is a fault of the machine. */
const roundsMax = 16;

/**
 * One event. The effects are to be performed in order. `rules` is for the simulator's planted bugs.
 */
export function mirrorStep(
  state: MirrorState,
  event: MirrorEvent,
  rules: MirrorRules = mirrorRules,
): readonly [MirrorState, readonly MirrorEffect[]] {
  const out: Work['out'] = { effects: [], rules, cause: '', tell: false, ordered: false };
  const work: Work = { ...state, nowMs: Math.max(state.nowMs, event.nowMs), out };
  perform(work, event);
  settle(work);
  tellBeats(work);
  tellShown(work);
  tellStatus(work);
  const { out: _, ...next } = work;
  return [next, out.effects];
}

/** What follows from the changed state, until nothing more does. */
function settle(work: Work): void {
  settleEngine(work);
  if (work.phase === 'primGrace' && !isSet(work, 'grace')) primGraceToStarting(work);
  for (let round = 0; round < roundsMax; round += 1) {
    const before = work.phase;
    const asked = work.asked;
    decideWaiting(work);
    decideSecond(work);
    decidePrimary(work);
    if (work.phase === before && work.asked === asked) return;
  }
  throw new Error(`no rest in ${work.phase}`);
}

function perform(work: Work, event: MirrorEvent): void {
  switch (event.kind) {
    case 'boot':
      work.durable = event.durable;
      work.copy = event.copy;
      work.bootMs = event.nowMs;
      return;
    case 'adopt':
      return onAdopt(work, event);
    case 'order':
      return onOrder(work, event);
    case 'hold':
      return onHold(work, event.why);
    case 'data':
      work.data = event.why;
      return;
    case 'veto':
      work.veto = event.why;
      return;
    case 'arbiter':
      return onFound(work, onAnswer(work, event.id, event.answer));
    case 'peer':
      return onPeer(work, event);
    case 'message':
      return onMessage(work, event);
    case 'lease':
      return onLease(work, event.held);
    case 'engineDone':
      return onEngineDone(work, event);
    case 'enginePeer':
      work.engine = { ...work.engine, peer: event.peer };
      if (event.peer !== 'connected') work.engine = { ...work.engine, peerCopy: 'none' };
      return;
    case 'peerCopy':
      return onPeerCopy(work, event);
    case 'copy':
      return onCopy(work, event.copy);
    case 'engineGone':
      return onEngineGone(work, event.why);
    case 'scriptDone':
      return onScriptDone(work, event);
    case 'health':
      return onHealth(work, event);
    case 'persistFailed':
      return onPersistFailed(work, event.why);
    case 'tick':
      return onTick(work);
  }
}

/** What came after it was not performed, so it was not announced either. */
function onPersistFailed(work: Work, why: string): void {
  work.unsaved = true;
  work.told = { ...work.told, status: '', announce: '' };
  blame(work, `its state cannot be kept: ${why}`);
  work.parked = { why: `waits for \`start\`: its state cannot be kept`, follow: false };
  goDown(work, { after: 'wait', action: 'stopwait', forced: false }, why);
}

function onTick(work: Work): void {
  for (const [name, at] of Object.entries(work.timers)) {
    if (at > work.nowMs) continue;
    clearTimer(work, name as TimerName);
    if (name === 'status') work.out.tell = true;
    if (name === 'answer') onStartLimit(work);
    if (name !== 'look') continue;
    work.read = false;
    // A register that is away or another is found out before it is needed.
    if (isPrimary(work)) askRead(work);
  }
}

function onFound(work: Work, found: Found): void {
  if (found.what === 'nothing') return;
  work.read = true;
  if (found.what === 'done') {
    const { record } = found;
    if (mayWrite(work)) return ownRecord(work, record);
    if (mayServe(work, record)) return granted(work, record);
    // An epoch that leads to nothing: the next one is not asked for at once.
    setTimer(work, 'retry', work.config.timing.pollMs);
    return promise(work, record);
  }
  const { record } = found;
  if (record === null) return;
  const known = work.durable.record;
  noteFound(work, record);
  if (isOvertaken(work, record)) return stepDown(work, record);
  if (!mayWrite(work)) return;
  if (isSame(record, known)) sameRecord(work, record);
  // One's own swap of which the answer was lost, and that this server does not remember.
  else if (record.primary === work.config.me) ownRecord(work, record);
}

/**
 * It may serve under a record that it wrote. Not one that names the peer too: that was asked for in an
 * earlier role, and a primary begins alone.
 */
function mayServe(work: Work, record: ArbiterRecord): boolean {
  const { me, peer } = work.config;
  if (record.primary !== me || has(record, peer)) return false;
  if (work.hold !== null || work.data !== null) return false;
  if (work.parked !== null || work.pendingDown !== null) return false;
  return work.phase === 'waiting' || (isSecondary(work) && !work.leaving);
}

function onPeer(work: Work, event: MirrorEvent & { kind: 'peer' }): void {
  const { reach, boot, hung, heardMs } = event;
  const { peer } = work;
  const isReborn = peer.boot !== '' && boot !== peer.boot;
  const isLost = reach === 'silent' || isReborn;
  work.peer = { reach, boot, hung, heardMs, status: isLost ? null : peer.status };
  extendGrace(work);
  // It may know nothing of this server.
  if (isReborn || (reach === 'both' && peer.reach !== 'both')) work.out.tell = true;
}

function onMessage(work: Work, event: MirrorEvent & { kind: 'message' }): void {
  const { message } = event;
  if (message.kind === 'swap') {
    if (isPrimary(work)) onSwap(work, message.sync);
    return;
  }
  work.peer = { ...work.peer, status: message };
  if (message.hello) work.out.tell = true;
}

function onLease(work: Work, held: boolean): void {
  if (!isPrimary(work)) return;
  work.lapsed = !held;
  work.read = work.read && held;
}

function onEngineDone(work: Work, event: MirrorEvent & { kind: 'engineDone' }): void {
  const { engine } = work;
  if (engine.pending === null || engine.pending.id !== event.id) return;
  const { what } = engine.pending.order;
  work.engine = { ...engine, pending: null, next: null };
  const failed = event.ok ? null : event.why;
  if (what === 'prim' || what === 'second') onEngineOpened(work, failed);
  else if (what === 'close') onEngineClosed(work);
  else if (failed !== null) onEngineGone(work, failed);
  // Something that goes before it may have been ordered just now.
  if (engine.next !== null && work.engine.pending === null) orderEngine(work, engine.next);
}

function onPeerCopy(work: Work, event: MirrorEvent & { kind: 'peerCopy' }): void {
  // It was said before the order that it would contradict.
  if (event.epoch < work.engine.permit) return;
  const alone = work.engine.alone && event.alone;
  work.engine = { ...work.engine, peerCopy: event.copy, alone };
}

function onEngineGone(work: Work, why: string): void {
  const { engine } = work;
  if (engine.role === 'none' || engine.pending?.order.what === 'close') return;
  blame(work, `the replication engine is gone: ${why}`);
  // An order to open one, which is not answered yet, goes to the next.
  const isOpening = work.phase === 'primOpening' || work.phase === 'secondOpening';
  if (!isOpening) work.engine = { ...engine, role: 'none', peer: 'unknown', peerCopy: 'none' };
}

function onAdopt(work: Work, event: MirrorEvent & { kind: 'adopt' }): void {
  const { out, config, nowMs } = work;
  const { asked } = event.state;
  Object.assign(work, event.state, { out, config, nowMs: Math.max(nowMs, event.state.nowMs) });
  // What was asked may have been done, or be done still.
  // The former agent may have died before it was on disk.
  work.unsaved = true;
  persist(work, {});
  if (asked?.to !== null && asked?.to !== undefined) doubt(work, asked.to);
  work.asked = null;
  work.read = false;
  // Whatever heartbeats were answered by then, nobody here knows of them any more.
  work.bootMs = work.nowMs;
  work.peer = { ...work.peer, reach: 'unknown', status: null };
  work.told = { status: '', announce: '', shown: work.told.shown };
  work.lapsed = event.lapsed && isPrimary(work);
  if (isPrimaryYet(work) || isSecondaryYet(work) || work.phase !== 'stopped') reenter(work);
}

/**
 * When the next `tick` is due, on the events' clock; null: only an event can change anything. A
 * tick that is early or late does no harm. Timers act in a `tick` only.
 */
export function mirrorDeadline(state: MirrorState): number | null {
  const times = Object.values(state.timers);
  return times.length === 0 ? null : Math.min(...times);
}
