/** A mirror that decides for itself, with an engine, a register and heartbeats in memory, and real scripts. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Register } from '../../src/arbiter/register.ts';
import type {
  ArbiterAnswer,
  ArbiterRecord,
  Message,
  MirrorEffect,
  StatusMessage,
} from '../../src/core/mirror.ts';
import { systemTimers } from '../../src/checkers/poll.ts';
import { ProcessTable } from '../../src/checkers/processes.ts';
import { HostedPair } from '../../src/host/pair.ts';
import type { PairVip } from '../../src/host/pair-ports.ts';
import { PairRecord } from '../../src/host/pair-state.ts';
import { MirrorRecord } from '../../src/host/mirror-state.ts';
import { moduleDirs } from '../../src/module/name.ts';
import { world, type World } from './mirror-world.ts';

/** Answers at once, from one record. */
export class MemoryRegister implements Register {
  readonly text = 'memory';
  record: ArbiterRecord | null = null;
  readonly asked: string[] = [];
  onSwap: () => void = () => {};

  async read(): Promise<ArbiterAnswer> {
    this.asked.push('read');
    return { outcome: 'record', record: this.record };
  }

  async swap(
    _module: string,
    from: ArbiterRecord | null,
    to: ArbiterRecord,
  ): Promise<ArbiterAnswer> {
    this.asked.push(`swap ${to.epoch} ${to.inSync.join()}`);
    this.onSwap();
    if (JSON.stringify(this.record) !== JSON.stringify(from)) {
      return { outcome: 'lost', record: this.record };
    }
    this.record = to;
    return { outcome: 'won' };
  }

  async close(): Promise<void> {}
}

export interface PairWorld {
  readonly world: World;
  readonly register: MemoryRegister;
  /** What was done, in order: engine verbs, the address, announcements. */
  readonly did: string[];
  readonly sent: Message[];
  /** Makes what is to be durable fail. */
  persistFails: boolean;
  agent(): Promise<HostedPair>;
}

type Announce = Extract<MirrorEffect, { kind: 'announce' }>;

const said = ({ epoch, consent, lease }: Announce): string =>
  `say ${epoch} ${lease}${consent ? ' consent' : ''}`;

export function pairWorld(t: TestContext): PairWorld {
  const own = world(t);
  const register = new MemoryRegister();
  const did: string[] = [];
  const sent: Message[] = [];
  own.engine.onRequest = (verb) => did.push(verb);
  let isGuarded = false;
  const address: PairVip = {
    perform: async (vip) => void did.push(`vip ${vip}`),
    reannounce: () => {},
    guard: () => {
      if (!isGuarded) did.push('vip guard');
      isGuarded = true;
    },
    adopt: (isOpen) => did.push(`vip adopt ${isOpen ? 'open' : 'shut'}`),
    status: () => ({ addrs: ['10.0.0.9'], open: false, device: 'eth0', hook: null }),
    abandon: () => {},
    remove: () => did.push('vip remove'),
  };
  const made: PairWorld = {
    world: own,
    register,
    did,
    sent,
    persistFails: false,
    agent: async () => {
      const { state } = moduleDirs(own.paths, 'db');
      const record = await PairRecord.open(state, true, () => undefined);
      const write = record.write.bind(record);
      record.write = async (durable) => (made.persistFails ? 'the disk is full' : write(durable));
      const epochs = await MirrorRecord.open(state, () => undefined);
      const pair = await HostedPair.open(
        { config: own.config, peer: 1, record, epochs },
        {
          mirror: own.ports(),
          me: 0,
          leaseSlot: 0,
          names: () => ({ 0: 'db1', 1: 'db2' }),
          register: () => register,
          announce: async (effect) => void did.push(said(effect)),
          consent: (on) => did.push(on ? 'consent' : 'dissent'),
          send: (_to, message) => sent.push(message),
          openVip: () => address,
          clearVip: () => {},
          watch: () => ({ stop: () => {} }),
          peer: () => ({ reach: 'silent', boot: '0', hung: false, heardMs: -1 }),
          checks: {
            paths: own.paths,
            timers: systemTimers,
            links: { devices: () => [], addresses: () => [], subscribe: () => () => undefined },
            pinger: { ping: async () => null },
            processes: new ProcessTable(systemTimers),
            clusterCa: '',
          },
          leaseHeld: () => true,
          poll: () => {},
        },
      );
      t.after(() => pair.abandon());
      return pair;
    },
  };
  return made;
}

export const pairFile = (made: PairWorld): string =>
  join(moduleDirs(made.world.paths, 'db').state, 'pair.json');

/** What a primary tells of itself. */
export function primaryStatus(record: ArbiterRecord): StatusMessage {
  return {
    kind: 'status',
    state: 'PRIM',
    readiness: 'Ready',
    role: 'primary',
    record,
    promised: record.epoch,
    incarnation: record.incarnation,
    copy: 'inSync',
    released: 0,
    leaving: false,
    handOver: false,
    refuses: null,
    home: null,
    failover: true,
    hello: false,
  };
}
