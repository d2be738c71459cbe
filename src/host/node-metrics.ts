/** What a node says of itself to Prometheus. */
import type { BeatStats } from '../native/beat.ts';
import type { FarmDevice } from './device.ts';
import type { DistantStatus, ModuleStatus, NodeStatus, PairStatus, ReplicaStatus } from './face.ts';
import { MetricsPage } from './metrics.ts';

export interface NodeMetrics {
  readonly status: NodeStatus;
  readonly beat: BeatStats;
  readonly channel: Readonly<Record<string, number>>;
  readonly devices: readonly FarmDevice[];
}

/** What of the channel's figures goes down again. */
const channelGauges = new Set(['connected', 'incoming', 'queued_bytes']);

/** The scrape page of one node. Names: holdfast_<part>_<what>_<unit>. */
export function writeNodeMetrics(node: NodeMetrics): string {
  const page = new MetricsPage();
  page.gauge('holdfast_alerts', 'Open alerts.', node.status.alerts.length);
  for (const module of node.status.modules) writeModule(page, module);
  writeBeat(page, node);
  for (const [name, value] of Object.entries(node.channel)) {
    if (channelGauges.has(name)) {
      page.gauge(`holdfast_peer_channel_${name}`, 'Peer channel, now.', value);
      continue;
    }
    page.counter('holdfast_peer_channel_total', 'Peer channel, by what happened.', value, {
      what: name,
    });
  }
  for (const device of node.devices) {
    const { reasons, rules } = device.counters();
    for (const [reason, packets] of Object.entries(reasons)) {
      page.counter(
        'holdfast_filter_packets_total',
        'Packets to VIPs, by what became of them.',
        packets,
        {
          device: device.name,
          reason,
        },
      );
    }
    for (const [rule, { accepted, dropped }] of rules.entries()) {
      const labels = { device: device.name, rule: String(rule) };
      page.counter('holdfast_filter_rule_packets_total', 'Packets by rule.', accepted, {
        ...labels,
        verdict: 'accepted',
      });
      page.counter('holdfast_filter_rule_packets_total', 'Packets by rule.', dropped, {
        ...labels,
        verdict: 'dropped',
      });
    }
  }
  return page.text();
}

function writeModule(page: MetricsPage, module: ModuleStatus): void {
  const labels = { module: module.name };
  const ready = module.readiness === 'Ready' ? 1 : 0;
  page.gauge('holdfast_module_state', 'Always 1; the labels say the state.', 1, {
    ...labels,
    state: module.state,
    readiness: module.readiness,
  });
  page.gauge('holdfast_module_ready', '1 while the module is Ready.', ready, labels);
  page.gauge(
    'holdfast_module_loops',
    'Automatic actions within loop_interval.',
    module.loopCount,
    labels,
  );
  const { farm, pair, replica } = module;
  if (replica !== null) writeReplica(page, module.name, replica);
  if (pair !== null) writePair(page, module.name, pair);
  if (farm === null) return;
  page.gauge('holdfast_farm_view_epoch', 'Number of the view in force.', farm.viewEpoch, labels);
  page.gauge('holdfast_farm_members', 'Members of the view.', farm.members.length, labels);
  for (const group of farm.groups) {
    const byGroup = { ...labels, group: group.name };
    page.gauge('holdfast_farm_buckets', 'Buckets that this node owns.', group.buckets, byGroup);
    page.gauge(
      'holdfast_farm_holding',
      'Buckets kept for old connections.',
      group.holding,
      byGroup,
    );
    page.gauge('holdfast_farm_power', 'Power of this node.', group.power, byGroup);
  }
}

/** Metrics of a mirror that decides for itself. */
function writePair(page: MetricsPage, module: string, pair: PairStatus): void {
  const labels = { module };
  const { role, record, promised, arbiter, lease, peer, failover, vip } = pair;
  const gauge = (name: string, help: string, value: number): void =>
    page.gauge(`holdfast_mirror_${name}`, help, value, labels);
  gauge('primary', '1 while this server is primary.', Number(role === 'primary'));
  gauge('record_epoch', "Epoch of the arbiter's record, as known here.", record?.epoch ?? 0);
  gauge('promised_epoch', 'Nothing of an older epoch is taken or served.', promised);
  const copies = record?.inSync.length ?? 0;
  gauge('in_sync_servers', 'Servers that have all that was acknowledged.', copies);
  gauge(
    'arbiter_answers',
    '0 while the arbiter is silent or cannot be used.',
    Number(isWell(arbiter)),
  );
  gauge('lease_held', '1 while the virtual IP may answer here.', Number(lease.held));
  gauge('vip_open', '1 while the virtual IP is open here.', Number(vip?.open === true));
  gauge('peer_heard', '1 while both servers hear each other.', Number(peer.reach === 'both'));
  gauge('failover', '1 while this server may take over.', Number(failover));
}

const isWell = ({ state }: PairStatus['arbiter']): boolean => state === 'ok' || state === 'unknown';

/** Metrics of a mirror; what the engine does not say in its role is left out. */
function writeReplica(page: MetricsPage, module: string, replica: ReplicaStatus): void {
  const labels = { module };
  const { engine } = replica;
  const gauge = (name: string, help: string, key: string, scale = 1): void => {
    const value = Number(engine[key] ?? Number.NaN);
    if (!Number.isNaN(value)) page.gauge(`holdfast_replica_${name}`, help, value * scale, labels);
  };
  const counter = (name: string, help: string, key: string): void => {
    const value = Number(engine[key] ?? Number.NaN);
    if (!Number.isNaN(value)) page.counter(`holdfast_replica_${name}_total`, help, value, labels);
  };
  page.gauge(
    'holdfast_replica_peer_connected',
    '1 while the peer is connected.',
    replica.peerState === 'connected' ? 1 : 0,
    labels,
  );
  page.gauge(
    'holdfast_replica_alone',
    '1 while the primary acknowledges without its peer.',
    replica.alone ? 1 : 0,
    labels,
  );
  page.gauge('holdfast_replica_epoch', 'Highest epoch known here.', replica.epoch, labels);
  gauge('last_lsn', 'Last change.', 'last');
  gauge('acknowledged_lsn', 'Last change that is durable on the secondary.', 'durable');
  gauge('applied_lsn', "Last change that is in the secondary's directories.", 'applied');
  const lag = Number(engine['last'] ?? Number.NaN) - Number(engine['durable'] ?? Number.NaN);
  if (replica.role === 'prim' && !Number.isNaN(lag)) {
    const help = 'Changes that are not durable on the secondary yet.';
    page.gauge('holdfast_replica_lag_changes', help, Math.max(0, lag), labels);
  }
  gauge('ring_bytes', 'Changes in memory that the secondary may not have.', 'ring_used');
  gauge('ring_size_bytes', 'Size of that memory.', 'ring_size');
  gauge('journal_bytes', 'Changes in the journal that are not in the directories.', 'journal_used');
  gauge('sync_p50_seconds', 'Synced writes, wait for the secondary: median.', 'sync_p50_us', 1e-6);
  gauge('sync_p99_seconds', 'Synced writes, wait for the secondary: p99.', 'sync_p99_us', 1e-6);
  gauge('in_sync', '1 while the other copy holds all that was acknowledged.', 'insync');
  gauge('dirty_bytes', 'Data that the other copy lacks.', 'dirty_bytes');
  gauge('dirty_files', 'Files that it lacks something of.', 'dirty_files');
  gauge('resync_run', 'Number of the resynchronisation under way; 0: none.', 'resync');
  gauge('resync_sent_bytes', 'Sent by this resynchronisation.', 'resync_sent');
  gauge('resync_read_bytes', 'Read from files by this resynchronisation.', 'resync_read');
  gauge('resync_left_bytes', 'Data that it has still to send.', 'resync_left');
  gauge('resync_bytes_per_second', 'Rate of the last seconds.', 'resync_rate');
  gauge('resync_left_seconds', 'Time that it is likely to need yet.', 'resync_seconds_left');
  gauge('undo_bytes', 'Kept to take an unfinished resynchronisation back.', 'undo_bytes');
  counter('mark_writes', 'Writes of marks, each before a change.', 'mark_writes');
  counter('syncs', 'Synced writes that waited for the secondary.', 'syncs');
  counter('sent_bytes', 'Bytes sent to the secondary.', 'bytes_sent');
  counter('worker_restarts', 'Times that the engine was started again.', 'restarts');
  for (const copy of replica.distant) writeDistant(page, { module, node: copy.node }, copy);
}

/** Metrics of one distant copy, from its primary. */
function writeDistant(
  page: MetricsPage,
  labels: { readonly module: string; readonly node: string },
  copy: DistantStatus,
): void {
  if (copy.state === 'none') return;
  const gauge = (name: string, help: string, value: number): void =>
    page.gauge(`holdfast_replica_distant_${name}`, help, value, labels);
  const counter = (name: string, help: string, value: number): void =>
    page.counter(`holdfast_replica_distant_${name}_total`, help, value, labels);
  gauge('connected', '1 while the distant copy is connected.', Number(copy.state === 'connected'));
  gauge('insync', '1 while it follows; 0: away, or in a resynchronisation.', Number(copy.inSync));
  gauge('lag_bytes', 'What it does not have durably.', copy.lagBytes);
  gauge('lag_seconds', 'Age of the oldest change that it lacks; 0: none.', copy.lagMs / 1000);
  gauge('resync_left_bytes', 'Data that it is still to get.', copy.resync?.leftBytes ?? 0);
  counter('sent_bytes', 'Bytes sent to it.', copy.sentBytes);
  counter('diverted', 'Changes that found no room in its ring.', copy.diverted);
}

function writeBeat(page: MetricsPage, { beat, status }: NodeMetrics): void {
  const counters = {
    sent: beat.sent,
    received: beat.received,
    bad_mac: beat.badMac,
    replayed: beat.replayed,
    malformed: beat.malformed,
    foreign: beat.foreign,
    unproven: beat.unproven,
    send_errors: beat.sendErrors,
    events_lost: beat.eventsLost,
    leases_renewed: beat.leasesRenewed,
    agent_restarts: beat.agentRestarts,
  };
  for (const [what, value] of Object.entries(counters)) {
    page.counter('holdfast_heartbeat_total', 'Heartbeats, by what happened.', value, { what });
  }
  page.gauge(
    'holdfast_heartbeat_lateness_seconds',
    'Worst lateness of the heartbeat timer.',
    beat.worstLatenessUs / 1e6,
  );
  for (const peer of status.peers) {
    for (const lan of peer.reach === 'self' ? [] : peer.lans) {
      const labels = { peer: peer.node, lan: lan.name };
      page.gauge(
        'holdfast_peer_up',
        '1 while heartbeats of the peer arrive.',
        lan.up ? 1 : 0,
        labels,
      );
      page.gauge('holdfast_peer_rtt_seconds', 'Round trip of heartbeats.', lan.rttUs / 1e6, labels);
    }
  }
}
