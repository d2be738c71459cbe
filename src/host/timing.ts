import type { ClusterConfig } from '../config/model.ts';

/** One deadline of the chain that a failure goes through. */
export interface TimingRow {
  readonly name: string;
  readonly ms: number;
  readonly meaning: string;
}

/** Silence on all networks after which a peer is suspect, ms. */
export function suspectMs(cluster: ClusterConfig): number {
  return cluster.heartbeatMs * cluster.lostCount;
}

/**
 * The chain of deadlines in force, in the order in which a failure meets them. Everything that
 * shows or documents timing reads it from here.
 */
export function timingRows(cluster: ClusterConfig): readonly TimingRow[] {
  const suspect = suspectMs(cluster);
  return [
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
}
