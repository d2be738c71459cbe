/** What of a mirror must outlive the agent (in /run) and the server (on disk). */
import { join } from 'node:path';
import { z } from 'zod';
import { HoldfastError } from '../errors.ts';
import { Kept } from './runtime.ts';
import { DurableFile, type StoreKind } from './store.ts';

const phases = [
  'stopped',
  'prestart',
  'opening',
  'waiting',
  'starting',
  'serving',
  'stopping',
  'forcing',
  'unmounting',
  'poststop',
] as const;

export type MirrorPhase = (typeof phases)[number];

export type MirrorRole = 'prim' | 'second';

export interface MirrorRuntime {
  readonly phase: MirrorPhase;
  readonly role: MirrorRole;
  readonly goal: 'up' | 'stop' | 'force' | 'restart';
}

const runtimeSchema: z.ZodType<MirrorRuntime> = z.object({
  phase: z.enum(phases),
  role: z.enum(['prim', 'second']),
  goal: z.enum(['up', 'stop', 'force', 'restart']),
});

/** Where the module was, for the agent that follows on the same boot. */
export class MirrorRuntimeFile extends Kept<MirrorRuntime> {
  constructor(runFolder: string, module: string) {
    super(join(runFolder, 'modules', `${module}.mirror`), runtimeSchema);
  }
}

interface Stored {
  readonly epoch: number;
}

const kind: StoreKind<Stored> = {
  kind: 'mirror',
  version: 1,
  parse: (content) => z.object({ epoch: z.int().min(0) }).parse(content),
};

/** The highest epoch that this server knows of. It only grows. */
export class MirrorRecord {
  readonly #file: DurableFile<Stored>;
  #epoch: number;

  private constructor(file: DurableFile<Stored>, epoch: number) {
    this.#file = file;
    this.#epoch = epoch;
  }

  /** `stateFolder` is that of the module. */
  static async open(
    stateFolder: string,
    onTrouble: (error: HoldfastError | null) => void,
  ): Promise<MirrorRecord> {
    const { file, stored } = await DurableFile.open(join(stateFolder, 'mirror.json'), kind);
    onTrouble(stored.damage);
    return new MirrorRecord(file, stored.value?.epoch ?? 0);
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** Resolves with the epoch once it is durable; rejects with HF-AGENT-100 where it cannot be. */
  async raise(epoch: number): Promise<number> {
    if (epoch <= this.#epoch) return this.#epoch;
    this.#epoch = epoch;
    const outcome = await this.#file.write({ epoch });
    if (!outcome.ok) throw outcome.error;
    return epoch;
  }
}
