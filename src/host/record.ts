/** What of a module must outlive a reboot. */
import { z } from 'zod';
import type { HoldfastError } from '../errors.ts';
import { DurableFile, type StoreKind } from './store.ts';

export interface ModuleRecord {
  /** The configuration in force, as text; null: none was ever accepted. */
  readonly xml: string | null;
  /** Started by an administrator and not stopped since. */
  readonly wanted: boolean;
  /** From 1, the lowest that was free when it was installed; ports follow from it. 0: none yet. */
  readonly number: number;
}

const recordKind: StoreKind<ModuleRecord> = {
  kind: 'module',
  version: 2,
  // Version 1 had no numbers.
  parse: (content) =>
    z
      .object({
        xml: z.string().nullable(),
        wanted: z.boolean(),
        number: z.int().min(0).default(0),
      })
      .parse(content),
};

/** The lowest number from 1 that is not taken. */
export function freeNumber(taken: readonly number[]): number {
  let number = 1;
  while (taken.includes(number)) number += 1;
  return number;
}

/** Until a record that the disk did not take is tried again. */
const againMs = 5000;

/** The record of one module; it says by `onTrouble` while the disk does not have it as it is. */
export class RecordFile {
  readonly #file: DurableFile<ModuleRecord>;
  readonly #onTrouble: (error: HoldfastError | null) => void;
  #value: ModuleRecord;
  #again: NodeJS.Timeout | null = null;

  private constructor(
    file: DurableFile<ModuleRecord>,
    value: ModuleRecord,
    onTrouble: (error: HoldfastError | null) => void,
  ) {
    this.#file = file;
    this.#value = value;
    this.#onTrouble = onTrouble;
  }

  static async open(
    path: string,
    onTrouble: (error: HoldfastError | null) => void,
  ): Promise<RecordFile> {
    const { file, stored } = await DurableFile.open(path, recordKind);
    onTrouble(stored.damage);
    return new RecordFile(file, stored.value ?? { xml: null, wanted: false, number: 0 }, onTrouble);
  }

  get value(): ModuleRecord {
    return this.#value;
  }

  /** Changes it; resolves when the disk has it, or did not take it: it is then tried again. */
  async change(change: Partial<ModuleRecord>): Promise<void> {
    this.#value = { ...this.#value, ...change };
    await this.#write();
  }

  /** The module is uninstalled: nothing more is written. */
  close(): void {
    if (this.#again !== null) clearTimeout(this.#again);
    this.#again = null;
  }

  async #write(): Promise<void> {
    this.close();
    const outcome = await this.#file.write(this.#value);
    this.#onTrouble(outcome.ok ? null : outcome.error);
    if (!outcome.ok) this.#again ??= setTimeout(() => void this.#write(), againMs).unref();
  }
}
