/**
 * A server without a role: whom it follows, when it goes first, for whom it waits. What it remembers
 * never makes it primary, only a swap of the epoch that it wins now.
 */
import { askRead } from './mirror-arbiter.ts';
import { claim, create, preferred, waitsFor } from './mirror-claim.ts';
import { waitingToSecondOpening } from './mirror-phase.ts';
import {
  clearTimer,
  has,
  isSet,
  isWhole,
  peerName,
  primaryPeer,
  promise,
  refuse,
  setTimer,
  type Work,
} from './mirror-state.ts';
import type { ArbiterRecord, StatusMessage } from './mirror-types.ts';

export function decideWaiting(work: Work): void {
  if (work.phase !== 'waiting' || (work.asked !== null && work.asked.what !== 'read')) return;
  if (work.asked === null && work.unsure.length === 0) work.dissentMs = null;
  const held = work.data ?? work.hold;
  if (held !== null) return refuse(work, `waits: ${held}`);
  // One whose heartbeats are silent would be lost again at once.
  const isThere = work.peer.reach !== 'silent' && !work.peer.hung;
  const leader = isThere ? primaryPeer(work) : null;
  if (work.parked !== null && !(work.parked.follow && leader !== null)) {
    return refuse(work, work.parked.why);
  }
  if (leader !== null) return follow(work, leader);
  if (work.order.startsWith('second')) {
    return refuse(work, `waits for ${peerName(work)} to be primary`);
  }
  if (!work.read) {
    askRead(work);
    if (work.order === 'primforce' && work.arbiterBad !== null) return forceCreate(work);
    const trouble = work.arbiterBad ?? work.arbiterWhy;
    if (trouble !== null) refuse(work, `waits for the arbiter: ${trouble}`);
    return;
  }
  if (!isSet(work, 'look')) setTimer(work, 'look', work.config.timing.pollMs);
  const { record } = work.durable;
  if (record === null) return decideFirst(work);
  const reason = obstacle(work, record);
  if (reason !== null) {
    refuse(work, reason);
    if (work.order !== 'start') work.order = 'start';
    return;
  }
  if (work.order === 'start' && awaitsPeer(work, record)) {
    work.refusal = null;
    return;
  }
  refuse(work, null);
  claim(work, record);
}

function follow(work: Work, leader: StatusMessage): void {
  if (work.order === 'prim' || work.order === 'primforce') {
    refuse(work, `not becoming primary: ${peerName(work)} is ${leader.state}`);
    work.order = 'start';
  } else {
    work.refusal = null;
  }
  work.parked = null;
  clearTimer(work, 'look');
  if (leader.record !== null) promise(work, leader.record, leader.home);
  const epoch = leader.record?.epoch ?? 0;
  const why = `${peerName(work)} is ${leader.state} in epoch ${epoch}`;
  waitingToSecondOpening(work, work.durable.promised, why);
}

/** An operator's word goes over a register that cannot be believed. */
function forceCreate(work: Work): void {
  if (work.asked !== null) return;
  clearTimer(work, 'retry');
  create(work);
}

/** Nobody was ever primary, as far as this server and the register know. */
function decideFirst(work: Work): void {
  const known = work.peer.status?.record ?? null;
  const isOrdered = work.order === 'prim' || work.order === 'primforce';
  if (known !== null && work.order !== 'primforce') {
    refuse(
      work,
      `waits: the arbiter's register is empty, and ${peerName(work)} knows epoch ${known.epoch}`,
    );
  } else if (!isOrdered) {
    refuse(
      work,
      'waits: nobody was primary yet; run `prim` on the server whose data is the right one',
    );
  } else if (work.order === 'prim' && (work.copy === 'inconsistent' || work.copy === 'failed')) {
    refuse(work, `not becoming primary: its copy is ${work.copy}`);
    work.order = 'start';
  } else {
    refuse(work, null);
    create(work);
  }
}

/** What forbids it to become primary by the record; null: nothing. */
function obstacle(work: Work, record: ArbiterRecord): string | null {
  if (work.veto !== null) return `not becoming primary because ${work.veto}`;
  if (work.order === 'primforce') return null;
  const force = work.order === 'prim' ? '; `primforce` would give up what only the other has' : '';
  const { claimNeedsInSync } = work.out.rules;
  if (claimNeedsInSync && !has(record, work.config.me)) {
    return `waits for ${waitsFor(work, record)}${force}`;
  }
  if (isWhole(work)) return null;
  const copy = work.copy === 'none' ? 'has no copy' : `has a copy that is ${work.copy}`;
  if (!has(record, work.config.peer)) {
    return `waits for \`primforce\`: this server alone had the data of epoch ${record.epoch}, and ${copy}`;
  }
  return `waits for ${waitsFor(work, record)}: this server ${copy}${force}`;
}

/** Both may be first: the other one's word, or its going first, is worth a moment. */
function awaitsPeer(work: Work, record: ArbiterRecord): boolean {
  const { me, peer } = work.config;
  if (!has(record, peer) || !isSet(work, 'ask')) return false;
  const { reach, status } = work.peer;
  if (status === null) return reach !== 'silent';
  if (status.state === 'STOP' || status.refuses !== null || status.copy !== 'inSync') {
    return work.config.hasData ? false : status.state !== 'STOP' && status.refuses === null;
  }
  if (status.role === 'secondary') return status.failover || work.handOver;
  return status.role === 'none' && preferred(work, record) !== me;
}
