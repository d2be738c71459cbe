/** What a mirror that decides for itself needs of its node, and how its configuration is the core's. */
import type { Register } from '../arbiter/register.ts';
import type { ModuleConfig, ReadyConfig } from '../config/model.ts';
import {
  type Message,
  type MirrorConfig,
  type MirrorEffect,
  mirrorTiming,
} from '../core/mirror.ts';
import type { PairStatus } from './face.ts';
import { fixedOf, type MirrorPorts } from './mirror-ports.ts';
import type { CheckPorts } from './pair-checks.ts';
import type { PeerNews } from './pair-peer.ts';

type Of<K extends MirrorEffect['kind']> = Extract<MirrorEffect, { kind: K }>;

/** The virtual address of one mirror. */
export interface PairVip {
  /** Resolves when it is in force; never rejects. */
  perform(vip: Of<'vip'>['vip']): Promise<void>;
  /** Tells the neighbours again: the lease runs again. */
  reannounce(): void;
  /** Where nothing was done yet: the addresses are not here, and nothing leaves as them until `remove`. */
  guard(): void;
  /** Takes over what a former agent left, without a gap. */
  adopt(isOpen: boolean): void;
  status(): NonNullable<PairStatus['vip']>;
  /** Leaves everything in the kernel for the next agent. */
  abandon(): void;
  remove(): void;
}

export interface PairPorts {
  readonly mirror: MirrorPorts;
  readonly me: number;
  readonly leaseSlot: number;
  /** Names of the nodes, by id. */
  readonly names: () => Readonly<Record<number, string>>;
  /** That of the arbiter, now: cluster.xml may name another one while the mirror is stopped. */
  readonly register: () => Register;
  /** Resolves when the heartbeat thread acts by it. */
  readonly announce: (effect: Of<'announce'>, leaseMs: number) => Promise<void> | void;
  /** At once: what was announced last, with or without the consent. */
  readonly consent: (on: boolean) => void;
  readonly send: (to: number, message: Message) => void;
  /** Null: the module has no virtual address. HF-AGENT-008. */
  readonly openVip: (config: ModuleConfig) => PairVip | null;
  /** Takes off what a former agent left of which nothing is known any more. */
  readonly clearVip: (config: ModuleConfig) => void;
  readonly watch: (
    ready: ReadyConfig,
    config: ModuleConfig,
    report: (up: boolean, why: string) => void,
  ) => { stop(): void };
  readonly checks: CheckPorts;
  /** What the heartbeats have said of a node; null: nothing yet. */
  readonly peer: (node: number) => PeerNews | null;
  /** False: the lease of the virtual address has run out. */
  readonly leaseHeld: () => boolean;
  readonly poll: () => void;
}

/** The other of a mirror's two servers; null: this one is none of two. */
export function peerOf(config: ModuleConfig, me: number): number | null {
  const nodes = config.rfs?.nodes ?? [];
  if (nodes.length !== 2 || !nodes.includes(me)) return null;
  return nodes.find((node) => node !== me) ?? null;
}

/** HF-CONFIG-110 has refused a mirror without <heart>. */
export function coreConfig(
  config: ModuleConfig,
  me: number,
  peer: number,
  names: Readonly<Record<number, string>>,
): MirrorConfig {
  const { service, heart, ready, rfs } = config;
  if (heart === null) throw new Error(`mirror ${config.name} without <heart>`);
  return {
    me,
    peer,
    names: { [me]: names[me] ?? `node ${me}`, [peer]: names[peer] ?? `node ${peer}` },
    hasData: rfs !== null,
    timing: mirrorTiming(heart.pace),
    defaultPrim: service.defaultPrim,
    maxloop: service.maxloop,
    loopIntervalMs: service.loopIntervalMs,
    hasHealth: ready !== null,
    startMs: ready?.startTimeoutMs ?? 0,
    healthAction: ready?.action ?? 'noaction',
  };
}

/** The first thing that differs and cannot change while the mirror runs, or null. */
export function stopNeededFor(now: ModuleConfig, next: ModuleConfig): string | null {
  const differs = (a: unknown, b: unknown): boolean => JSON.stringify(a) !== JSON.stringify(b);
  if (now.service.mode !== next.service.mode) return 'mode';
  if (differs(fixedOf(now), fixedOf(next)) || differs(now.rfs?.nodes, next.rfs?.nodes)) {
    return '<rfs>';
  }
  const addresses = (config: ModuleConfig): string =>
    JSON.stringify(config.vip ?? null, (key, item: unknown) => (key === 'line' ? undefined : item));
  if (addresses(now) !== addresses(next)) return 'virtual interfaces and addresses';
  return null;
}
