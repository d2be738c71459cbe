/**
 * A secondary: it takes what the primary sends, and takes over when the primary is lost, if and only
 * if the register names it among those that have everything.
 */
import { askRead } from './mirror-arbiter.ts';
import { claim, granted, waitsFor } from './mirror-claim.ts';
import { goDown, secondToLeave } from './mirror-phase.ts';
import {
  clearTimer,
  has,
  isSet,
  isWhole,
  peerName,
  persist,
  primaryPeer,
  promise,
  refuse,
  setTimer,
  successor,
  type Work,
} from './mirror-state.ts';
import type { ArbiterRecord } from './mirror-types.ts';

export function decideSecond(work: Work): void {
  if (work.phase !== 'second' && work.phase !== 'secondStarting') return;
  if (work.asked !== null && work.asked.what !== 'read') return;
  const leader = primaryPeer(work);
  // A disk that keeps nothing is not tried again on the way down.
  const isKept = !work.unsaved || work.pendingDown === null;
  if (isKept && leader?.record !== null && leader?.record !== undefined) {
    promise(work, leader.record, leader.home);
    // From here on it claims by no former register, and what it may have claimed there is void.
    const mayPromise = !work.suspecting && work.asked === null;
    if (mayPromise && leader.incarnation > work.durable.incarnation) {
      persist(work, { incarnation: leader.incarnation });
      work.unsure = [];
    }
  }
  if (work.leaving) return secondToLeave(work);
  const { record } = work.durable;
  if (record === null) return;
  const cause = lostCause(work, record);
  if (cause === null) return trust(work);
  if (!work.suspecting) suspect(work, cause, isReleased(work, record));
  // A stop that waits for a script leaves the epoch to others.
  if (work.pendingDown !== null) return;
  if (!work.durable.failover && !(isReleased(work, record) && work.peer.status?.handOver)) {
    return park(work);
  }
  const reason = obstacle(work, record, cause);
  if (reason !== null) {
    refuse(work, reason);
    if (!work.read) askRead(work);
    else if (!isSet(work, 'look')) setTimer(work, 'look', work.config.timing.pollMs);
    return;
  }
  refuse(work, null);
  if (isSet(work, 'headStart')) return;
  if (!work.out.rules.takeoverNeedsSwap) {
    const { me, timing } = work.config;
    return granted(work, successor(record, me, [me], timing.leaseMs));
  }
  claim(work, record);
}

/** The primary is there: its lease may live by this server's heartbeats. */
function trust(work: Work): void {
  if (work.suspecting) {
    work.suspecting = false;
    work.refusal = null;
    clearTimer(work, 'headStart', 'look');
  }
  work.dissentMs = null;
  // A claim that may still land is looked after until another epoch has made it void.
  if (work.unsure.length === 0) return;
  if (!work.read) askRead(work);
  else if (!isSet(work, 'look')) setTimer(work, 'look', work.config.timing.pollMs);
}

function suspect(work: Work, cause: string, released: boolean): void {
  work.suspecting = true;
  work.read = false;
  work.out.cause = cause;
  if (!released) setTimer(work, 'headStart', work.config.timing.headStartMs);
}

function park(work: Work): void {
  work.parked = { why: 'Failover-off configured: waits for `prim` or the primary', follow: true };
  refuse(work, `not taking over because failover is off`);
  goDown(work, { after: 'wait', action: 'stopwait', forced: false }, 'Failover-off configured');
}

/** It ended its service under the epoch that the record names, and said so. */
function isReleased(work: Work, record: ArbiterRecord): boolean {
  const released = work.peer.status?.released ?? 0;
  return record.primary === work.config.peer && released === record.epoch;
}

/** Why there is no primary to follow; null: there is one. */
function lostCause(work: Work, record: ArbiterRecord): string | null {
  const { reach, hung, status } = work.peer;
  const peer = peerName(work);
  if (isReleased(work, record)) return `${peer} ended its service in order`;
  if (record.primary === work.config.me) return 'the register names this server';
  if (reach === 'silent') return `${peer} is silent on all networks`;
  if (hung) return `the agent of ${peer} hangs`;
  if (status !== null && status.role === 'none' && reach === 'both') {
    return `${peer} is ${status.state}`;
  }
  return null;
}

function obstacle(work: Work, record: ArbiterRecord, cause: string): string | null {
  const not = `not taking over (${cause}) because`;
  const held = work.hold ?? work.parked?.why ?? null;
  if (held !== null) return `${not} ${held}`;
  if (work.veto !== null) return `${not} ${work.veto}`;
  if (!isWhole(work)) return `${not} this copy is not up to date: it is ${work.copy}`;
  if (has(record, work.config.me) || !work.out.rules.claimNeedsInSync) return null;
  return `${not} this copy is not up to date: waits for ${waitsFor(work, record)}`;
}
