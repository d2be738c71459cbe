import type { ModuleConfig } from '../config/model.ts';
import type { Message } from '../core/mirror-types.ts';
import type { ModuleStatus, ModuleVerb } from './face.ts';
import type { Farm } from './farm.ts';
import type { PeerNews } from './pair-peer.ts';

/** What a mirror that decides for itself hears of the other nodes. */
export interface PairIntake {
  /** Heartbeats of a node. */
  onPeer(node: number, news: PeerNews): void;
  /** From a node's agent. */
  onMessage(from: number, message: Message): void;
  /** The kernel's lease of the address runs again, or has run out. */
  onLease(held: boolean): void;
}

/** One installed module on this node, whatever its mode. */
export interface Hosted {
  readonly name: string;
  readonly config: ModuleConfig;
  /** Null where it takes part in no farm now. */
  readonly farm: Farm | null;
  /** Null where it is no mirror that decides for itself. */
  readonly pair: PairIntake | null;
  readonly stopped: boolean;
  /** Finds what a former agent of this boot left; true: `adopt` is to follow. */
  findFormer(): Promise<boolean>;
  /** Takes over what was found, without waiting for anything. */
  adopt(): void;
  /** Resolves when the module is where it was asked to go, or cannot get there. */
  command(verb: ModuleVerb): Promise<void>;
  /** Takes another configuration; HF-AGENT-006 for what needs a stop. */
  setConfig(config: ModuleConfig): void;
  why(): readonly string[];
  status(): ModuleStatus;
  /** Lets go without touching the application or the kernel: the next agent takes over. */
  abandon(): void;
}

/** The status of a module that has no valid configuration yet. */
export function withoutConfig(name: string, why: readonly string[]): ModuleStatus {
  const nothing = { farm: null, replica: null, pair: null, resources: {}, signature: '' };
  const stopped = { state: 'STOP', readiness: 'NotReady', loopCount: 0, maxloop: 0 } as const;
  return { name, mode: 'farm', why, ...stopped, ...nothing };
}
