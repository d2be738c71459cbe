import { HoldfastError } from '../errors.ts';

/** Attempts in a burst, and ms until one more is allowed: as fast as a person types. */
const burst = 5;
const refillMs = 2000;
/** Addresses remembered; beyond it the one that asked longest ago is forgotten. */
const maxAddresses = 256;

/** A token bucket per address for requests to join, which cost signatures and disk writes. */
export class JoinLimit {
  readonly #buckets = new Map<string, { left: number; atMs: number }>();
  /** Requests refused so far. */
  refused = 0;

  /** Takes one attempt of an address. HF-CLUSTER-013 where it has none left. */
  take(from: string, nowMs: number = performance.now()): void {
    const bucket = this.#buckets.get(from) ?? { left: burst, atMs: nowMs };
    const left = Math.min(burst, bucket.left + (nowMs - bucket.atMs) / refillMs);
    // Set anew, so that the map's order is that of the last attempts.
    this.#buckets.delete(from);
    this.#buckets.set(from, { left: left < 1 ? left : left - 1, atMs: nowMs });
    const [oldest] = this.#buckets.keys();
    if (this.#buckets.size > maxAddresses && oldest !== undefined) this.#buckets.delete(oldest);
    if (left >= 1) return;
    this.refused += 1;
    throw new HoldfastError('HF-CLUSTER-013', { addr: from });
  }
}
