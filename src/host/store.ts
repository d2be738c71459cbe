import { link, mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { HoldfastError } from '../errors.ts';
import { errnoOf, syncDirectory } from '../module/durable.ts';

/*
 * Small durable JSON files: one header line {"kind","version","crc32"} and the JSON it covers. A file
 * is replaced by rename, and the one before it stays beside it as `.previous`, so neither a crash nor
 * bit rot leaves nothing. Operating errors are results, never exceptions: a full disk must not stop
 * the node from serving.
 */

/** What a file holds and how its content is read. */
export interface StoreKind<T> {
  /** Says what the file is; a file of another kind is damage. */
  readonly kind: string;
  /** Version that is written. */
  readonly version: number;
  /** Makes the value from what an equal or lower version wrote; throws when it is not one. */
  parse(content: unknown, version: number): T;
}

export type WriteOutcome =
  | { readonly ok: true }
  | { readonly ok: false; readonly noSpace: boolean; readonly error: HoldfastError };

export interface Stored<T> {
  /** Null: there is no readable copy. */
  readonly value: T | null;
  readonly from: 'current' | 'previous' | 'nothing';
  /** HF-AGENT-101 or -102 when the newest copy could not be used; for an alert. */
  readonly damage: HoldfastError | null;
}

/** A state of the node has no more than some thousand names in it. */
const maxBytes = 4 * 1024 * 1024;

/** One durable file. Writes are carried out in order; `write` may be called at any time. */
export class DurableFile<T> {
  readonly #path: string;
  readonly #kind: StoreKind<T>;
  /** The file in place is whole: only then it may become the previous one. */
  #currentWhole = false;
  #writing: Promise<WriteOutcome> | null = null;
  /** The next write; a newer value takes the place of one that has not begun. */
  #next: { value: T; outcome: Promise<WriteOutcome> } | null = null;

  private constructor(path: string, kind: StoreKind<T>) {
    this.#path = path;
    this.#kind = kind;
  }

  /** Reads the file, or the copy before it when it is damaged. Never rejects. */
  static async open<T>(
    path: string,
    kind: StoreKind<T>,
  ): Promise<{ readonly file: DurableFile<T>; readonly stored: Stored<T> }> {
    const file = new DurableFile(path, kind);
    return { file, stored: await file.#read() };
  }

  /**
   * Replaces the content. Resolves when this value, or one given later, is durable, or could not be
   * made so: then the former content stays. Never rejects.
   */
  write(value: T): Promise<WriteOutcome> {
    if (this.#next !== null) {
      this.#next.value = value;
      return this.#next.outcome;
    }
    if (this.#writing === null) {
      this.#writing = this.#replace(value);
      return this.#writing;
    }
    const before = this.#writing;
    const next = {
      value,
      outcome: before.then(() => {
        this.#next = null;
        this.#writing = this.#replace(next.value);
        return this.#writing;
      }),
    };
    this.#next = next;
    return next.outcome;
  }

  /** Removes the file and its copies, after the writes under way. */
  async remove(): Promise<WriteOutcome> {
    await (this.#next?.outcome ?? this.#writing);
    try {
      for (const suffix of ['', '.previous', '.damaged', '.new']) {
        await rm(`${this.#path}${suffix}`, { force: true });
      }
      this.#currentWhole = false;
      return { ok: true };
    } catch (error) {
      return this.#failed(error);
    }
  }

  async #read(): Promise<Stored<T>> {
    const current = await this.#readCopy(this.#path);
    if (current.value !== null) {
      this.#currentWhole = true;
      return { value: current.value, from: 'current', damage: null };
    }
    if (current.damage?.code === 'HF-AGENT-101') {
      await rename(this.#path, `${this.#path}.damaged`).catch(() => undefined);
    }
    if (current.damage?.code === 'HF-AGENT-102') {
      // A newer program's file is not ours to replace by what is older still.
      this.#currentWhole = true;
      return { value: null, from: 'nothing', damage: current.damage };
    }
    const previous = await this.#readCopy(`${this.#path}.previous`);
    const damage = current.damage ?? previous.damage;
    if (previous.value === null) return { value: null, from: 'nothing', damage };
    return { value: previous.value, from: 'previous', damage: damage ?? this.#damaged('missing') };
  }

  async #readCopy(path: string): Promise<{ value: T | null; damage: HoldfastError | null }> {
    try {
      const text = await readFile(path, 'utf8');
      return { value: this.#parse(text), damage: null };
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return { value: null, damage: null };
      if (error instanceof HoldfastError) return { value: null, damage: error };
      return { value: null, damage: this.#damaged(errnoOf(error)) };
    }
  }

  #parse(text: string): T {
    const cut = text.indexOf('\n');
    const header = JSON.parse(text.slice(0, Math.max(cut, 0))) as Partial<Header> | null;
    const body = text.slice(cut + 1);
    if (header?.kind !== this.#kind.kind) throw this.#damaged(`not of kind ${this.#kind.kind}`);
    if (header.crc32 !== checksum(body)) throw this.#damaged('wrong checksum');
    const version = header.version;
    if (typeof version !== 'number') throw this.#damaged('no version');
    if (version > this.#kind.version) {
      const values = { file: this.#path, found: version, known: this.#kind.version };
      throw new HoldfastError('HF-AGENT-102', values);
    }
    return this.#kind.parse(JSON.parse(body), version);
  }

  async #replace(value: T): Promise<WriteOutcome> {
    const fresh = `${this.#path}.new`;
    try {
      const body = `${JSON.stringify(value)}\n`;
      if (body.length > maxBytes) return this.#failed(new Error(`larger than ${maxBytes} bytes`));
      const header: Header = {
        kind: this.#kind.kind,
        version: this.#kind.version,
        crc32: checksum(body),
      };
      await mkdir(dirname(this.#path), { recursive: true, mode: 0o711 });
      await writeWhole(fresh, `${JSON.stringify(header)}\n${body}`);
      if (this.#currentWhole) {
        await rm(`${this.#path}.previous`, { force: true });
        await link(this.#path, `${this.#path}.previous`);
      }
      await rename(fresh, this.#path);
      this.#currentWhole = true;
      await syncDirectory(dirname(this.#path));
      return { ok: true };
    } catch (error) {
      await rm(fresh, { force: true }).catch(() => undefined);
      return this.#failed(error);
    } finally {
      if (this.#next === null) this.#writing = null;
    }
  }

  #failed(cause: unknown): WriteOutcome {
    const reason = errnoOf(cause);
    const values = { file: this.#path, reason };
    const error = new HoldfastError('HF-AGENT-100', values, null, cause);
    return { ok: false, noSpace: reason === 'ENOSPC' || reason === 'EDQUOT', error };
  }

  #damaged(reason: string): HoldfastError {
    return new HoldfastError('HF-AGENT-101', { file: basename(this.#path), reason });
  }
}

interface Header {
  readonly kind: string;
  readonly version: number;
  readonly crc32: string;
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0');
}

async function writeWhole(path: string, text: string): Promise<void> {
  const handle = await open(path, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
