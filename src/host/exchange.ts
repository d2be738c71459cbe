/**
 * What the modules of a node say to the other nodes and hear from them: heartbeat events and peer
 * messages in, announcements and messages out.
 */
import type { ClusterConfig, ModuleConfig } from '../config/model.ts';
import type { FarmNews } from '../core/farm-types.ts';
import type { Beat, BeatEvent } from '../native/beat.ts';
import type { FilterInfo } from '../native/filter.ts';
import { version } from '../version.ts';
import type { Alerts } from './alerts.ts';
import type { Message as PairMessage } from '../core/mirror-types.ts';
import { parseFarmMessage } from './codec.ts';
import type { EventRecord, PeerChannel } from './face.ts';
import { type Fabric, moduleKey } from './fabric.ts';
import { Farm } from './farm.ts';
import type { PairIntake } from './hosted.ts';
import type { Logger } from './logger.ts';
import type { FarmHooks } from './module.ts';
import { RegisterCalls } from './register-calls.ts';
import type { PeerNews } from './pair-peer.ts';
import { parsePairMessage } from './pair-wire.ts';
import { helloSchema, lansOf, type PeerTable } from './peers.ts';
import { suspectMs } from './timing.ts';

export interface ExchangePorts {
  readonly me: number;
  readonly node: string;
  readonly beat: Beat;
  readonly fabric: Fabric;
  readonly channel: PeerChannel;
  readonly peerTable: PeerTable;
  readonly alerts: Alerts;
  readonly logger: Logger;
  readonly cluster: () => ClusterConfig;
  /** Modules with a configuration, and what of them hears of other nodes. */
  readonly modules: () => Iterable<readonly [string, Listener]>;
  readonly module: (module: string) => Listener | null;
  readonly record: (
    module: string | null,
    kind: EventRecord['kind'],
    text: string,
    data: Readonly<Record<string, unknown>>,
  ) => void;
}

/** What a module hears by: its farm where it takes part in one, or itself as a mirror that decides. */
interface Listener {
  readonly farm: Farm | null;
  readonly pair: PairIntake | null;
}

/** What a batch of heartbeat events says to each farm. */
type News = Map<Farm, FarmNews[]>;

function addNews(news: News, farm: Farm, item: FarmNews): void {
  const list = news.get(farm);
  if (list === undefined) news.set(farm, [item]);
  else list.push(item);
}

export class Exchange {
  readonly #ports: ExchangePorts;
  /** Keys of modules whose lease has run out. */
  readonly #lapsed = new Set<number>();
  #onPeerNews: () => void = () => {};

  /** Questions to the register on another node, or on this one. */
  readonly registers: RegisterCalls;

  constructor(ports: ExchangePorts) {
    this.#ports = ports;
    this.registers = new RegisterCalls((node, message) => ports.channel.send(node, message));
    ports.channel.onMessage((from, message) => this.#onMessage(from, message));
    ports.channel.onConnection((node, connected) => this.#onConnection(node, connected));
  }

  /** The farm machine of a module with its device opened; not started yet. HF-AGENT-008. */
  openFarm(config: ModuleConfig, leaseSlot: number, hooks: FarmHooks): Farm {
    const { beat, fabric, channel, me } = this.#ports;
    const cluster = this.#ports.cluster();
    const devices = fabric.devicesFor(config, this.#ports.node);
    for (const device of devices) this.#alertHook(device.info());
    return new Farm(
      config,
      cluster.nodes.map((node) => node.id),
      {
        heartbeatMs: cluster.heartbeatMs,
        suspectMs: suspectMs(cluster),
        leaseMs: cluster.leaseMs,
        agentDeadlineMs: cluster.agentDeadlineMs,
        drainTimeoutMs: config.drainTimeoutMs,
      },
      {
        me,
        nodeName: (id) => this.nodeName(id),
        nowMs: () => beat.nowMs(),
        devices,
        leaseSlot,
        announce: ({ flags, viewEpoch, viewMembers, serving }) =>
          fabric.announce(config.name, {
            key: moduleKey(config.name),
            flags,
            viewEpoch,
            viewMembers,
            leaseSlots: serving ? [leaseSlot] : [],
            lease: { rule: 'view' },
          }),
        send: (to, message) => {
          channel.send(to, { kind: 'farm', module: config.name, message });
        },
        record: (kind, text, data) =>
          this.#ports.record(config.name, kind, this.#named(text), data),
        persist: hooks.persist,
        changed: hooks.changed,
      },
    );
  }

  /** Tells a starting farm what is known of the peers. */
  replayPeers(name: string, farm: Farm): void {
    const key = moduleKey(name);
    const news: FarmNews[] = [];
    for (const [node, peer] of this.#ports.peerTable.entries()) {
      const { reach, boot, hung } = peer;
      news.push({ kind: 'peer', node, reach, boot, hung });
      const said = peer.modules.get(key);
      if (said !== undefined) news.push({ kind: 'summary', node, ...said });
    }
    farm.dispatch({ kind: 'news', news });
  }

  /** What the heartbeats have said of a node, for a mirror that starts; null: nothing yet. */
  peerNews(node: number): PeerNews | null {
    const peer = new Map(this.#ports.peerTable.entries()).get(node);
    if (peer?.known !== true) return null;
    const { reach, boot, hung, heardMs } = peer;
    return { reach, boot: String(boot), hung, heardMs };
  }

  /** False: the lease of the module has run out. */
  leaseHeld(module: string): boolean {
    return !this.#lapsed.has(moduleKey(module));
  }

  sendPair(to: number, module: string, message: PairMessage): void {
    this.#ports.channel.send(to, { kind: 'pair', module, message });
  }

  /**
   * Resolves when the heartbeats have spoken of every peer, or could have. A module that is taken
   * over before would tell the others that it reaches nobody, and be left out of their view.
   */
  async whenPeersKnown(): Promise<void> {
    const cluster = this.#ports.cluster();
    const untilMs = this.#ports.beat.nowMs() + suspectMs(cluster) + 2 * cluster.heartbeatMs;
    while (!this.#ports.peerTable.complete) {
      const leftMs = untilMs - this.#ports.beat.nowMs();
      if (leftMs <= 0) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#onPeerNews = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Takes heartbeat events in, in order. */
  onBeat(events: readonly BeatEvent[]): void {
    const news: News = new Map();
    for (const event of events) {
      if (event.kind === 'fault') {
        this.#onFault(event);
      } else if (event.kind === 'lease') {
        this.#onLease(event, news);
      } else if (this.#ports.peerTable.onBeat(event)) {
        this.#steerChannel(event);
        this.#feedFarms(event, news);
        if (event.kind === 'peer') this.#feedPairs(event);
      }
    }
    // A farm acts on the whole batch: after a pause its first events may be long out of date.
    for (const [farm, list] of news) farm.dispatch({ kind: 'news', news: list });
    this.#onPeerNews();
  }

  /** The heartbeats know of silent networks and of returning peers long before TCP does. */
  #steerChannel(event: Extract<BeatEvent, { node: number }>): void {
    const { channel, me } = this.#ports;
    if (event.kind === 'peer' && event.reach !== 'silent') channel.kick(event.node);
    if (event.kind !== 'lan') return;
    const lans = lansOf(this.#ports.cluster(), me);
    const addr = lans[event.lan]?.nodes.find((at) => at.node === event.node)?.addr;
    if (addr !== undefined) channel.setPath(event.node, addr, event.up);
  }

  #feedFarms(event: Extract<BeatEvent, { node: number }>, news: News): void {
    if (event.kind === 'lan') return;
    for (const [name, { farm }] of this.#ports.modules()) {
      if (farm === null) continue;
      const { node } = event;
      if (event.kind === 'peer') {
        const { reach, boot, hung } = event;
        addNews(news, farm, { kind: 'peer', node, reach, boot, hung });
      } else if (event.key === moduleKey(name)) {
        const { flags, viewEpoch, viewMembers } = event;
        addNews(news, farm, { kind: 'summary', node, flags, viewEpoch, viewMembers });
      }
    }
    if (event.kind === 'peer') {
      this.#ports.record(null, 'peer', `${this.nodeName(event.node)} is ${event.reach}`, {
        reach: event.reach,
        hung: event.hung,
      });
    }
  }

  #feedPairs({ node, reach, boot, hung, heardMs }: Extract<BeatEvent, { kind: 'peer' }>): void {
    const news = { reach, boot: String(boot), hung, heardMs };
    for (const [, { pair }] of this.#ports.modules()) pair?.onPeer(node, news);
  }

  #onLease(event: Extract<BeatEvent, { kind: 'lease' }>, news: News): void {
    if (event.renewing) this.#lapsed.delete(event.key);
    else this.#lapsed.add(event.key);
    for (const [name, { farm, pair }] of this.#ports.modules()) {
      if (event.key !== moduleKey(name)) continue;
      this.#ports.record(
        name,
        'view',
        event.renewing ? 'lease renewed again' : `lease withheld: ${event.why}`,
        {
          why: event.why,
        },
      );
      this.#ports.alerts.set(
        `module.${name}.lease`,
        !event.renewing,
        'critical',
        `the virtual IPs of ${name} are silent on this node: ${event.why}`,
      );
      pair?.onLease(event.renewing);
      if (!event.renewing && event.why === 'agent_hung') {
        if (farm !== null) addNews(news, farm, { kind: 'lapsed' });
      }
    }
  }

  #onFault(event: Extract<BeatEvent, { kind: 'fault' }>): void {
    const lan = this.#ports.cluster().lans[event.lan]?.name ?? String(event.lan);
    this.#ports.alerts.set(
      `beat.${event.what}.${event.lan}`,
      event.errno !== 0,
      'critical',
      event.what === 'lease_map'
        ? `the lease map cannot be opened (errno ${event.errno})`
        : `heartbeats on network ${lan}: ${event.what} failed (errno ${event.errno})`,
    );
  }

  #onConnection(node: number, connected: boolean): void {
    this.#ports.peerTable.onConnection(node, connected);
    if (connected) this.greet(node);
  }

  /** Says who we are to one peer. */
  greet(node: number): void {
    this.#ports.channel.send(node, {
      kind: 'hello',
      version,
      signature: this.#ports.cluster().signature,
      macs: this.#ports.fabric.ownMacs(),
    });
  }

  #onMessage(from: number, message: unknown): void {
    const hello = helloSchema.safeParse(message);
    if (hello.success) {
      this.#ports.peerTable.onHello(from, hello.data);
      this.#ports.fabric.updateMacs();
      return;
    }
    const { kind, module, message: inner } = (message ?? {}) as Record<string, unknown>;
    if (kind === 'register' && this.registers.onMessage(from, inner)) return;
    const name = typeof module === 'string' ? module : '';
    const told = kind === 'farm' ? parseFarmMessage(inner) : null;
    const said = kind === 'pair' ? parsePairMessage(inner) : null;
    if ((told === null && said === null) || name === '') {
      this.#ports.logger.warn('message from a peer not understood', {
        peer: this.nodeName(from),
        kind: typeof kind === 'string' ? kind : 'unknown',
      });
      return;
    }
    // After a pause the heartbeats' news must come first: a message may be as old as the pause, and
    // a view taken on trust would open what others have taken over since.
    this.#ports.beat.poll();
    const listener = this.#ports.module(name);
    if (told !== null) listener?.farm?.dispatch({ kind: 'message', from, message: told });
    if (said !== null) listener?.pair?.onMessage(from, said);
  }

  #alertHook({ device, hook, reasons }: FilterInfo): void {
    this.#ports.alerts.set(
      `device.${device}.hook`,
      hook !== 'xdp-native',
      'warning',
      `the filter of ${device} runs at ${hook}, not at its fastest hook: ${reasons.join('; ')}`,
    );
  }

  /** The machine speaks of nodes by id; people know them by name. */
  #named(text: string): string {
    return text.replace(/\bnode (\d+)\b/g, (_all, id: string) => this.nodeName(Number(id)));
  }

  nodeName(id: number): string {
    return this.#ports.cluster().nodes.find((node) => node.id === id)?.name ?? `node ${id}`;
  }
}
