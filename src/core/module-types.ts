/** The words of a module's life: states, what goes in (events), what comes out (effects). */

export type ModulePhase =
  | 'stopped'
  | 'prestart'
  | 'starting'
  | 'opening'
  | 'serving'
  | 'closing'
  | 'stopping'
  | 'forcing'
  | 'poststop';

/** Where a module goes once it is stopped. */
export type After = 'stop' | 'start' | 'restart';
export type ModuleVerb = 'start' | 'stop' | 'restart' | 'stopstart' | 'forcestop';
export type HealthAction = 'restart' | 'stopstart' | 'stop' | 'wait' | 'noaction';
export type ScriptAction = 'start' | 'stop' | 'stopstart' | 'restart';

export interface ModuleSettings {
  readonly maxloop: number;
  /** 0: automatic actions are not limited. */
  readonly loopIntervalMs: number;
  /** False: the module counts as healthy once start_both has succeeded. */
  readonly hasHealth: boolean;
  readonly healthAction: HealthAction;
  /** How long the way out of the farm may take before the application is stopped all the same. */
  readonly closeTimeoutMs: number;
}

export interface ModuleState {
  readonly settings: ModuleSettings;
  readonly phase: ModulePhase;
  readonly after: After;
  readonly action: ScriptAction;
  /** Last word of the health check since the application was started; null: none yet. */
  readonly health: boolean | null;
  readonly healthWhy: string;
  /** Times of the automatic actions that still count. */
  readonly loops: readonly number[];
  /** When `closing` goes on without an answer. */
  readonly closeByMs: number | null;
  /** Why it is not where it was asked to be, newest first. */
  readonly why: readonly string[];
  /** A stop that was asked for while a start script runs; carried out when that ends. */
  readonly pending: 'stop' | 'stopstart' | 'restart' | 'forcestop' | null;
}

export type ModuleEvent =
  | { readonly kind: 'command'; readonly nowMs: number; readonly verb: ModuleVerb }
  | {
      readonly kind: 'scriptDone';
      readonly nowMs: number;
      readonly ok: boolean;
      /** What went wrong, a sentence part; empty when ok. */
      readonly why: string;
    }
  | { readonly kind: 'health'; readonly nowMs: number; readonly up: boolean; readonly why: string }
  /** This node owns no bucket any more. */
  | { readonly kind: 'closed'; readonly nowMs: number }
  /** A new agent finds the module as a former one left it. */
  | {
      readonly kind: 'adopt';
      readonly nowMs: number;
      readonly phase: ModulePhase;
      readonly after: After;
      readonly loops: readonly number[];
    }
  | { readonly kind: 'settings'; readonly nowMs: number; readonly settings: ModuleSettings }
  | { readonly kind: 'tick'; readonly nowMs: number };

export type ModuleEffect =
  | {
      readonly kind: 'run';
      readonly script: 'prestart' | 'start_both' | 'stop_both' | 'poststop';
      readonly current: 'STOP' | 'WAIT' | 'UP';
      readonly next: 'STOP' | 'WAIT' | 'UP';
      readonly action: ScriptAction;
      readonly force: boolean;
    }
  /** End the script that runs now; its scriptDone still comes. */
  | { readonly kind: 'cancel' }
  /** The node takes part in the farm (filter on the device, no buckets yet) / leaves it. */
  | { readonly kind: 'farm'; readonly on: boolean }
  /** Clients may come to this node / may not. Off is answered by `closed`. */
  | { readonly kind: 'gate'; readonly open: boolean }
  | { readonly kind: 'watch'; readonly on: boolean }
  | {
      readonly kind: 'record';
      readonly record: 'transition' | 'refusal' | 'check';
      readonly text: string;
      readonly data: Readonly<Record<string, unknown>>;
    };
