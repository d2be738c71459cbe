/** The mirrors of a node that decide for themselves: what they share, and what each is given of it. */
import { readFileSync } from 'node:fs';
import { openRegister, type Register } from '../arbiter/register.ts';
import { Pinger } from '../checkers/ping.ts';
import { systemTimers } from '../checkers/poll.ts';
import { ProcessTable } from '../checkers/processes.ts';
import { hasArbiter } from '../config/index.ts';
import type { ClusterConfig, ModuleConfig } from '../config/model.ts';
import type { MirrorEffect } from '../core/mirror.ts';
import { moduleDirs } from '../module/name.ts';
import { type Beat, type BeatModule, moduleFlag } from '../native/beat.ts';
import type { Exchange } from './exchange.ts';
import { type Fabric, moduleKey } from './fabric.ts';
import { gatewayOf } from './gateway.ts';
import { Links } from './links.ts';
import type { MirrorPorts, MirrorPortsOptions } from './mirror-ports.ts';
import type { MirrorRecord } from './mirror-state.ts';
import { clearAddresses, MirrorVip } from './mirror-vip.ts';
import { HostedPair } from './pair.ts';
import type { CheckPorts } from './pair-checks.ts';
import { peerOf, type PairVip } from './pair-ports.ts';
import { PairRecord, PairRuntimeFile } from './pair-state.ts';
import { watchReady } from './watch.ts';

type Announce = Extract<MirrorEffect, { kind: 'announce' }>;

export interface PairsOptions
  extends Pick<MirrorPortsOptions, 'paths' | 'node' | 'me' | 'keyFiles' | 'cluster' | 'alert'> {
  readonly beat: Beat;
  readonly fabric: Fabric;
  readonly exchange: Pick<Exchange, 'sendPair' | 'peerNews' | 'leaseHeld' | 'registers'>;
}

/** An arbiter that takes longer is one that does not answer: it is asked again. */
const arbiterLimitMs = 2000;

/** Does a mirror decide for itself here? A server with a distant copy of it takes no part in that. */
export function isDecided(config: ModuleConfig, cluster: ClusterConfig, me: number): boolean {
  return config.service.mode === 'mirror' && hasArbiter(cluster) && peerOf(config, me) !== null;
}

export class Pairs {
  readonly #options: PairsOptions;
  /** Of the arbiter that cluster.xml names. */
  #register: Register | null = null;
  #registerOf = 'null';
  /** Shared by the checkers of all mirrors. */
  readonly #checks: CheckPorts;

  constructor(options: PairsOptions) {
    this.#options = options;
    this.#checks = {
      paths: options.paths,
      timers: systemTimers,
      links: new Links(options.fabric.link),
      pinger: new Pinger(),
      processes: new ProcessTable(systemTimers),
      clusterCa: readFileSync(options.keyFiles.caCert, 'utf8'),
    };
    options.exchange.registers.serve(() => {
      const { arbiter } = options.cluster();
      // What lies elsewhere is not asked for others: they ask there.
      const isHere = arbiter?.type === 'static' && arbiter.node === options.me;
      return isHere || arbiter?.type === 'fence' ? this.register() : null;
    });
  }

  async host(config: ModuleConfig, mirror: MirrorPorts, epochs: MirrorRecord): Promise<HostedPair> {
    const { paths, me, alert, fabric, beat, cluster, exchange } = this.#options;
    const { name } = config;
    const peer = peerOf(config, me);
    const register = this.register();
    if (peer === null || register === null) throw new Error(`mirror ${name} is run by hand`);
    const record = await PairRecord.open(
      moduleDirs(paths, name).state,
      config.service.failover,
      (error) => alert(`module.${name}.pair`, error !== null, 'critical', error?.line() ?? ''),
    );
    const runtime = new PairRuntimeFile(paths.run, name).read();
    const leaseSlot = fabric.takeSlot(name, runtime?.leaseSlot ?? null);
    const voice = new Voice(this.#options, name, leaseSlot, peer);
    return HostedPair.open(
      { config, peer, record, epochs },
      {
        mirror,
        me,
        leaseSlot,
        names: () => Object.fromEntries(cluster().nodes.map((node) => [node.id, node.name])),
        register: () => this.register() ?? register,
        announce: (effect, leaseMs) => voice.announce(effect, leaseMs),
        consent: (on) => voice.consent(on),
        send: (to, message) => exchange.sendPair(to, name, message),
        openVip: (current) => this.#openVip(current, leaseSlot, mirror),
        clearVip: (current) => this.#clearVip(current, mirror),
        watch: (ready, current, report) =>
          watchReady(ready, current, this.#options.node, paths, report),
        checks: this.#checks,
        peer: (node) => exchange.peerNews(node),
        leaseHeld: () => exchange.leaseHeld(name),
        poll: () => beat.poll(),
      },
    );
  }

  /** Opens the devices. HF-AGENT-008. */
  #openVip(config: ModuleConfig, leaseSlot: number, mirror: MirrorPorts): PairVip | null {
    if (config.vip === null) return null;
    const { fabric, me, node, alert } = this.#options;
    const vip = new MirrorVip(config, {
      me,
      devices: fabric.devicesFor(config, node),
      leaseSlot,
      link: fabric.link,
      nowMs: mirror.nowMs,
      serverOf: (mac) => fabric.serverOf(mac),
      gatewayOf,
      record: (text, data) => mirror.record('peer', text, data),
      alert,
    });
    return {
      perform: (order) => vip.perform(order),
      reannounce: () => vip.reannounce(),
      guard: () => vip.guard(),
      adopt: (isOpen) => vip.adopt(isOpen),
      status: () => vip.status(),
      abandon: () => vip.abandon(),
      remove: () => fabric.closeDevices(vip.remove()),
    };
  }

  /** Not by a MirrorVip: that would put a filter on devices of mirrors that do not run. */
  #clearVip(config: ModuleConfig, mirror: MirrorPorts): void {
    clearAddresses(config, this.#options.fabric.link, (text, data) =>
      mirror.record('peer', text, data),
    );
  }

  /** That of the arbiter which cluster.xml names, one for all mirrors; null: mirrors are run by hand. */
  register(): Register | null {
    const { cluster, me, fabric, exchange, keyFiles, paths } = this.#options;
    const { arbiter, nodes } = cluster();
    const text = JSON.stringify(arbiter);
    if (this.#registerOf === text) return this.#register;
    void this.#register?.close();
    this.#registerOf = text;
    this.#register =
      arbiter === null
        ? null
        : openRegister(arbiter, {
            me,
            clusterId: fabric.clusterId,
            keyFiles,
            stateFolder: paths.state,
            runFolder: paths.run,
            isSilent: (node) => exchange.peerNews(node)?.reach === 'silent',
            timeLimitMs: arbiterLimitMs,
            ask: (node, question, limitMs) => exchange.registers.ask(node, question, limitMs),
            nameOf: (node) => nodes.find(({ id }) => id === node)?.name ?? `node ${node}`,
          });
    return this.#register;
  }
}

/** What the heartbeats of this node say of one mirror. */
class Voice {
  readonly #options: PairsOptions;
  readonly #name: string;
  readonly #slot: number;
  readonly #peer: number;
  #said: BeatModule | null = null;

  constructor(options: PairsOptions, name: string, slot: number, peer: number) {
    this.#options = options;
    this.#name = name;
    this.#slot = slot;
    this.#peer = peer;
  }

  announce(effect: Announce, leaseMs: number): Promise<void> {
    const { epoch, running, serving, consent, lease } = effect;
    const rules = {
      off: { rule: 'off' },
      own: { rule: 'own', leaseMs },
      peer: { rule: 'peer', peer: this.#peer, leaseMs },
    } as const;
    // Nobody waits for an address that is not to answer.
    if (lease === 'off') {
      this.#options.alert(`module.${this.#name}.lease`, false, 'critical', '');
    }
    this.#say({
      key: moduleKey(this.#name),
      flags:
        (running ? moduleFlag.running : 0) |
        (serving ? moduleFlag.ready : 0) |
        (consent ? moduleFlag.consent : 0),
      viewEpoch: epoch,
      viewMembers: 0n,
      leaseSlots: [this.#slot],
      lease: rules[lease],
    });
    return this.#options.beat.announced();
  }

  /** What was said last, with or without it. */
  consent(on: boolean): void {
    const said = this.#said;
    if (said === null) return;
    const flags = on ? said.flags | moduleFlag.consent : said.flags & ~moduleFlag.consent;
    if (flags !== said.flags) this.#say({ ...said, flags });
  }

  #say(entry: BeatModule): void {
    this.#said = entry;
    this.#options.fabric.announce(this.#name, entry);
  }
}
