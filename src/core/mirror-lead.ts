/**
 * A primary: it goes on alone only by a new epoch, names its peer again only when nothing is
 * acknowledged without it any more, and gives way to a later record at once.
 */
import { askRead, askSwap } from './mirror-arbiter.ts';
import { preferred, renew } from './mirror-claim.ts';
import { goDown } from './mirror-phase.ts';
import {
  blame,
  has,
  isLater,
  isPrimary,
  isSet,
  mayWrite,
  nameOf,
  noteRecord,
  orderEngine,
  peerName,
  promise,
  say,
  setTimer,
  successor,
  type Work,
} from './mirror-state.ts';
import { shownOf } from './mirror-shown.ts';
import type { ArbiterRecord, MirrorState } from './mirror-types.ts';

export function decidePrimary(work: Work): void {
  const { record } = work.durable;
  if (!mayWrite(work) || record === null || record.primary !== work.config.me) return;
  const told = work.peer.status?.record ?? null;
  if (told !== null && told.primary !== work.config.me && isLater(told, record)) {
    noteRecord(work, told);
    return stepDown(work, told);
  }
  // Own disk: the peer has everything, and must not be left behind by a copy that is none. Without
  // one the server stays with what it has.
  if (work.copy === 'failed' && has(record, work.config.peer)) {
    if (isPrimary(work) && work.pendingDown === null) handOver(work, 'its copy has failed');
    return;
  }
  const gone = goneCause(work);
  if (gone !== null && needsPeer(work, record)) return goAlone(work, record, gone);
  if (work.asked !== null || work.pendingDown !== null || !isPrimary(work)) return;
  if (work.arbiterBad !== null) return renew(work, record);
  // What became of a swap, or of the service while the lease did not run.
  if ((work.unsure.length > 0 || work.lapsed) && !work.read) askRead(work);
  if (wantsJoin(work, record)) {
    const { me, peer, timing } = work.config;
    askSwap(work, 'join', record, successor(record, me, [me, peer], timing.leaseMs));
    return;
  }
  swapHome(work, record);
  if (!isSet(work, 'look')) setTimer(work, 'look', work.config.timing.lookMs);
}

/** Nothing is acknowledged without the peer, or the record may come to say that it has everything. */
function needsPeer(work: Work, record: ArbiterRecord): boolean {
  const { config, engine } = work;
  if ([record, ...work.unsure].some((one) => has(one, config.peer))) return true;
  // Waited for, but not named: as long as it acknowledges there is no need for an epoch.
  const { peerCopy } = engine;
  const acknowledges = peerCopy === 'caughtUp' || peerCopy === 'inSync';
  return !engine.alone && (engine.peer !== 'connected' || !acknowledges);
}

/** Why the peer is no secondary that what is acknowledged could wait for; null: it is one. */
function goneCause(work: Work): string | null {
  const { reach, status } = work.peer;
  const peer = peerName(work);
  if (reach === 'silent') return `${peer} is silent on all networks`;
  // It will miss this server in a moment, and claim.
  if (reach === 'heard') return `${peer} does not hear this server`;
  const { engine, config, durable } = work;
  // Once: it goes on acknowledging until it has gone, should its engine be waited for again.
  if (status?.leaving === true && has(durable.record, config.peer)) return `${peer} is leaving`;
  // Engines that are together say more than a word that may have been overtaken.
  const isTogether = config.hasData && engine.peer === 'connected';
  if (status !== null && status.role !== 'secondary' && !isTogether) {
    return `${peer} is ${status.state}`;
  }
  if (!config.hasData) return null;
  if (engine.peer === 'lost') return `the connection to the engine of ${peer} is lost`;
  if (engine.peer === 'left') return `the engine of ${peer} has left`;
  const isNamed = has(durable.record, config.peer);
  // What is acknowledged would wait for the end of it, and the peer could not take over meanwhile.
  if ((isNamed || !engine.alone) && engine.peerCopy === 'resync') {
    return `${peer} is being brought up to date`;
  }
  // Connected again, and what its engine had said is void: only a new resync can say it again.
  const isVoid = !engine.alone && engine.peerCopy === 'none' && engine.pending === null;
  if (!isVoid || isNamed) return null;
  return `the connection to the engine of ${peer} was lost before it was named`;
}

/** What is acknowledged waits for the peer until the swap is done. */
function goAlone(work: Work, record: ArbiterRecord, cause: string): void {
  const { me, timing } = work.config;
  const { rules } = work.out;
  work.out.cause = cause;
  const isLapsed = work.lapsed && isPrimary(work);
  if (isLapsed && work.arbiterWhy !== null && work.peer.reach !== 'both') {
    blame(work, `${cause}, and the arbiter does not answer: the lease ran out`);
    return goDown(work, { after: 'wait', action: 'stopwait', forced: false }, 'the lease ran out');
  }
  if (!rules.aloneNeedsSwap) {
    work.durable = { ...work.durable, record: { ...record, inSync: [me] } };
    return beAlone(work, record.epoch);
  }
  if (work.asked !== null) return;
  if (!rules.shrinkNeedsEpoch && !has(record, work.config.peer)) return askRead(work);
  askSwap(work, 'degrade', record, successor(record, me, [me], timing.leaseMs));
}

function beAlone(work: Work, epoch: number): void {
  work.engine = { ...work.engine, alone: true, peerCopy: 'none', permit: epoch };
  orderEngine(work, { what: 'alone', epoch });
}

/** The register holds a record that this server wrote as the primary that it is. */
export function ownRecord(work: Work, record: ArbiterRecord): void {
  const { me, peer } = work.config;
  promise(work, record, work.durable.home ?? me);
  const cause = work.out.cause || 'the register says so';
  if (!has(record, peer)) {
    say(work, 'transition', `alone from epoch ${record.epoch} on: ${cause}`, { record });
    return beAlone(work, record.epoch);
  }
  say(work, 'transition', `${nameOf(work, peer)} is in sync from epoch ${record.epoch} on`, {
    record,
  });
  orderEngine(work, { what: 'joined', epoch: record.epoch });
}

/** A read of the register showed nothing new. Mutant: then the peer is not needed any more. */
export function sameRecord(work: Work, record: ArbiterRecord): void {
  if (work.out.rules.shrinkNeedsEpoch || work.engine.alone) return;
  if (!has(record, work.config.peer) && goneCause(work) !== null) beAlone(work, record.epoch);
}

function wantsJoin(work: Work, record: ArbiterRecord): boolean {
  const { config, engine, out, phase } = work;
  const { reach, status } = work.peer;
  if (has(record, config.peer) || phase === 'primOpening') return false;
  if (reach !== 'both' || status?.role !== 'secondary' || status.leaving) return false;
  if (engine.pending !== null) return false;
  if (!config.hasData) return true;
  if (engine.peer !== 'connected') return false;
  if (engine.peerCopy === 'inSync') return true;
  if (engine.peerCopy === 'caughtUp') return !out.rules.joinNeedsRequired;
  return engine.peerCopy === 'resync' && !out.rules.joinNeedsCaughtUp;
}

/** Another server holds a later epoch: nothing of this one counts any more. */
export function stepDown(work: Work, record: ArbiterRecord): void {
  const text = `${nameOf(work, record.primary)} holds epoch ${record.epoch}`;
  blame(work, text);
  if (!isPrimary(work) && work.phase !== 'primStopping') return;
  // What it syncs waits for an acknowledgement that cannot come: an end in order would only take long.
  goDown(work, { after: 'wait', action: 'stopwait', forced: work.config.hasData }, text);
}

/** Why the peer cannot take over by order; null: it can. */
/** Why service cannot go to the other server now; null: it can. */
export function swapObstacle(work: MirrorState): string | null {
  const { record } = work.durable;
  const peer = peerName(work);
  if (work.phase !== 'prim' && work.phase !== 'primGate') return 'it is not serving as primary';
  const { reach, status } = work.peer;
  if (reach !== 'both' || status === null) return `${peer} is not in reach`;
  if (status.state !== 'SECOND') return `${peer} is ${status.state}`;
  if (!has(record, work.config.peer)) return `the copy of ${peer} is not up to date`;
  return status.refuses === null ? null : `${peer} would not become primary: ${status.refuses}`;
}

export function handOver(work: Work, why: string): void {
  work.handOver = true;
  goDown(work, { after: 'wait', action: 'swap', forced: false }, why);
}

/** defaultprim: once both are in sync, service goes where it belongs. */
function swapHome(work: Work, record: ArbiterRecord): void {
  if (work.phase !== 'prim' || work.swapTried || work.asked !== null) return;
  if (preferred(work, record) !== work.config.peer || swapObstacle(work) !== null) return;
  if (shownOf(work).readiness !== 'Ready' || work.peer.status?.readiness !== 'Ready') return;
  work.swapTried = true;
  say(work, 'check', 'Transition SWAP from defaultprim', { epoch: record.epoch });
  handOver(work, 'defaultprim');
}
