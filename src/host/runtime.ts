/**
 * What an agent leaves for the one that follows it on the same boot: where each module was and what
 * its filter enforced. It lives in /run (memory), so a reboot forgets it, as it must, and a full disk
 * does not touch it. Written on every change, without waiting for a disk.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { Snapshot } from '../core/farm-types.ts';
import type { After, ModulePhase } from '../core/module.ts';
import { decodeJson, encodeJson, snapshotSchema } from './codec.ts';

export interface ModuleRuntime {
  readonly phase: ModulePhase;
  readonly after: After;
  readonly loops: readonly number[];
  readonly leaseSlot: number;
  readonly farm: Snapshot | null;
}

const runtimeSchema = z.object({
  phase: z.enum([
    'stopped',
    'prestart',
    'starting',
    'opening',
    'serving',
    'closing',
    'stopping',
    'forcing',
    'poststop',
  ]),
  after: z.enum(['stop', 'start', 'restart']),
  loops: z.array(z.number()).max(1000),
  leaseSlot: z.int().min(0).max(63),
  farm: snapshotSchema.nullable(),
});

/** The runtime file of one module. */
export class RuntimeFile {
  readonly #file: string;

  constructor(runFolder: string, module: string) {
    this.#file = join(runFolder, 'modules', `${module}.state`);
  }

  /** Null where there is none or it cannot be read: then the module starts from nothing. */
  read(): ModuleRuntime | null {
    try {
      const parsed = runtimeSchema.safeParse(decodeJson(readFileSync(this.#file, 'utf8')));
      return parsed.success ? parsed.data : null;
    } catch {
      return null;
    }
  }

  /** @throws when /run cannot be written; the caller serves on and raises an alert. */
  write(runtime: ModuleRuntime): void {
    mkdirSync(dirname(this.#file), { recursive: true, mode: 0o700 });
    const fresh = `${this.#file}.new`;
    writeFileSync(fresh, encodeJson(runtime), { mode: 0o600 });
    renameSync(fresh, this.#file);
  }

  remove(): void {
    rmSync(this.#file, { force: true });
  }
}
