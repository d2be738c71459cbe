/** What one fault cost, from what the clients, the probe and the journals of both servers saw. */
import type { EventRecord } from '../../../src/host/face.ts';
import type { Answer } from '../set-check.ts';

/** Of one fault that was done once. Milliseconds. */
export interface Measured {
  /** Until a server's journal first told of it; null: there was nothing to tell. */
  readonly detectionMs: number | null;
  /** Longest time in which nobody answered an echo request to the virtual IP. */
  readonly addressMs: number;
  /** Longest time between two records that were acknowledged to any client. */
  readonly applicationMs: number;
  /** Records that were acknowledged and are not there. */
  readonly lost: number;
  /** The other server is primary afterwards. */
  readonly moved: boolean;
}

export interface Seen {
  readonly answers: readonly Answer[];
  /** When the fault was done and when all was well again, CLOCK_MONOTONIC. */
  readonly faultNs: number;
  readonly endNs: number;
  /** The same moment as faultNs, CLOCK_BOOTTIME. */
  readonly faultBootMs: number;
  readonly silentMs: number;
  readonly events: readonly EventRecord[];
  readonly lost: number;
  readonly moved: boolean;
}

/** Longest time between two acknowledgements, the last one before the fault included. */
export function outageMs(answers: readonly Answer[], faultNs: number, endNs: number): number {
  const times = answers.filter(({ kind }) => kind === 'w').map(({ seenNs }) => seenNs);
  const before = times.filter((ns) => ns <= faultNs).reduce((a, b) => Math.max(a, b), 0);
  const after = times.filter((ns) => ns > faultNs && ns <= endNs).toSorted((a, b) => a - b);
  let last = before === 0 ? faultNs : before;
  let most = 0;
  for (const ns of [...after, endNs]) {
    most = Math.max(most, ns - last);
    last = ns;
  }
  return most / 1e6;
}

export function measuredOf(seen: Seen): Measured {
  const told = seen.events
    .filter(({ kind, bootMs }) => kind !== 'command' && bootMs > seen.faultBootMs)
    .map(({ bootMs }) => bootMs);
  return {
    detectionMs: told.length === 0 ? null : Math.min(...told) - seen.faultBootMs,
    addressMs: seen.silentMs,
    applicationMs: outageMs(seen.answers, seen.faultNs, seen.endNs),
    lost: seen.lost,
    moved: seen.moved,
  };
}

/** What all rounds of a fault cost: medians, and the worst. */
export interface Cost {
  readonly rounds: number;
  readonly detectionMs: number | null;
  readonly addressMs: number;
  readonly addressMaxMs: number;
  readonly applicationMs: number;
  readonly applicationMaxMs: number;
  readonly lost: number;
  /** Rounds after which the other server was primary. */
  readonly moved: number;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}

export function costOf(rounds: readonly Measured[]): Cost {
  const detected = rounds.flatMap(({ detectionMs }) => (detectionMs === null ? [] : [detectionMs]));
  const address = rounds.map(({ addressMs }) => addressMs);
  const application = rounds.map(({ applicationMs }) => applicationMs);
  return {
    rounds: rounds.length,
    detectionMs: detected.length === 0 ? null : Math.round(median(detected)),
    addressMs: Math.round(median(address)),
    addressMaxMs: Math.round(Math.max(...address)),
    applicationMs: Math.round(median(application)),
    applicationMaxMs: Math.round(Math.max(...application)),
    lost: rounds.reduce((sum, { lost }) => sum + lost, 0),
    moved: rounds.filter(({ moved }) => moved).length,
  };
}
