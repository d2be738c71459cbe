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

/** Six bytes, hex, lower case. */
export const macSchema = z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);

export interface ModuleRuntime {
  readonly phase: ModulePhase;
  readonly after: After;
  readonly loops: readonly number[];
  readonly leaseSlot: number;
  readonly farm: Snapshot | null;
}

const runtimeSchema: z.ZodType<ModuleRuntime> = z.object({
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

/** MAC of each node's device on each lan, by node id and lan name. */
export type NodeMacs = Readonly<Record<string, Readonly<Record<string, string>>>>;

const macsSchema: z.ZodType<NodeMacs> = z.record(
  z.string().max(2),
  z.record(z.string().max(64), macSchema),
);

/** A small file in /run, written on every change without waiting for a disk. */
export class Kept<T> {
  readonly #file: string;
  readonly #schema: z.ZodType<T>;

  constructor(file: string, schema: z.ZodType<T>) {
    this.#file = file;
    this.#schema = schema;
  }

  /** Null where there is none or it cannot be read: then the agent starts from nothing. */
  read(): T | null {
    try {
      const parsed = this.#schema.safeParse(decodeJson(readFileSync(this.#file, 'utf8')));
      return parsed.success ? parsed.data : null;
    } catch {
      return null;
    }
  }

  /** @throws when /run cannot be written; the caller serves on and raises an alert. */
  write(value: T): void {
    mkdirSync(dirname(this.#file), { recursive: true, mode: 0o700 });
    const fresh = `${this.#file}.new`;
    writeFileSync(fresh, encodeJson(value), { mode: 0o600 });
    renameSync(fresh, this.#file);
  }

  remove(): void {
    rmSync(this.#file, { force: true });
  }
}

/** The runtime file of one module. */
export class RuntimeFile extends Kept<ModuleRuntime> {
  constructor(runFolder: string, module: string) {
    super(join(runFolder, 'modules', `${module}.state`), runtimeSchema);
  }
}

/** What the peers said of their devices: a server that forwards to them does so before they say it again. */
export class MacFile extends Kept<NodeMacs> {
  constructor(runFolder: string) {
    super(join(runFolder, 'macs'), macsSchema);
  }
}
