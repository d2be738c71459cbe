/**
 * Join tokens. A token is 256 random bits and the fingerprint of the cluster CA; only the SHA-256
 * of the random part is kept, as the name of a small file. Using it up is one unlink(2): whoever
 * races, exactly one wins, also between processes and across a crash.
 *
 * Time is the boot clock, so a changed wall clock neither kills nor revives a token; a reboot of
 * the issuing server voids its tokens.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../errors.ts';
import { makePrivateFolder, syncFolder, writeDurable } from './files.ts';

/** Which boot it is, and the ms since then. */
export interface BootClock {
  (): { readonly bootId: string; readonly bootMs: number };
}

export interface TokenRecord {
  readonly bootId: string;
  readonly expiresBootMs: number;
  /** The node whose place the joining server takes, or null. */
  readonly replaces: string | null;
}

export interface ParsedToken {
  readonly secret: Buffer;
  /** SHA-256 of the CA certificate of the cluster that issued it. */
  readonly caFingerprint: Buffer;
}

export const tokenTtlMs = 30 * 60_000;
const maxTtlMs = 7 * 24 * 3600_000;
/** More join lines than nodes that can exist are a mistake. */
const maxOpenTokens = 64;
const prefix = 'hf1.';

/** The kernel's boot clock; /proc/uptime is CLOCK_BOOTTIME. */
export const bootClock: BootClock = () => ({
  bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
  bootMs: Math.round(uptime() * 1000),
});

/** Takes a token apart. HF-CLUSTER-003. */
export function parseToken(token: string): ParsedToken {
  const bytes = Buffer.from(token.slice(prefix.length), 'base64url');
  if (!token.startsWith(prefix) || bytes.length !== 64) throw new HoldfastError('HF-CLUSTER-003');
  return { secret: bytes.subarray(0, 32), caFingerprint: bytes.subarray(32) };
}

/** The tokens that this node has issued and nobody has used. */
export class TokenStore {
  readonly #folder: string;
  readonly #node: string;
  readonly #clock: BootClock;

  constructor(folder: string, node: string, clock: BootClock = bootClock) {
    this.#folder = folder;
    this.#node = node;
    this.#clock = clock;
  }

  /** Makes a token, durable before it is returned. */
  issue(caFingerprint: Uint8Array, ttlMs: number, replaces: string | null): string {
    makePrivateFolder(this.#folder);
    if (this.#purge() >= maxOpenTokens) {
      throw new HoldfastError('HF-CLUSTER-019', { count: maxOpenTokens });
    }
    const { bootId, bootMs } = this.#clock();
    const secret = randomBytes(32);
    const record: TokenRecord = {
      bootId,
      expiresBootMs: bootMs + Math.min(ttlMs, maxTtlMs),
      replaces,
    };
    writeDurable(this.#file(secret), JSON.stringify(record));
    return prefix + Buffer.concat([secret, caFingerprint]).toString('base64url');
  }

  /** What a token allows, without using it up. HF-CLUSTER-004, -005. */
  look(secret: Uint8Array): TokenRecord {
    const record = this.#read(this.#file(secret));
    if (record === null) throw new HoldfastError('HF-CLUSTER-004', { node: this.#node });
    if (this.#isExpired(record)) throw new HoldfastError('HF-CLUSTER-005', { node: this.#node });
    return record;
  }

  /** Uses a token up; durable before it returns. Exactly one caller gets through. */
  use(secret: Uint8Array): TokenRecord {
    const record = this.look(secret);
    try {
      unlinkSync(this.#file(secret));
    } catch (cause) {
      throw new HoldfastError('HF-CLUSTER-004', { node: this.#node }, null, cause);
    }
    syncFolder(this.#folder);
    return record;
  }

  #file(secret: Uint8Array): string {
    return join(this.#folder, `${createHash('sha256').update(secret).digest('hex')}.json`);
  }

  #read(file: string): TokenRecord | null {
    try {
      return JSON.parse(readFileSync(file, 'utf8')) as TokenRecord;
    } catch {
      return null;
    }
  }

  #isExpired(record: TokenRecord): boolean {
    const { bootId, bootMs } = this.#clock();
    return record.bootId !== bootId || bootMs >= record.expiresBootMs;
  }

  /** Removes what nobody can use any more; returns how many are left. */
  #purge(): number {
    let left = 0;
    for (const name of readdirSync(this.#folder)) {
      const file = join(this.#folder, name);
      const record = this.#read(file);
      if (record !== null && !this.#isExpired(record)) left += 1;
      else unlinkSync(file);
    }
    return left;
  }
}
