/** What this server says of itself: in its heartbeats, to the other server's agent, to scripts. */
import { mayNamePeer } from './mirror-arbiter.ts';
import { refusesClaim } from './mirror-claim.ts';
import { shownOf } from './mirror-shown.ts';
import { isPrimaryYet, isSecondary, isSet, setTimer, type Work } from './mirror-state.ts';
import type { MirrorEffect, ShownState, StatusMessage } from './mirror-types.ts';

function statusOf(work: Work): StatusMessage {
  const { durable, phase, config } = work;
  const isLeader = isPrimaryYet(work) && durable.record?.primary === config.me;
  return {
    kind: 'status',
    ...shownOf(work),
    role: isLeader ? 'primary' : isSecondary(work) ? 'secondary' : 'none',
    record: durable.record,
    promised: durable.promised,
    incarnation: durable.incarnation,
    copy: work.copy,
    released: work.released,
    leaving: work.leaving && phase === 'second',
    handOver: work.handOver,
    refuses: refusesClaim(work),
    home: durable.home,
    failover: durable.failover,
    hello: work.peer.status === null,
  };
}

/** Told on each change, at each statusMs while it runs, and to a peer that knows nothing. */
export function tellStatus(work: Work): void {
  const message = statusOf(work);
  const key = JSON.stringify({ ...message, hello: false });
  if (work.peer.reach === 'silent' || work.peer.reach === 'unknown') {
    work.told = { ...work.told, status: '' };
    return;
  }
  if (key !== work.told.status || work.out.tell) {
    work.told = { ...work.told, status: key };
    work.out.effects.push({ kind: 'send', message });
    if (work.phase !== 'stopped') setTimer(work, 'status', work.config.timing.statusMs);
  }
  if (work.phase !== 'stopped' && !isSet(work, 'status')) {
    setTimer(work, 'status', work.config.timing.statusMs);
  }
}

/** Who holds the newest epoch that it knows of consents to nobody: a lease of another is an old one. */
function mayConsent(work: Work): boolean {
  const { phase, durable, dissentMs, config } = work;
  if (phase === 'stopped' || dissentMs !== null) return false;
  return !isPrimaryYet(work) && durable.record?.primary !== config.me;
}

/** Effects before which the heartbeats must say how it is now. */
const after: readonly MirrorEffect['kind'][] = ['arbiterSwap', 'vip', 'run', 'engine'];

/**
 * In its place among the effects: behind what must be durable first, and before what it must precede: a claim
 * (the other's lease is not prolonged any more) and a join (one's own lease is the peer's to cut).
 */
export function tellBeats(work: Work): void {
  const { phase, durable } = work;
  const isServing = phase === 'primGate' || phase === 'prim';
  const announce: MirrorEffect & { kind: 'announce' } = {
    kind: 'announce',
    epoch: durable.record?.epoch ?? 0,
    running: phase !== 'stopped',
    serving: phase === 'prim',
    consent: mayConsent(work),
    lease: isServing ? (mayNamePeer(work) ? 'peer' : 'own') : 'off',
  };
  const key = JSON.stringify(announce);
  if (key === work.told.announce) return;
  work.told = { ...work.told, announce: key };
  const { effects } = work.out;
  const index = effects.findIndex(({ kind }) => after.includes(kind));
  effects.splice(index < 0 ? effects.length : index, 0, announce);
}

/** The `transition` script hears of each change of the shown state. */
export function tellShown(work: Work): void {
  const shown = shownOf(work).state;
  const before = work.told.shown;
  if (shown === before) return;
  work.told = { ...work.told, shown };
  if (before === '') return;
  work.out.effects.push({ kind: 'transition', from: before as ShownState, to: shown });
}
