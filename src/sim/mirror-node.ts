/**
 * One simulated server of a mirror: kernel (address and lease), keeper, engine, scripts and the agent
 * with the real machine. What runs is a lane: its events wait while it is stopped, and are
 * gone when it dies. The lease of the kernel runs out meanwhile: it is compared when it is asked.
 */
import {
  blankDurable,
  type Durable,
  type MirrorConfig,
  mirrorDeadline,
  type MirrorEffect,
  type MirrorEvent,
  mirrorInit,
  type MirrorState,
  mirrorStep,
  type MirrorVerb,
} from '../core/mirror.ts';
import { SimApp } from './mirror-app.ts';
import { blankCopy, type CopyDisk, losePower } from './mirror-copy.ts';
import { type Done, type EngineHost, SimEngine, type StreamMessage } from './mirror-engine.ts';
import { Lane } from './mirror-lane.ts';
import { type MirrorBeat, MirrorKeeper, silent } from './mirror-keeper.ts';
import { undone, type Untimed } from '../core/mirror-undone.ts';
import type { MirrorWorld } from './mirror-world.ts';

export class MirrorNode {
  readonly id: number;
  readonly world: MirrorWorld;
  readonly config: MirrorConfig;
  readonly #rate: number;
  readonly #base: number;
  up = false;
  /** The whole server stands still. */
  frozen = false;
  readonly agent = new Lane();
  readonly beats = new Lane();
  readonly engines = new Lane();
  keeper: MirrorKeeper | null = null;
  engine: SimEngine;
  state: MirrorState;
  /** Agent that runs; off: killed, or the server is. */
  agentUp = false;
  #agentStoppedMs = 0;
  /** What the agent has kept for one that follows on the same boot. */
  #former: MirrorState | null = null;
  #effects: MirrorEffect[] = [];
  #performing = false;
  #tickAt = Number.POSITIVE_INFINITY;
  #boots = 0;
  #newsMs = 0;
  /** Answers the order that the engine works on. */
  #ordered: Done | null = null;
  #toldLease: boolean | null = null;
  /** The kernel's: the address is there, and the filter lets it answer. */
  vip: 'off' | 'on' | 'open' = 'off';
  #leaseEndMs = 0;
  readonly app: SimApp;
  /** On disk: what was made durable. */
  durable: Durable = blankDurable;
  copy: CopyDisk = blankCopy();
  /** Its disk was lost: its copy does not count before it is whole again. */
  lostDisk = false;
  diskSlowMs = 0;
  persistFails = false;
  /** Power goes after so many more effects of its agent; 0: it does not. */
  pullAfter = 0;
  #watching = false;
  /** What the operator wants of it. */
  wanted = false;

  constructor(world: MirrorWorld, id: number) {
    this.world = world;
    this.id = id;
    this.config = world.setting.config(id);
    this.#rate = 1 + world.chance.between(-1, 1) * world.setting.skew;
    this.#base = world.chance.between(1000, 1e6);
    this.state = mirrorInit(this.config);
    this.app = new SimApp(world);
    this.engine = this.#newEngine();
  }

  get nowMs(): number {
    return this.#base + this.world.nowMs * this.#rate;
  }

  /** Somebody who asks for the address gets an answer from this server, now. */
  get answers(): boolean {
    return this.vip === 'open' && this.up && !this.frozen && this.#leaseEndMs > this.nowMs;
  }

  get engineAwake(): boolean {
    return this.up && this.engines.awake;
  }

  #local(ms: number): number {
    return ms / this.#rate;
  }

  powerOn(): void {
    if (this.up) return;
    this.up = true;
    this.frozen = false;
    for (const lane of [this.agent, this.beats, this.engines]) lane.begin();
    this.vip = 'off';
    this.#leaseEndMs = 0;
    this.app.power();
    this.#former = null;
    this.engine = this.#newEngine();
    this.startKeeper();
    this.startAgent();
  }

  powerOff(): void {
    if (!this.up) return;
    const { session } = this.engine;
    this.up = false;
    this.app.power();
    this.keeper = null;
    this.agentUp = false;
    for (const lane of [this.agent, this.beats, this.engines]) lane.end();
    losePower(this.copy, () => this.world.chance.unit());
    this.engine = this.#newEngine();
    if (session !== 0) this.world.streamEnded(this.id, session);
    this.world.checks.copyChanged(this);
  }

  freeze(on: boolean): void {
    if (!this.up || this.frozen === on) return;
    this.frozen = on;
    const lanes = [this.agent, this.beats, this.engines];
    if (on) {
      this.#agentStoppedMs = this.agentAliveMs;
      for (const lane of lanes) lane.pause();
      return;
    }
    // The threads of a server that wakes run in any order.
    for (let first = this.world.chance.below(3); lanes.length > 0; first = 0) {
      this.#resume(lanes.splice(first, 1)[0]);
    }
  }

  pause(lane: Lane, on: boolean): void {
    if (!this.up) return;
    if (on) {
      if (lane === this.agent) this.#agentStoppedMs = this.agentAliveMs;
      lane.pause();
    } else this.#resume(lane);
  }

  #resume(lane: Lane | undefined): void {
    if (lane === this.beats) this.keeper?.noteLateness(this.nowMs);
    lane?.resume();
    if (lane === this.beats) this.#wakeKeeper();
    if (lane === this.agent) this.#armTick();
  }

  /** When the agent last gave a sign of life. */
  get agentAliveMs(): number {
    return this.agentUp && this.agent.awake ? this.nowMs : this.#agentStoppedMs;
  }

  // The keeper.

  startKeeper(): void {
    if (!this.up || this.keeper !== null) return;
    this.#boots++;
    this.keeper = new MirrorKeeper(
      this.id,
      this.#boots,
      this.nowMs,
      this.world.setting.timing,
      (beat) => this.world.sendBeat(beat),
      (news) => this.#later(() => this.take((nowMs) => ({ kind: 'peer', nowMs, ...news }))),
    );
    this.#toldLease = null;
    this.#wakeKeeper();
  }

  /** holdfastd is killed, and its agent with it; the lease in the kernel goes on to its end. */
  killKeeper(): void {
    if (this.keeper === null) return;
    this.killAgent();
    this.keeper = null;
    this.beats.end();
    this.beats.begin();
    if (this.frozen) this.beats.pause();
  }

  #wakeKeeper(): void {
    const { keeper } = this;
    if (keeper === null || !this.beats.awake) return;
    const next = keeper.tick(this.nowMs, this.agentAliveMs);
    this.#syncLease();
    const { life } = this.beats;
    const ms = Math.max(0.01, this.#local(next - this.nowMs));
    this.world.after(ms, () => {
      if (this.keeper === keeper && this.beats.life === life && keeper.nextWakeMs === next) {
        this.#wakeKeeper();
      }
    });
  }

  receiveBeat(beat: MirrorBeat): void {
    const arrivedMs = this.nowMs;
    this.beats.run(() => {
      this.keeper?.receive(beat, arrivedMs, this.nowMs);
      this.#syncLease();
    });
  }

  #syncLease(): void {
    const { keeper } = this;
    // One that was started again leaves the kernel's lease to its end until it is told more.
    if (keeper === null || keeper.announced === silent) return;
    this.#leaseEndMs = keeper.leaseEndMs;
    const held = keeper.announced.lease === 'off' ? null : this.#leaseEndMs > this.nowMs;
    if (held === this.#toldLease) return;
    this.#toldLease = held;
    if (held !== null) this.#later(() => this.take((nowMs) => ({ kind: 'lease', nowMs, held })));
  }

  /** News for the agent: a moment later, in order. */
  #later(act: () => void): void {
    const { life } = this.agent;
    const { nowMs, chance } = this.world;
    this.#newsMs = Math.max(this.#newsMs, nowMs + chance.between(0.05, 1));
    this.world.at(this.#newsMs, () => {
      if (this.agent.life === life) act();
    });
  }

  // The engine.

  #newEngine(): SimEngine {
    const { world, engines } = this;
    const { life } = engines;
    const host: EngineHost = {
      node: this.id,
      rules: world.setting.rules,
      chance: () => world.chance.unit(),
      after: (ms, act) =>
        world.after(ms, () => {
          if (engines.life === life) engines.run(act);
        }),
      send: (message) => world.sendStream(this.id, message),
      hungUp: (session) => world.streamEnded(this.id, session),
      news: (news) => {
        if (news.kind === 'copy' && news.copy === 'inSync') this.lostDisk = false;
        this.#later(() => this.take((nowMs) => ({ ...news, nowMs })));
      },
      acknowledged: (lsn, entry) => world.checks.acknowledged(this, lsn, entry),
      changed: () => world.checks.copyChanged(this),
      diskMs: () => 0.1 + world.chance.unit() * 2 + this.diskSlowMs * world.chance.unit(),
    };
    return new SimEngine(host, this.copy);
  }

  engineRuns(act: () => void): void {
    if (this.up) this.engines.run(act);
  }

  receiveStream(message: StreamMessage): void {
    this.engineRuns(() => this.engine.receive(message));
  }

  /** All processes of the engine are gone at once: the directories too. */
  loseEngine(): void {
    if (!this.up || this.engine.role === 'none') return;
    const { session } = this.engine;
    this.engines.end();
    this.engines.begin();
    if (this.frozen) this.engines.pause();
    this.engine = this.#newEngine();
    if (session !== 0) this.world.streamEnded(this.id, session);
    this.app.runs = false;
    this.#ordered?.('the engine is gone');
    this.#later(() => this.take((nowMs) => ({ kind: 'engineGone', nowMs, why: 'killed' })));
  }

  /** Everything that was wrong with this server is over; a broken disk was replaced. */
  mend(): void {
    this.diskSlowMs = 0;
    this.pullAfter = 0;
    this.persistFails = this.app.scriptFails = false;
    this.freeze(false);
    for (const lane of [this.agent, this.beats, this.engines]) {
      while (!lane.awake) this.#resume(lane);
    }
    if (this.copy.state === 'failed') {
      this.powerOff();
      this.copy = blankCopy();
      this.lostDisk = true;
    }
    this.powerOn();
    this.startKeeper();
    this.startAgent();
    this.app.healthy = true;
    this.tellHealth(20);
    this.take((nowMs) => ({ kind: 'veto', nowMs, why: null }));
    this.take((nowMs) => ({ kind: 'hold', nowMs, why: null }));
  }

  // The agent.

  startAgent(): void {
    if (!this.up || this.keeper === null || this.agentUp) return;
    this.agentUp = true;
    this.agent.begin();
    if (this.frozen) this.agent.pause();
    this.#effects = [];
    this.#performing = false;
    this.#tickAt = Number.POSITIVE_INFINITY;
    this.state = mirrorInit(this.config);
    const former = this.#former;
    if (former !== null) {
      const lapsed = this.#leaseEndMs <= this.nowMs;
      this.take((nowMs) => ({ kind: 'adopt', nowMs, state: former, lapsed }));
      // What happened to the engine meanwhile was told to nobody.
      const isGone = this.engine.role === 'none' && former.engine.role !== 'none';
      if (isGone && this.config.hasData && former.engine.pending === null) {
        this.take((nowMs) => ({ kind: 'engineGone', nowMs, why: 'killed' }));
      }
      this.engineRuns(() => this.engine.tellAll());
    } else {
      const { durable } = this;
      const { state: copy } = this.copy;
      this.take((nowMs) => ({ kind: 'boot', nowMs, durable, copy }));
    }
    this.#toldLease = null;
    this.beats.run(() => {
      this.keeper?.resync();
      this.#syncLease();
    });
    if (former === null && this.wanted) this.order('start');
  }

  killAgent(): void {
    if (!this.agentUp) return;
    this.#agentStoppedMs = this.agentAliveMs;
    this.agentUp = false;
    this.agent.end();
    this.#effects = [];
  }

  order(verb: MirrorVerb, auto: string | null = null): void {
    this.take((nowMs) => ({ kind: 'order', nowMs, verb, auto }));
  }

  /** An event for the machine, now or when the agent runs again. */
  take(event: Untimed): void {
    if (!this.up || !this.agentUp) return;
    this.agent.run(() => this.#step(event(this.nowMs)));
  }

  #step(event: MirrorEvent): void {
    const was = this.state.phase;
    const [next, effects] = mirrorStep(this.state, event, this.world.setting.rules);
    this.state = next;
    this.#former = next;
    this.world.steps++;
    this.world.mix(this.id * 16 + event.kind.length);
    if (was !== next.phase)
      this.world.record(`n${this.id}`, `${event.kind}: ${was} -> ${next.phase}`);
    this.#effects.push(...effects);
    this.#perform();
    this.#armTick();
  }

  #armTick(): void {
    const deadline = mirrorDeadline(this.state);
    if (deadline === null || !this.agentUp) return;
    const at = this.world.nowMs + Math.max(0.01, this.#local(deadline - this.nowMs));
    if (at >= this.#tickAt - 1e-6 && this.#tickAt > this.world.nowMs) return;
    this.#tickAt = at;
    const { life } = this.agent;
    this.world.at(at, () => {
      if (this.agent.life !== life || this.#tickAt !== at) return;
      this.#tickAt = Number.POSITIVE_INFINITY;
      this.take((nowMs) => ({ kind: 'tick', nowMs }));
    });
  }

  /** One effect after the other; those that wait are gone when the agent is. */
  #perform(): void {
    if (this.#performing) return;
    this.#performing = true;
    const { life } = this.agent;
    const next = (): void => {
      this.agent.run(() => {
        if (this.agent.life !== life) return;
        this.#performing = false;
        this.#perform();
      });
    };
    for (;;) {
      const effect = this.#effects.shift();
      if (effect === undefined) break;
      if (this.pullAfter > 0 && --this.pullAfter === 0) return this.powerOff();
      if (effect.kind === 'persist') {
        const ms = 0.2 + this.world.chance.unit() * 3 + this.diskSlowMs * this.world.chance.unit();
        this.world.after(ms, () => {
          if (this.agent.life !== life) return;
          if (this.persistFails) {
            this.#drop();
            return next();
          }
          // Written by the kernel, whether the agent runs or not.
          this.durable = effect.durable;
          next();
        });
        return;
      }
      if (effect.kind === 'announce') {
        this.beats.run(() => {
          this.keeper?.announce(effect, this.nowMs);
          this.#syncLease();
          next();
        });
        return;
      }
      this.#act(effect, life);
    }
    this.#performing = false;
  }

  #drop(): void {
    for (const event of undone(this.#effects.splice(0), 'the disk is full')) this.take(event);
  }

  #act(effect: MirrorEffect, life: number): void {
    const { world } = this;
    const answer = (event: Untimed): void => {
      if (this.agent.life === life) this.take(event);
    };
    switch (effect.kind) {
      case 'arbiterRead':
      case 'arbiterSwap': {
        const { id } = effect;
        const request =
          effect.kind === 'arbiterRead'
            ? ({ kind: 'read' } as const)
            : ({ kind: 'swap', from: effect.from, to: effect.to } as const);
        world.ask(this.id, request, (what) =>
          answer((nowMs) => ({ kind: 'arbiter', nowMs, id, answer: what })),
        );
        return;
      }
      case 'send':
        return world.sendMessage(this.id, effect.message);
      case 'engine': {
        const { id, order } = effect;
        world.record(`n${this.id}`, `engine ${Object.values(order).join(' ')}`);
        const done = (why: string | null): void => {
          if (this.#ordered !== done) return;
          this.#ordered = null;
          world.connectSoon();
          const ok = why === null;
          this.#later(() =>
            answer((nowMs) => ({ kind: 'engineDone', nowMs, id, ok, why: why ?? '' })),
          );
        };
        this.#ordered = done;
        if (!this.config.hasData) done(null);
        else this.engineRuns(() => this.engine.order(order, done));
        return;
      }
      case 'vip':
        if (effect.vip !== 'probe') world.record(`n${this.id}`, `address ${effect.vip}`);
        if (effect.vip === 'open' || effect.vip === 'off') this.vip = effect.vip;
        else if (effect.vip !== 'probe') this.vip = 'on';
        return;
      case 'run':
        return this.app.script(effect.script, (ok) =>
          answer((nowMs) => ({ kind: 'scriptDone', nowMs, ok, why: ok ? '' : 'exit 1' })),
        );
      case 'watch':
        this.#watching = effect.on;
        if (effect.on) this.tellHealth(20);
        return;
      case 'record':
        world.record(`n${this.id}`, effect.text);
        return;
      default:
    }
  }

  tellHealth(withinMs: number): void {
    const { life } = this.agent;
    this.world.after(this.world.chance.between(1, withinMs), () => {
      if (!this.#watching || this.agent.life !== life) return;
      const up = this.app.healthy;
      this.take((nowMs) => ({ kind: 'health', nowMs, up, why: up ? '' : 'no answer' }));
    });
  }
}
