import { hasArbiter } from '../config/index.ts';
import type { ClusterConfig, ModuleConfig, TimingProfile } from '../config/model.ts';
import { type MirrorPace, mirrorProfiles, mirrorTiming } from '../core/mirror-timing.ts';
import { HoldfastError } from '../errors.ts';

/** One deadline of the chain that a failure goes through. */
export interface TimingRow {
  /** Whose chain: `cluster`, `mirror NAME`, `profile NAME`. */
  readonly of: string;
  readonly name: string;
  readonly ms: number;
  readonly meaning: string;
}

/** Silence on all networks after which a peer is suspect, ms. */
export function suspectMs(cluster: ClusterConfig): number {
  return cluster.heartbeatMs * cluster.lostCount;
}

/** Which chains are asked for: those of a module, or what a profile would make of a mirror here. */
export interface TimingQuery {
  readonly module: string | null;
  readonly profile: TimingProfile | null;
}

/**
 * The chains of deadlines that a query asks for: of nothing in particular, that of the cluster (farms live
 * by it alone) and those of all mirrors that have an arbiter. HF-AGENT-004; HF-CONFIG-123 for a profile that is too fast for
 * the cluster.
 */
export function timingChains(
  cluster: ClusterConfig,
  modules: Iterable<{ readonly hosted: { readonly config: ModuleConfig } | null }>,
  { module, profile }: TimingQuery,
): readonly TimingRow[] {
  const configs = [...modules].flatMap(({ hosted }) => hosted?.config ?? []);
  const named = configs.filter(({ name }) => module === null || name === module);
  if (module !== null && named.length === 0) throw new HoldfastError('HF-AGENT-004', { module });
  if (profile !== null) return profileRows(cluster, profile);
  const inForce = hasArbiter(cluster);
  // Of one that is run by hand: what it would be.
  const mirrors = named.flatMap(({ name, heart }) =>
    heart === null || (module === null && !inForce)
      ? []
      : mirrorRows(cluster, `mirror ${name}${inForce ? '' : ', with an arbiter'}`, heart.pace),
  );
  return module === null || mirrors.length === 0 ? [...timingRows(cluster), ...mirrors] : mirrors;
}

function profileRows(cluster: ClusterConfig, profile: TimingProfile): readonly TimingRow[] {
  const { heartbeatMs, lostCount } = cluster;
  const pace = { ...mirrorProfiles[profile], heartbeatMs };
  const least = suspectMs(cluster);
  if (pace.suspectMs < least) {
    const values = { suspect: pace.suspectMs, least, pulse: heartbeatMs, count: lostCount };
    throw new HoldfastError('HF-CONFIG-123', values);
  }
  return mirrorRows(cluster, `profile ${profile}`, pace);
}

/** The chain of a mirror that decides for itself. */
export function mirrorRows(
  cluster: ClusterConfig,
  of: string,
  pace: MirrorPace,
): readonly TimingRow[] {
  const timing = mirrorTiming(pace);
  const suspected = pace.heartbeatMs + timing.suspectMs + timing.headStartMs;
  const rows: readonly (readonly [string, number, string])[] = [
    ['heartbeat', pace.heartbeatMs, 'one heartbeat per peer and network (pulse of cluster.xml)'],
    [
      'suspect',
      timing.suspectMs,
      'silence on all networks after which the primary asks to go alone, and the secondary begins to take over',
    ],
    [
      'head start',
      timing.headStartMs,
      'the secondary waits this long before it asks the arbiter, so that on a mere cut the primary wins',
    ],
    [
      'lease',
      timing.leaseMs,
      "the primary's address is silent, in the kernel, this long after the secondary last consented",
    ],
    [
      'room to go alone',
      timing.leaseMs - timing.suspectMs,
      'what the arbiter has to let a primary go alone; a slower one silences the address for a moment',
    ],
    [
      'grace',
      timing.graceMs,
      'from the last heartbeat of the former primary until its lease is surely over: no address opens before',
    ],
    ['ask', timing.askMs, 'a server that starts waits this long for the word of the other one'],
    [
      'agent deadline',
      Math.min(cluster.agentDeadlineMs, timing.leaseMs),
      'an agent that gave no sign of life for this long loses the lease',
    ],
    [
      'worst gap, server lost',
      Math.max(timing.graceMs, suspected),
      'from the failure until the address may answer on the other server, as far as its application has started (without the time of the arbiter)',
    ],
  ];
  return rows.map(([name, ms, meaning]) => ({ of, name, ms, meaning }));
}

/**
 * The chain of deadlines in force, in the order in which a failure meets them. Everything that
 * shows or documents timing reads it from here.
 */
export function timingRows(cluster: ClusterConfig): readonly TimingRow[] {
  const suspect = suspectMs(cluster);
  const rows = [
    {
      name: 'heartbeat',
      ms: cluster.heartbeatMs,
      meaning: 'one heartbeat per peer and network (pulse)',
    },
    {
      name: 'suspect',
      ms: suspect,
      meaning: 'silence on all networks after which a peer is taken as dead (pulse × slost_count)',
    },
    {
      name: 'lease',
      ms: cluster.leaseMs,
      meaning: 'after its last renewal the kernel answers no more for a VIP',
    },
    {
      name: 'lease margin',
      ms: suspect - cluster.leaseMs,
      meaning: 'a dead or stopped server has been silent at least this long when others take over',
    },
    {
      name: 'agent deadline',
      ms: cluster.agentDeadlineMs,
      meaning: 'an agent that gave no sign of life for this long loses its leases and its buckets',
    },
    {
      name: 'worst gap, server lost',
      ms: suspect + cluster.heartbeatMs,
      meaning:
        'from the failure to the order that gives its clients to the others (without the time of the order itself)',
    },
  ];
  return rows.map((row) => ({ of: 'cluster', ...row }));
}
