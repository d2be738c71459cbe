/** One simulated server: kernel filter and connections, keeper, agent with the real machine. */
import {
  farmDeadline,
  farmInit,
  farmStep,
  type CompiledTable,
  type FarmConfig,
  type FarmEffect,
  type FarmEvent,
  type FarmNews,
  type FarmState,
  type Snapshot,
  type View,
} from '../core/farm.ts';
import type { FarmRules } from '../core/farm-rules.ts';
import { bitmapBytes, bucketCount } from '../core/farm-types.ts';
import { Keeper, type KeeperEvent, type KeeperGuards, noSummary } from './keeper.ts';
import type { World } from './world.ts';

/** What the kernel enforces; outlives the agent and the keeper, not the server. */
export interface SimFilter {
  tables: readonly CompiledTable[];
  /** Per group, the buckets owned, as 32-bit words. */
  own: Uint32Array[];
  leaseEndMs: number;
}

export interface Flow {
  readonly group: number;
  readonly bucket: number;
  readonly client: number;
  /** How often its server had been shut out or restarted when it began. */
  readonly upset: number;
  readonly endMs: number;
}

/** Longest time from the first sign of life of a paused agent to its first act. */
const stirMs = 30;

const emptyFilter = (groups: number): SimFilter => ({
  tables: [],
  own: Array.from({ length: groups }, () => new Uint32Array(bucketCount / 32)),
  leaseEndMs: 0,
});

export class SimNode {
  readonly id: number;
  readonly world: World;
  readonly config: FarmConfig;
  readonly rules: FarmRules;
  readonly guards: KeeperGuards;
  /** Own clock: base + rate x true time. */
  readonly rate: number;
  readonly base: number;
  up = true;
  /** The whole server stands still (a paused VM) until then. */
  frozen = false;
  keeper: Keeper | null = null;
  keeperPaused = false;
  keeperWake = 0;
  readonly inbox: { readonly arrived: number; readonly beat: import('./keeper.ts').Heartbeat }[] =
    [];
  state: FarmState;
  agentUp = false;
  agentPaused = false;
  /** It goes on after a pause: counted as alive by the keeper, but has not read anything yet. */
  agentStirs = false;
  agentStoppedMs = 0;
  /** True time at which its agent started or went on. */
  agentSinceMs = 0;
  agentLife = 0;
  backlog: FarmEvent[] = [];
  tickAt = Number.POSITIVE_INFINITY;
  filter: SimFilter;
  flows: Flow[] = [];
  /** Survives everything. */
  disk: Snapshot | null = null;
  /** The module is started (the operator's wish), its gate, and since when it is shut. */
  gate = true;
  gateShutMs = 0;
  upset = 0;
  boots = 0;
  installedView: View | null = null;
  installAt = 0;
  ring: FarmNews[] = [];

  constructor(
    world: World,
    id: number,
    config: FarmConfig,
    rules: FarmRules,
    guards: KeeperGuards,
  ) {
    this.world = world;
    this.id = id;
    this.config = config;
    this.rules = rules;
    this.guards = guards;
    this.rate = 1 + world.chance.between(-0.02, 0.02) * world.options.skew;
    this.base = world.chance.between(1000, 1e6);
    this.state = farmInit(config);
    this.filter = emptyFilter(config.groups.length);
  }

  get nowMs(): number {
    return this.base + this.world.nowMs * this.rate;
  }

  /** True time at which the own clock shows localMs. */
  trueMs(localMs: number): number {
    return (localMs - this.base) / this.rate;
  }

  get leaseLive(): boolean {
    return this.up && !this.frozen && this.filter.leaseEndMs > this.nowMs;
  }

  powerOn(): void {
    this.up = true;
    this.frozen = false;
    this.filter = emptyFilter(this.config.groups.length);
    this.flows = [];
    this.startKeeper();
    this.startAgent();
  }

  powerOff(): void {
    this.up = false;
    this.upset++;
    this.stopKeeper();
    this.stopAgent();
    this.flows = [];
    this.world.filterChanged();
  }

  startKeeper(): void {
    this.boots++;
    this.keeperPaused = false;
    this.inbox.length = 0;
    this.keeper = new Keeper(
      this.id,
      this.config.nodes,
      this.id * 1000 + this.boots,
      this.nowMs,
      this.config.timing,
      this.guards,
      (beat) => this.world.sendBeat(beat),
      (event) => this.#fromKeeper(event),
    );
    this.wakeKeeper();
  }

  stopKeeper(): void {
    this.keeper = null;
    this.keeperWake++;
  }

  wakeKeeper(): void {
    const { keeper } = this;
    if (keeper === null || this.keeperPaused || this.frozen) return;
    const lives = this.agentUp && (this.agentStirs || !this.agentPaused);
    const alive = lives ? this.nowMs : this.agentStoppedMs;
    const next = keeper.tick(this.nowMs, alive);
    this.#syncLease();
    const wake = ++this.keeperWake;
    // Never the same instant again: two clocks convert with rounding.
    const at = Math.max(this.trueMs(next), this.world.nowMs + 0.01);
    this.world.at(at, { kind: 'keeper', node: this.id, wake });
  }

  resumeKeeper(): void {
    if (this.frozen) return;
    this.keeperPaused = false;
    const { keeper } = this;
    if (keeper === null) return;
    keeper.noteLateness(this.nowMs);
    for (const { arrived, beat } of this.inbox.splice(0)) this.receiveBeat(beat, arrived);
    this.wakeKeeper();
  }

  receiveBeat(beat: import('./keeper.ts').Heartbeat, arrivedMs: number): void {
    const { keeper } = this;
    if (keeper === null || !this.up) return;
    if (this.keeperPaused || this.frozen) {
      if (this.inbox.length < 4096) this.inbox.push({ arrived: arrivedMs, beat });
      return;
    }
    if (keeper.receive(beat, arrivedMs, this.nowMs)) this.world.checks.heard(beat.from, this.id);
    this.#syncLease();
  }

  #syncLease(): void {
    if (this.keeper === null) return;
    const was = this.leaseLive;
    this.filter.leaseEndMs = this.keeper.leaseEndMs;
    if (!was && this.leaseLive) this.world.filterChanged();
  }

  /** Into the ring; the doorbell is heard a moment later. */
  #fromKeeper(event: KeeperEvent): void {
    if (!this.agentUp) return;
    this.ring.push(this.#newsOf(event));
    if (this.ring.length > 1) return;
    const at = this.world.nowMs + this.world.chance.between(0.05, 1);
    this.world.at(at, { kind: 'doorbell', node: this.id, life: this.agentLife });
  }

  #newsOf(event: KeeperEvent): FarmNews {
    if (event.kind === 'peer') return { ...event, boot: BigInt(event.boot) };
    if (event.kind === 'hung') return { kind: 'lapsed' };
    const { flags, epoch, members } = event.summary;
    return { kind: 'summary', node: event.node, flags, viewEpoch: epoch, viewMembers: members };
  }

  /** Hands over all that the heartbeats brought: by the doorbell, and before any message. */
  pollRing(): void {
    if (!this.agentUp || this.agentPaused || this.frozen || this.ring.length === 0) return;
    const news = this.ring;
    this.ring = [];
    if (news.some((item) => item.kind === 'lapsed')) {
      this.upset++;
      if (this.keeper !== null) this.keeper.everHung = false;
    }
    this.step({ kind: 'news', nowMs: this.nowMs, news });
  }

  startAgent(): void {
    const { keeper } = this;
    if (keeper === null || this.agentUp) return;
    this.agentUp = true;
    this.agentPaused = false;
    this.agentStirs = false;
    this.agentSinceMs = this.world.nowMs;
    this.agentLife++;
    this.backlog = [];
    this.ring = [];
    this.state = farmInit(this.config);
    const adopt = keeper.summary !== noSummary && !keeper.everHung ? this.disk : null;
    if (adopt === null) this.upset++;
    keeper.everHung = false;
    this.step({
      kind: 'start',
      nowMs: this.nowMs,
      ready: this.gate,
      adopt,
      epochMax: this.disk?.epochMax ?? 0,
    });
    keeper.resync();
  }

  stopAgent(): void {
    if (!this.agentUp) return;
    if (this.agentStirs || !this.agentPaused) this.agentStoppedMs = this.nowMs;
    this.agentUp = false;
    this.agentLife++;
    this.agentPaused = this.agentStirs = false;
    this.backlog = [];
    this.tickAt = Number.POSITIVE_INFINITY;
    this.world.breakChannels(this.id);
  }

  pauseAgent(): void {
    if (!this.agentUp || (this.agentPaused && !this.agentStirs)) return;
    this.agentPaused = true;
    this.agentStirs = false;
    this.agentStoppedMs = this.nowMs;
  }

  /** Its timers and its doorbell are served in any order, its memory may have to be read back. */
  resumeAgent(): void {
    if (!this.agentUp || !this.agentPaused || this.agentStirs || this.frozen) return;
    this.agentStirs = true;
    const life = this.agentLife;
    const at = this.world.nowMs + this.world.chance.between(0, stirMs);
    this.world.do(at, `agent n${this.id} acts again`, () => {
      if (this.agentLife === life && this.agentStirs) this.#actAgain();
    });
  }

  #actAgain(): void {
    this.agentPaused = this.agentStirs = false;
    this.agentSinceMs = this.world.nowMs;
    const waiting = this.backlog;
    this.backlog = [];
    this.pollRing();
    for (const event of waiting) this.step({ ...event, nowMs: this.nowMs });
    this.step({ kind: 'tick', nowMs: this.nowMs });
  }

  /** An event for the machine, now or when the agent runs again. */
  take(event: FarmEvent): void {
    if (!this.agentUp) return;
    if (this.agentPaused || this.frozen) {
      this.backlog.push(event);
      return;
    }
    this.pollRing();
    this.step(event);
  }

  step(event: FarmEvent): void {
    const [next, effects] = farmStep(this.state, event, this.rules);
    const role = this.state.role;
    this.state = next;
    if (role !== 'excluded' && next.role === 'excluded') this.upset++;
    this.world.note(this.id, event);
    for (const effect of effects) this.#perform(effect);
    const deadline = farmDeadline(next);
    if (deadline === null) return;
    const at = Math.max(this.trueMs(deadline), this.world.nowMs + 0.01);
    if (at < this.tickAt - 1e-6 || this.tickAt <= this.world.nowMs) {
      this.tickAt = at;
      this.world.at(at, { kind: 'tick', node: this.id, life: this.agentLife, at });
    }
  }

  #perform(effect: FarmEffect): void {
    switch (effect.kind) {
      case 'install':
        this.installAt = Math.max(
          this.installAt,
          this.world.nowMs + this.world.chance.between(0, 2),
        );
        this.world.at(this.installAt, {
          kind: 'install',
          node: this.id,
          life: this.agentLife,
          effect,
          wanted: this.state.wanted,
          view: this.state.role === 'stopped' ? null : this.state.view,
        });
        return;
      case 'announce':
        this.keeper?.announce(
          {
            flags: effect.flags,
            epoch: effect.viewEpoch,
            members: effect.viewMembers,
            serving: effect.serving,
          },
          this.nowMs,
        );
        this.#syncLease();
        return;
      case 'send':
        this.world.sendMessage(this.id, effect.to, effect.message);
        return;
      case 'record':
        this.world.record(this.id, effect.record, effect.text);
        return;
      case 'persist':
        this.disk = effect.snapshot;
        return;
      case 'gratuitous':
        return;
      case 'count':
        this.walk();
        return;
    }
  }

  install(
    effect: FarmEffect & { readonly kind: 'install' },
    wanted: readonly Uint8Array[],
    view: View | null,
  ): void {
    const own = wanted.map((map) => new Uint32Array(map.slice().buffer));
    this.filter = { tables: effect.tables, own, leaseEndMs: this.filter.leaseEndMs };
    this.world.checks.viewInstalled(this, view);
    this.installedView = view;
    // The module stopped: whatever was let in until now ends with it.
    if (view === null) this.upset++;
    this.world.filterChanged();
    this.take({ kind: 'installed', nowMs: this.nowMs, install: effect.install });
  }

  walk(): void {
    if (!this.agentUp || this.agentPaused || this.frozen) return;
    const { world } = this;
    world.at(world.nowMs + world.chance.between(1, 60), {
      kind: 'walked',
      node: this.id,
      life: this.agentLife,
      beganMs: this.nowMs,
      groups: this.socketMaps(),
    });
  }

  /** What the walk over the sockets finds, as of now. */
  socketMaps(): Uint8Array[] {
    const maps = this.config.groups.map(() => new Uint8Array(bitmapBytes));
    for (const { group, bucket } of this.flows) {
      const map = maps[group];
      if (map !== undefined) map[bucket >> 3] = (map[bucket >> 3] ?? 0) | (1 << (bucket & 7));
    }
    return maps;
  }

  flagsOf(group: number, bucket: number): number {
    return this.filter.tables[group]?.flags[bucket] ?? 0;
  }
}
