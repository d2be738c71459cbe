/** What a mirror that decides for itself shows of what its machine knows. */
import type { MirrorEffect, MirrorState, Phase } from '../core/mirror.ts';
import { isPrimaryYet, isSecondaryYet } from '../core/mirror-state.ts';
import type { PairStatus } from './face.ts';
import type { PairVip } from './pair-ports.ts';

type Announce = Extract<MirrorEffect, { kind: 'announce' }>;

/** What its heartbeats say, as the core said last; null: nothing. */
export function announced(state: Pick<MirrorState, 'told'>): Announce | null {
  const { announce } = state.told;
  return announce === '' ? null : (JSON.parse(announce) as Announce);
}

const settled: readonly Phase[] = ['prim', 'second', 'stopped'];

/**
 * It is where an order to start has led it, or cannot get further by itself. A server without a role
 * rests only when the other one's word is there, or cannot be had.
 */
export function rests(state: MirrorState): boolean {
  const { phase, refusal, asked, peer, pendingDown } = state;
  if (pendingDown !== null) return false;
  if (settled.includes(phase)) return true;
  if (phase !== 'waiting' || refusal === null || asked !== null) return false;
  return peer.status !== null || peer.reach === 'silent';
}

export function pairStatus(
  state: MirrorState,
  arbiterText: string,
  vip: PairVip | null,
): PairStatus {
  const { config, durable, peer, phase } = state;
  const name = (node: number): string => config.names[node] ?? `node ${node}`;
  const { record } = durable;
  const rule = announced(state)?.lease ?? 'off';
  const { defaultPrim } = config;
  return {
    role: isPrimaryYet(state) ? 'primary' : isSecondaryYet(state) ? 'secondary' : 'none',
    phase,
    record:
      record === null
        ? null
        : {
            incarnation: record.incarnation,
            epoch: record.epoch,
            primary: name(record.primary),
            inSync: record.inSync.map(name),
          },
    promised: durable.promised,
    copy: state.copy,
    arbiter: { text: arbiterText, ...arbiterState(state) },
    lease: { rule, held: rule !== 'off' && !state.lapsed },
    peer: {
      node: name(config.peer),
      reach: peer.reach,
      state: peer.status?.state ?? null,
      readiness: peer.status?.readiness ?? null,
    },
    failover: durable.failover,
    defaultPrim: typeof defaultPrim === 'string' ? defaultPrim : name(defaultPrim.node),
    home: durable.home === null ? null : name(durable.home),
    vip: vip?.status() ?? null,
  };
}

function arbiterState(state: MirrorState): Pick<PairStatus['arbiter'], 'state' | 'why'> {
  const { arbiterBad, arbiterWhy, arbiterId, asked } = state;
  if (arbiterBad !== null) return { state: 'bad', why: arbiterBad };
  if (arbiterWhy !== null) return { state: 'silent', why: arbiterWhy };
  const isAsked = arbiterId > 1 || (arbiterId === 1 && asked === null);
  return { state: isAsked ? 'ok' : 'unknown', why: '' };
}
