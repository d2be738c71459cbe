/** Writes what holdfastd reads: the frames of native/beat/command.h on fd 3, announcements of model.h. */
import assert from 'node:assert';
import type { BeatConfig, BeatModule } from './beat.ts';

const types = { hello: 1, configure: 2, announce: 3, ready: 4 } as const;
const headSize = 8;
const configureSize = 88;
const addressSize = 56;
const entrySize = 64;
const moduleSize = 48;
// Limits of native/beat/limits.h and command.h.
const nodesMax = 64;
const lansMax = 8;
const modulesMax = 32;
const slotsMax = 64;
const mapPathMax = 255;

function frame(type: keyof typeof types, size: number): { bytes: Buffer; body: DataView } {
  const bytes = Buffer.alloc(headSize + size);
  bytes.writeUInt32LE(size, 0);
  bytes.writeUInt32LE(types[type], 4);
  return { bytes, body: new DataView(bytes.buffer, bytes.byteOffset + headSize, size) };
}

/** A command without content. */
export function encodeSignal(type: 'hello' | 'announce' | 'ready'): Buffer {
  return frame(type, 0).bytes;
}

function nsOf(ms: number): bigint {
  return BigInt(Math.round(ms * 1e6));
}

/** The whole configuration. Values out of range are programmer errors: they throw. */
export function encodeConfigure(config: BeatConfig): Buffer {
  const peers = config.lans.flatMap((lan, index) => lan.peers.map((peer) => ({ ...peer, index })));
  const map = Buffer.from(config.leaseMap ?? '', 'utf8');
  assert(/^[0-9a-f]{16}$/i.test(config.clusterId), 'clusterId is 16 hex digits');
  assert(config.key.length === 32, 'key is 32 bytes');
  assert(config.me >= 0 && config.me < nodesMax, 'me is a node id');
  assert(config.lans.length <= lansMax, `at most ${lansMax} networks`);
  assert(map.length <= mapPathMax, 'leaseMap is a short path');
  assert(config.heartbeatMs >= 1 && config.suspectMs > config.heartbeatMs, 'timing');
  const lists = (config.lans.length + peers.length) * entrySize;
  const { bytes, body } = frame('configure', configureSize + lists + map.length);
  body.setBigUint64(0, BigInt(`0x${config.clusterId}`), true);
  bytes.set(config.key, headSize + 8);
  body.setUint32(40, config.me, true);
  body.setUint32(44, config.lans.length, true);
  body.setUint32(48, peers.length, true);
  body.setUint32(52, map.length, true);
  body.setBigUint64(56, nsOf(config.heartbeatMs), true);
  body.setBigUint64(64, nsOf(config.suspectMs), true);
  body.setBigUint64(72, nsOf(config.leaseMs), true);
  body.setBigUint64(80, nsOf(config.agentDeadlineMs), true);
  let at = configureSize;
  for (const lan of config.lans) {
    writeAddress(bytes, headSize + at, lan.local);
    body.setUint16(at + addressSize, lan.port, true);
    at += entrySize;
  }
  for (const peer of peers) {
    assert(peer.node >= 0 && peer.node < nodesMax && peer.node !== config.me, 'peer is a node id');
    writeAddress(bytes, headSize + at, peer.addr);
    body.setUint8(at + addressSize, peer.index);
    body.setUint8(at + addressSize + 1, peer.node);
    at += entrySize;
  }
  bytes.set(map, headSize + at);
  return bytes;
}

function writeAddress(bytes: Buffer, at: number, addr: string): void {
  const text = Buffer.from(addr, 'ascii');
  assert(text.length < addressSize, 'a numeric address');
  bytes.set(text, at);
}

// LeaseRule of native/beat/model.h.
const rules = { view: 0, off: 1, own: 2, peer: 3 } as const;
const leaseMsMax = 3_600_000;

/** The modules that this node announces: ModuleConfig records. */
export function encodeModules(modules: readonly BeatModule[]): Buffer {
  assert(modules.length <= modulesMax, `at most ${modulesMax} modules`);
  const bytes = Buffer.alloc(modules.length * moduleSize);
  const body = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  modules.forEach((module, index) => {
    const at = index * moduleSize;
    body.setUint32(at, module.key, true);
    body.setUint32(at + 4, module.flags, true);
    body.setBigUint64(at + 8, BigInt(module.viewEpoch), true);
    body.setBigUint64(at + 16, module.viewMembers, true);
    let slots = 0n;
    for (const slot of module.leaseSlots) {
      assert(slot >= 0 && slot < slotsMax, 'a slot of the lease map');
      slots |= 1n << BigInt(slot);
    }
    body.setBigUint64(at + 24, slots, true);
    const { lease } = module;
    body.setUint32(at + 32, rules[lease.rule], true);
    if (lease.rule === 'view' || lease.rule === 'off') return;
    assert(lease.leaseMs >= 1 && lease.leaseMs <= leaseMsMax, 'leaseMs');
    body.setBigUint64(at + 40, nsOf(lease.leaseMs), true);
    if (lease.rule === 'own') return;
    assert(lease.peer >= 0 && lease.peer < nodesMax, 'peer is a node id');
    body.setUint32(at + 36, lease.peer, true);
  });
  return bytes;
}
