/** A mirror that decides for itself, as a person reads it. */
import type { PairStatus } from '../host/face.ts';

type Row = readonly [string, string];

const arbiterStates: Readonly<Record<PairStatus['arbiter']['state'], string>> = {
  ok: 'answers',
  silent: 'DOES NOT ANSWER',
  bad: 'CANNOT BE USED',
  unknown: 'not asked yet',
};

/** What is to be known of a copy by itself. */
export const copyWords: Readonly<Record<PairStatus['copy'], string>> = {
  none: 'there is none yet',
  inSync: 'whole',
  stale: 'known to be outdated',
  inconsistent: 'in the middle of a resynchronisation',
  failed: 'FAILED: the disk did not take a change',
};

/** Who decides, what the register says, how the other server is; one row each. */
export function pairRows(pair: PairStatus): readonly Row[] {
  const { arbiter, peer, vip } = pair;
  const because = arbiter.why === '' ? '' : `: ${arbiter.why}`;
  return [
    ['arbiter', `${arbiter.text}, ${arbiterStates[arbiter.state]}${because}`],
    ['register', recordText(pair.record)],
    ...(pair.copy === 'inSync' ? [] : [['own copy', copyWords[pair.copy]] as const]),
    ['other server', `${peer.node} ${peerText(peer)}`],
    ...(vip === null ? [] : [['address', vipText(vip)] as const]),
    ...(pair.lease.rule === 'off' ? [] : [['lease', leaseText(pair)] as const]),
    ...(pair.failover ? [] : [['failover', 'off: it does not take over by itself'] as const]),
    ...(pair.defaultPrim === 'alone' ? [] : [['default primary', defaultText(pair)] as const]),
  ];
}

function recordText(record: PairStatus['record']): string {
  if (record === null) return 'empty: nobody was primary yet';
  const { epoch, primary, inSync } = record;
  return `epoch ${epoch}, primary ${primary}, up to date: ${inSync.join(' and ')}`;
}

function peerText({ reach, state, readiness }: PairStatus['peer']): string {
  const heard = {
    silent: 'silent',
    heard: 'heard, does not hear this one',
    both: 'heard',
    unknown: 'not heard yet',
  }[reach];
  return state === null ? heard : `${state} (${readiness ?? 'NotReady'}), ${heard}`;
}

function vipText(vip: NonNullable<PairStatus['vip']>): string {
  const where = vip.device === null ? '' : ` on ${vip.device}`;
  const hook = vip.hook === null ? '' : ` (${vip.hook})`;
  return `${vip.addrs.join(' ')} ${vip.open ? 'open' : 'closed'}${where}${hook}`;
}

function leaseText({ lease, peer }: PairStatus): string {
  const by = lease.rule === 'own' ? 'while this agent lives' : `while ${peer.node} consents`;
  return lease.held ? `runs ${by}` : `RAN OUT: the address is silent (${by})`;
}

function defaultText({ defaultPrim, home }: PairStatus): string {
  return defaultPrim === 'lastprim' ? `lastprim, now ${home ?? 'nobody'}` : defaultPrim;
}
