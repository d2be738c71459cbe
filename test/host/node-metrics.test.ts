import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PairStatus } from '../../src/host/face.ts';
import { writeNodeMetrics } from '../../src/host/node-metrics.ts';
import type { BeatStats } from '../../src/native/beat.ts';
import { moduleStatus, nodeStatus, replicaStatus } from '../cli/fake.ts';

const page = (
  replica: Parameters<typeof replicaStatus>[0],
  pair: PairStatus | null = null,
): string =>
  writeNodeMetrics({
    status: nodeStatus('n1', [
      moduleStatus({
        name: 'db',
        mode: 'mirror',
        farm: null,
        replica: replicaStatus(replica),
        pair,
      }),
    ]),
    beat: { sent: 0, worstLatenessUs: 0, peers: [] } as unknown as BeatStats,
    channel: {},
    devices: [],
  });

test('a mirror says where its changes are', () => {
  const engine = {
    last: '120',
    durable: '118',
    applied: '110',
    ring_used: '4096',
    ring_size: '67108864',
    sync_p50_us: '250',
    sync_p99_us: '1500',
    restarts: '2',
  };
  const text = page({ engine });
  for (const line of [
    'holdfast_replica_peer_connected{module="db"} 1',
    'holdfast_replica_alone{module="db"} 0',
    'holdfast_replica_epoch{module="db"} 3',
    'holdfast_replica_last_lsn{module="db"} 120',
    'holdfast_replica_acknowledged_lsn{module="db"} 118',
    'holdfast_replica_applied_lsn{module="db"} 110',
    'holdfast_replica_lag_changes{module="db"} 2',
    'holdfast_replica_ring_bytes{module="db"} 4096',
    'holdfast_replica_sync_p50_seconds{module="db"} 0.00025',
    'holdfast_replica_worker_restarts_total{module="db"} 2',
  ]) {
    assert.ok(text.split('\n').includes(line), `${line}\n${text}`);
  }
  assert.doesNotMatch(text, /NaN|holdfast_replica_journal_bytes/);
});

test('a mirror that decides says what it may do, and by what', () => {
  const pair: PairStatus = {
    role: 'primary',
    phase: 'prim',
    record: { incarnation: 1, epoch: 9, primary: 'n1', inSync: ['n1', 'n2'] },
    promised: 9,
    copy: 'inSync',
    arbiter: { text: 'witness w1', state: 'silent', why: 'no answer' },
    lease: { rule: 'peer', held: true },
    peer: { node: 'n2', reach: 'both', state: 'SECOND', readiness: 'Ready' },
    failover: true,
    defaultPrim: 'alone',
    home: null,
    vip: { addrs: ['10.0.0.9'], open: true, device: 'eth0', hook: 'tc' },
  };
  const text = page({}, pair);
  for (const line of [
    'holdfast_mirror_primary{module="db"} 1',
    'holdfast_mirror_record_epoch{module="db"} 9',
    'holdfast_mirror_promised_epoch{module="db"} 9',
    'holdfast_mirror_in_sync_servers{module="db"} 2',
    'holdfast_mirror_arbiter_answers{module="db"} 0',
    'holdfast_mirror_lease_held{module="db"} 1',
    'holdfast_mirror_vip_open{module="db"} 1',
    'holdfast_mirror_peer_heard{module="db"} 1',
    'holdfast_mirror_failover{module="db"} 1',
  ]) {
    assert.ok(text.split('\n').includes(line), `${line}\n${text}`);
  }
});

test('a primary says how far its distant copies are', () => {
  const text = page({
    distant: [
      {
        node: 'dr1',
        state: 'connected',
        reason: '',
        inSync: true,
        isKnown: true,
        lagBytes: 4096,
        lagMs: 1500,
        resync: null,
        sentBytes: 77,
        diverted: 2,
      },
      {
        node: 'dr2',
        state: 'none',
        reason: '',
        inSync: false,
        isKnown: true,
        lagBytes: 0,
        lagMs: 0,
        resync: null,
        sentBytes: 0,
        diverted: 0,
      },
    ],
  });
  for (const line of [
    'holdfast_replica_distant_connected{module="db",node="dr1"} 1',
    'holdfast_replica_distant_insync{module="db",node="dr1"} 1',
    'holdfast_replica_distant_lag_bytes{module="db",node="dr1"} 4096',
    'holdfast_replica_distant_lag_seconds{module="db",node="dr1"} 1.5',
    'holdfast_replica_distant_sent_bytes_total{module="db",node="dr1"} 77',
    'holdfast_replica_distant_diverted_total{module="db",node="dr1"} 2',
  ]) {
    assert.ok(text.split('\n').includes(line), `${line}\n${text}`);
  }
  assert.doesNotMatch(text, /dr2/);
});

test('what an engine does not say is left out', () => {
  const text = page({ role: 'second', peerState: 'lost', engine: {} });
  assert.match(text, /holdfast_replica_peer_connected\{module="db"\} 0/);
  assert.doesNotMatch(text, /_lsn|lag|NaN/);
});
