/** All times of a mirror, from two figures: when a peer is suspect, and how long a lease lasts. */
import type { MirrorTiming } from './mirror-types.ts';

/** Most by which two clocks may differ in rate: 1 %. Beyond it the host raises an alert. */
const rate = 1.01;
/** A lease ends late in the kernel (timer slack, measured 15 ms) and a word leaves late: δ. */
const slackMinMs = 50;
const slackMaxMs = 150;

export interface MirrorPace {
  readonly heartbeatMs: number;
  readonly suspectMs: number;
  readonly leaseMs: number;
}

/**
 * Shipped profiles. fast: two dedicated networks, real-time permitted. vm: pauses of one or two seconds
 * (snapshots, live migration) pass. wan: long ways.
 */
export const mirrorProfiles = {
  fast: { heartbeatMs: 20, suspectMs: 200, leaseMs: 300 },
  default: { heartbeatMs: 100, suspectMs: 1000, leaseMs: 1500 },
  vm: { heartbeatMs: 200, suspectMs: 2400, leaseMs: 3600 },
  wan: { heartbeatMs: 500, suspectMs: 6000, leaseMs: 9000 },
} as const satisfies Readonly<Record<string, MirrorPace>>;

/** The chain of deadlines that follows from a pace. */
export function mirrorTiming({ suspectMs, leaseMs }: MirrorPace): MirrorTiming {
  const slackMs = Math.min(slackMaxMs, Math.max(slackMinMs, leaseMs / 10));
  return {
    suspectMs,
    headStartMs: Math.round(suspectMs * 0.3),
    leaseMs,
    graceMs: Math.ceil(leaseMs * rate + slackMs),
    // Longer than a secondary takes to claim, which it does meanwhile.
    askMs: 2 * suspectMs + 1000,
    retryMs: Math.max(50, Math.round(suspectMs / 5)),
    pollMs: 1000,
    leaveMs: 2 * suspectMs,
    handOverMs: 10_000 + suspectMs,
    statusMs: 1000,
    lookMs: 10_000,
  };
}

export interface TimingFault {
  readonly what: 'lease_below_suspect' | 'suspect_below_heartbeats' | 'no_room_for_the_arbiter';
  readonly text: string;
}

/** Heartbeats that may be lost in a row before a peer is suspect, at least. */
const heartbeatsMin = 4;
/** What is left of a lease, after suspicion, for a degrade at the arbiter; less closes the address. */
const arbiterMinMs = 50;

/** What is wrong with a pace that somebody configured; empty: nothing. */
export function timingFaults(pace: MirrorPace, arbiterMs = 0): readonly TimingFault[] {
  const { heartbeatMs, suspectMs, leaseMs } = pace;
  const faults: TimingFault[] = [];
  if (suspectMs < heartbeatsMin * heartbeatMs) {
    const text = `suspect after ${suspectMs} ms is less than ${heartbeatsMin} heartbeats of ${heartbeatMs} ms`;
    faults.push({ what: 'suspect_below_heartbeats', text });
  }
  if (leaseMs <= suspectMs) {
    const text = `a lease of ${leaseMs} ms ends before the peer is suspect, after ${suspectMs} ms`;
    faults.push({ what: 'lease_below_suspect', text });
  } else if (leaseMs - suspectMs < Math.max(arbiterMinMs, 3 * arbiterMs)) {
    const text = `${leaseMs - suspectMs} ms between suspicion and the end of the lease are too few for the arbiter`;
    faults.push({ what: 'no_room_for_the_arbiter', text });
  }
  return faults;
}
