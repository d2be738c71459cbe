/**
 * The arbiter of the simulated world: one record, changed by compare-and-swap, durable before the
 * reply. It is down, slow, or hears a request twice; what it says was true when it said it.
 */
import type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';

export type ArbiterRequest =
  | { readonly kind: 'read' }
  | { readonly kind: 'swap'; readonly from: ArbiterRecord | null; readonly to: ArbiterRecord };

export class SimRegister {
  record: ArbiterRecord | null = null;
  /** What the last swap made of it; a restored backup is not that. */
  newest: ArbiterRecord | null = null;
  /** Every record that it ever had. */
  readonly past: ArbiterRecord[] = [];
  down = false;

  answer(request: ArbiterRequest): ArbiterAnswer {
    const { record } = this;
    if (request.kind === 'read') return { outcome: 'record', record };
    // Heard twice: it was done the first time.
    if (isEqual(record, request.to)) return { outcome: 'won' };
    if (!isEqual(record, request.from)) return { outcome: 'lost', record };
    if (record !== null) this.past.push(record);
    this.record = this.newest = request.to;
    return { outcome: 'won' };
  }
}

/** The whole record counts. */
export function isEqual(a: ArbiterRecord | null, b: ArbiterRecord | null): boolean {
  if (a === null || b === null) return a === b;
  return (
    a.incarnation === b.incarnation &&
    a.epoch === b.epoch &&
    a.primary === b.primary &&
    a.leaseMs === b.leaseMs &&
    a.inSync.join() === b.inSync.join()
  );
}
