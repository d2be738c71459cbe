import type { ModuleConfig } from '../config/model.ts';
import type { ModuleStatus, ModuleVerb } from './face.ts';
import type { Farm } from './farm.ts';

/** One installed module on this node, whatever its mode. */
export interface Hosted {
  readonly name: string;
  readonly config: ModuleConfig;
  /** Null where it takes part in no farm now. */
  readonly farm: Farm | null;
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
