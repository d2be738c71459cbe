/** How a server becomes primary: the swap of the epoch, and the wait for the old lease. */
import { askRead, askSwap, isBusy } from './mirror-arbiter.ts';
import { promote, waitingToPrimOpening } from './mirror-phase.ts';
import {
  isSecondary,
  isSet,
  nameOf,
  peerName,
  persist,
  promise,
  setTimer,
  successor,
  type Work,
} from './mirror-state.ts';
import type { ArbiterRecord } from './mirror-types.ts';

/** How long what the heartbeat thread has heard may be on its way here. */
const newsMs = 50;

/** Of two servers that both may, the one that goes first when both start. */
export function preferred(work: Work, record: ArbiterRecord): number {
  const { defaultPrim } = work.config;
  const wanted =
    defaultPrim === 'alone'
      ? record.primary
      : defaultPrim === 'lastprim'
        ? (work.durable.home ?? record.primary)
        : defaultPrim.node;
  return record.inSync.includes(wanted) ? wanted : record.primary;
}

/**
 * Asks for the next epoch. From here on no heartbeat of this server prolongs the lease of the other: the
 * grace is counted from the last one that did.
 */
export function claim(work: Work, from: ArbiterRecord): void {
  const { me, timing } = work.config;
  if (isBusy(work)) return;
  // Of a register that it has promised to go by no more: the former one may be there still, and hold that.
  const isAbandoned = from.incarnation < work.durable.incarnation;
  if (isAbandoned && work.out.rules.registerNeverOlder) return askRead(work);
  work.dissentMs = work.dissentMs ?? work.nowMs;
  askSwap(work, 'claim', from, successor(from, me, [me], timing.leaseMs));
}

/** The first record of a mirror, or of a register that is made anew after primforce. */
export function create(work: Work): void {
  const { me } = work.config;
  if (isBusy(work)) return;
  const { incarnation } = work.durable;
  work.dissentMs = work.dissentMs ?? work.nowMs;
  makeAnew(work, Math.max(incarnation, work.durable.record?.incarnation ?? 0) + 1, [me]);
}

function makeAnew(work: Work, incarnation: number, inSync: readonly number[]): void {
  const { config, durable } = work;
  const epoch = Math.max(durable.record?.epoch ?? 0, durable.promised) + 1;
  const { leaseMs } = config.timing;
  askSwap(work, 'create', work.seen, { incarnation, epoch, primary: config.me, inSync, leaseMs });
}

/**
 * The arbiter lost its register, or has an old one: a primary makes it anew. A peer that may claim by the former
 * one, should that turn up again, must have promised first to take none but the new one.
 */
export function renew(work: Work, record: ArbiterRecord): void {
  const { peer } = work.config;
  const wanted = record.incarnation + 1;
  // A join that may have been done in the former register counts; both give that up.
  const isNamed = [record, ...work.unsure].some((one) => one.inSync.includes(peer));
  const { status, reach } = work.peer;
  if (isNamed && (reach !== 'both' || status?.role !== 'secondary')) return;
  if (isBusy(work)) return;
  persist(work, { incarnation: Math.max(wanted, work.durable.incarnation) });
  if (isNamed && status?.incarnation !== work.durable.incarnation) return;
  makeAnew(work, work.durable.incarnation, record.inSync);
}

/** The epoch is this server's. It is primary from here on, if it is where it can become that. */
export function granted(work: Work, record: ArbiterRecord): void {
  const { me } = work.config;
  const before = work.durable.record;
  work.dissentMs = work.dissentMs ?? work.nowMs;
  setGrace(work, before);
  const ordered = work.order === 'prim' || work.order === 'primforce';
  promise(work, record, ordered ? me : (work.durable.home ?? me));
  const why = `epoch ${record.epoch} granted, after ${
    before === null ? 'none' : nameOf(work, before.primary)
  }`;
  if (work.phase === 'waiting') waitingToPrimOpening(work, work.order === 'primforce', why);
  else if (isSecondary(work)) promote(work, why);
}

/**
 * Until when the primary of `before` may still answer for the address. A grace that runs already, of an earlier
 * claim, goes on whatever this server became meanwhile.
 */
function setGrace(work: Work, before: ArbiterRecord | null): void {
  const { me, peer, timing } = work.config;
  if (before === null) return;
  const isReleased =
    before.primary === me
      ? work.released === before.epoch
      : before.primary === peer && work.peer.status?.released === before.epoch;
  if (isReleased) return;
  const { reach, heardMs } = work.peer;
  const dissentMs = work.dissentMs ?? work.nowMs;
  // A peer that is heard now is heard until now: what ends its lease is the withdrawn consent.
  const lastMs = reach === 'silent' ? Math.max(heardMs, work.bootMs) : dissentMs;
  const left = Math.min(lastMs, dissentMs) + timing.graceMs - work.nowMs;
  setTimer(work, 'grace', Math.max(left, newsMs, (work.timers.grace ?? 0) - work.nowMs));
}

/**
 * The old primary is heard although it counted as silent: heartbeats of this server may have answered it up to the
 * moment at which the consent was withdrawn.
 */
export function extendGrace(work: Work): void {
  if (!isSet(work, 'grace') || work.peer.reach === 'silent') return;
  const atMs = (work.dissentMs ?? work.nowMs) + work.config.timing.graceMs;
  setTimer(work, 'grace', Math.max(work.timers.grace ?? 0, atMs) - work.nowMs);
}

/** Why this server would not become primary if it had to; null: it would. */
export function refusesClaim(work: Work): string | null {
  if (work.hold !== null) return work.hold;
  if (work.data !== null) return work.data;
  if (work.veto !== null) return work.veto;
  if (work.phase === 'stopped' || work.phase === 'poststop') return 'it is stopped';
  if (work.pendingDown !== null || work.leaving) return 'it is being stopped';
  if (work.parked !== null) return work.parked.why;
  return work.copy === 'failed' ? `its copy has failed` : null;
}

export const waitsFor = (work: Work, record: ArbiterRecord): string => {
  const others = record.inSync.filter((node) => node !== work.config.me);
  const names = others.map((node) => nameOf(work, node)).join(', ') || peerName(work);
  return `${names}, which has the up-to-date data (epoch ${record.epoch})`;
};
