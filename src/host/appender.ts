import type { FileHandle } from 'node:fs/promises';
import { errnoOf } from '../module/durable.ts';

/** A file that lines are appended to, and how many of its bytes are whole lines. */
export interface AppendTarget {
  readonly handle: FileHandle;
  readonly size: number;
}

export interface AppenderOptions {
  /** Opens the file for the line with this key: the newest file, or a new one when it has grown full. */
  target(key: number, current: AppendTarget | null): Promise<AppendTarget>;
  /** fdatasync after each batch. */
  readonly sync: boolean;
  /** Lines that wait for a disk are kept up to this; beyond it the oldest are lost. */
  readonly maxPendingBytes: number;
  /** How long after a failure the next attempt is made. */
  readonly retryMs: number;
  /** The errno name while lines cannot be written, null when they can again; on change only. */
  onTrouble(reason: string | null): void;
}

interface Line {
  readonly key: number;
  readonly text: string;
}

const batchBytes = 256 * 1024;

/**
 * Appends lines to files in the background: the caller never waits for the disk, what arrives while a
 * write is under way goes with the next one, and a failed write leaves no half line.
 */
export class Appender {
  readonly #options: AppenderOptions;
  #pending: Line[] = [];
  #pendingBytes = 0;
  #target: AppendTarget | null = null;
  #draining: Promise<void> | null = null;
  #retry: NodeJS.Timeout | null = null;
  #trouble: string | null = null;
  #lost = 0;
  #closed = false;

  constructor(options: AppenderOptions) {
    this.#options = options;
  }

  /** Queues one line (with its newline). */
  push(key: number, text: string): void {
    if (this.#closed) {
      this.#lost++;
      return;
    }
    this.#pending.push({ key, text });
    this.#pendingBytes += text.length;
    if (this.#pendingBytes > this.#options.maxPendingBytes) this.#dropOldest();
    if (this.#retry === null) this.#begin();
  }

  /** Resolves when all lines were written or an attempt has failed; true when nothing waits. */
  async flush(): Promise<boolean> {
    this.#begin();
    await this.#draining;
    return this.#pending.length === 0;
  }

  /** Writes what waits, if it can be written, and closes the file. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.flush();
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
    this.#lost += this.#pending.length;
    this.#pending = [];
    await this.#target?.handle.close().catch(() => undefined);
    this.#target = null;
  }

  /** Lines that were dropped because the disk took none for too long. */
  lost(): number {
    return this.#lost;
  }

  #begin(): void {
    if (this.#draining !== null || this.#pending.length === 0) return;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
    this.#draining = this.#drain().finally(() => {
      this.#draining = null;
    });
  }

  async #drain(): Promise<void> {
    // Lines of one turn of the event loop go together.
    await Promise.resolve();
    while (this.#pending.length > 0) {
      const batch = this.#take();
      try {
        await this.#write(batch);
        this.#setTrouble(null);
      } catch (error) {
        this.#pending = [...batch, ...this.#pending];
        this.#pendingBytes = this.#pending.reduce((sum, line) => sum + line.text.length, 0);
        this.#dropOldest();
        await this.#takeBack();
        this.#setTrouble(errnoOf(error));
        if (!this.#closed) {
          this.#retry = setTimeout(() => {
            this.#retry = null;
            this.#begin();
          }, this.#options.retryMs);
          this.#retry.unref();
        }
        return;
      }
    }
  }

  #take(): Line[] {
    let count = 0;
    let bytes = 0;
    while (count < this.#pending.length && (count === 0 || bytes < batchBytes)) {
      bytes += this.#pending[count]?.text.length ?? 0;
      count++;
    }
    this.#pendingBytes -= bytes;
    return this.#pending.splice(0, count);
  }

  async #write(batch: readonly Line[]): Promise<void> {
    this.#target = await this.#options.target(batch[0]?.key ?? 0, this.#target);
    const { handle, size } = this.#target;
    const bytes = Buffer.from(batch.map((line) => line.text).join(''));
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, size + done);
      done += bytesWritten;
    }
    if (this.#options.sync) await handle.datasync();
    this.#target = { handle, size: size + bytes.length };
  }

  /** Cuts off what a failed write left, so that the next one begins where a line ends. */
  async #takeBack(): Promise<void> {
    if (this.#target === null) return;
    try {
      await this.#target.handle.truncate(this.#target.size);
    } catch {
      // The next attempt opens the file anew and writes from its last whole line.
      await this.#target.handle.close().catch(() => undefined);
      this.#target = null;
    }
  }

  #dropOldest(): void {
    while (this.#pendingBytes > this.#options.maxPendingBytes) {
      this.#pendingBytes -= this.#pending.shift()?.text.length ?? this.#pendingBytes;
      this.#lost++;
    }
  }

  #setTrouble(reason: string | null): void {
    if (reason === this.#trouble) return;
    this.#trouble = reason;
    this.#options.onTrouble(reason);
  }
}
