/** Reads what the heartbeat thread writes: the records of native/beat/shm.h, little endian. */
import type { BeatEvent, BeatStats, FaultWhat, LeaseWhy, Reach } from './beat.ts';

/** Sizes and offsets of native/beat/shm.h; openBeat compares them with those of the addon. */
export const layout = {
  module: 48,
  event: 56,
  eventAtNs: 16,
  stats: 120 + 64 * 8 * 48,
  statsRows: 120,
  statsRow: 48,
} as const;

const reaches: readonly Reach[] = ['silent', 'heard', 'both'];
const whys: readonly LeaseWhy[] = [
  'ok',
  'agent_hung',
  'not_echoed',
  'excluded_by_view',
  'no_consent',
];
const faults: readonly (FaultWhat | undefined)[] = [undefined, 'bind', 'send', 'lease_map'];

function pick<T>(list: readonly (T | undefined)[], index: number): T {
  const value = list[index];
  if (value === undefined) throw new RangeError(`value ${index} is unknown in an event`);
  return value;
}

function nsToMs(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true)) / 1e6;
}

/** Decodes the first `count` records. */
export function decodeEvents(bytes: Uint8Array, count: number): readonly BeatEvent[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: count }, (_, i) => decodeEvent(view, i * layout.event));
}

function decodeEvent(view: DataView, at: number): BeatEvent {
  const kind = view.getUint8(at);
  const node = view.getUint8(at + 1);
  const lan = view.getUint8(at + 2);
  const value = view.getUint8(at + 3);
  const key = view.getUint32(at + 8, true);
  const atMs = nsToMs(view, at + layout.eventAtNs);
  switch (kind) {
    case 1:
      return {
        kind: 'peer',
        node,
        reach: pick(reaches, value),
        boot: view.getBigUint64(at + 24, true),
        hung: view.getUint8(at + 4) === 1,
        heardMs: view.getBigUint64(at + 48, true) === 0n ? -1 : nsToMs(view, at + 48),
        atMs,
      };
    case 2:
      return {
        kind: 'module',
        node,
        key,
        flags: view.getUint32(at + 12, true),
        viewEpoch: Number(view.getBigUint64(at + 32, true)),
        viewMembers: view.getBigUint64(at + 40, true),
        atMs,
      };
    case 3:
      return { kind: 'lan', node, lan, up: value === 1, atMs };
    case 4:
      return {
        kind: 'lease',
        key,
        renewing: value === 1,
        why: pick(whys, view.getUint8(at + 5)),
        atMs,
      };
    case 5: {
      const errno = view.getUint16(at + 6, true);
      return { kind: 'fault', what: pick(faults, value), lan, errno, atMs };
    }
    default:
      throw new RangeError(`kind ${kind} is unknown in an event`);
  }
}

/** Decodes the counters; `bytes` is one whole Stats record. */
export function decodeStats(bytes: Uint8Array): BeatStats {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = (index: number): number => Number(view.getBigUint64(index * 8, true));
  const rows = view.getUint32(116, true);
  return {
    boot: view.getBigUint64(0, true),
    sent: count(1),
    sendErrors: count(2),
    received: count(3),
    badMac: count(4),
    replayed: count(5),
    malformed: count(6),
    foreign: count(7),
    unproven: count(8),
    eventsLost: count(9),
    bindRetries: count(10),
    leasesRenewed: count(11),
    worstLatenessUs: count(12),
    realtime: view.getUint32(104, true) === 1,
    locked: view.getUint32(108, true) === 1,
    agentRestarts: view.getUint32(112, true),
    peers: Array.from({ length: rows }, (_, i) =>
      decodeRow(view, layout.statsRows + i * layout.statsRow),
    ),
  };
}

function decodeRow(view: DataView, at: number): BeatStats['peers'][number] {
  return {
    node: view.getUint8(at),
    lan: view.getUint8(at + 1),
    up: view.getUint8(at + 2) === 1,
    rttUs: view.getUint32(at + 4, true),
    jitterUs: view.getUint32(at + 8, true),
    longestBurst: view.getUint32(at + 12, true),
    peerLatenessUs: view.getUint32(at + 16, true),
    lastHeardMs: nsToMs(view, at + 24),
    received: Number(view.getBigUint64(at + 32, true)),
    lost: Number(view.getBigUint64(at + 40, true)),
  };
}
