/**
 * Two mirrors on a table: real reducers, a register, engines and scripts that do as they are told
 * at once. Time stands until `pass`; faults are what a test calls. The simulator (src/sim) has the rest.
 */
import assert from 'node:assert/strict';
import {
  type ArbiterRecord,
  blankDurable,
  type CopyState,
  type Durable,
  type MirrorConfig,
  type MirrorEffect,
  type MirrorEvent,
  mirrorDeadline,
  mirrorInit,
  mirrorProfiles,
  type MirrorState,
  mirrorStep,
  mirrorTiming,
  type MirrorVerb,
  type ScriptName,
  shownOf,
} from '../../src/core/mirror.ts';

type Untimed<E> = E extends MirrorEvent ? Omit<E, 'nowMs'> : never;
export type Timeless = Untimed<MirrorEvent>;

export const timing = mirrorTiming(mirrorProfiles.default);

export interface Server {
  readonly id: number;
  state: MirrorState;
  durable: Durable;
  copy: CopyState;
  up: boolean;
  role: 'none' | 'prim' | 'second';
  /** Acknowledges without the other. */
  alone: boolean;
  permit: number;
  vip: string;
  /** All effects since the start of the test, oldest first. */
  log: MirrorEffect[];
  /** Scripts that fail, and scripts that do not answer. */
  failing: Set<ScriptName>;
  hanging: Set<ScriptName>;
  heardMs: number;
  /** Its disk keeps nothing more. */
  full: boolean;
}

export class Pair {
  nowMs = 1_000_000;
  register: ArbiterRecord | null = null;
  /** Servers that reach the register; answers are lost, but swaps land, where `deaf` says so. */
  reaches = [true, true];
  deaf = [false, false];
  linked = true;
  connected = false;
  health = true;
  readonly servers: readonly [Server, Server];
  #queue: (() => void)[] = [];
  #running = false;

  constructor(config: Partial<MirrorConfig> = {}) {
    this.servers = [this.#make(0, config), this.#make(1, config)];
    for (const server of this.servers) this.boot(server.id);
    this.meet();
  }

  #make(id: number, config: Partial<MirrorConfig>): Server {
    const all: MirrorConfig = {
      me: id,
      peer: 1 - id,
      names: { 0: 'node1', 1: 'node2' },
      hasData: true,
      timing,
      defaultPrim: 'alone',
      maxloop: 3,
      loopIntervalMs: 86_400_000,
      hasHealth: false,
      startMs: 0,
      healthAction: 'stopstart',
      ...config,
    };
    return {
      id,
      state: mirrorInit(all),
      durable: blankDurable,
      copy: 'none',
      up: false,
      role: 'none',
      alone: false,
      permit: 0,
      vip: 'off',
      log: [],
      failing: new Set(),
      hanging: new Set(),
      heardMs: -1,
      full: false,
    };
  }

  at(id: number): Server {
    return id === 0 ? this.servers[0] : this.servers[1];
  }

  boot(id: number): void {
    const server = this.at(id);
    server.state = mirrorInit(server.state.config);
    server.up = true;
    this.event(id, { kind: 'boot', durable: server.durable, copy: server.copy });
  }

  /** The power is pulled: what is on disk stays. */
  pull(id: number): void {
    const server = this.at(id);
    server.up = false;
    server.role = 'none';
    server.vip = 'off';
    this.#lose();
    this.hush();
  }

  cut(): void {
    this.linked = false;
    this.#lose();
    this.hush();
  }

  /** The other's heartbeats end now, and are missed after `suspectMs`. */
  hush(): void {
    const lastMs = this.nowMs;
    for (const { id } of this.servers) this.at(id).heardMs = lastMs;
    this.pass(timing.suspectMs);
    for (const { id, up } of this.servers) if (up) this.#peer(id, 'silent');
  }

  /** Both hear each other (again). */
  meet(): void {
    this.linked = true;
    if (!this.at(0).up || !this.at(1).up) return;
    for (const { id } of this.servers) {
      this.at(id).heardMs = this.nowMs;
      this.#peer(id, 'both');
    }
    this.#connect();
  }

  #peer(id: number, reach: 'silent' | 'both'): void {
    const { heardMs } = this.at(id);
    this.event(id, { kind: 'peer', reach, boot: `boot${1 - id}`, hung: false, heardMs });
  }

  order(id: number, verb: MirrorVerb, auto: string | null = null): void {
    this.event(id, { kind: 'order', verb, auto });
  }

  /** Time goes on, with its ticks. */
  pass(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const due = this.servers
        .filter(({ up }) => up)
        .map(({ state }) => mirrorDeadline(state) ?? Infinity);
      const next = Math.min(...due);
      if (next > untilMs) break;
      this.nowMs = Math.max(this.nowMs, next);
      if (this.linked && this.at(0).up && this.at(1).up) {
        for (const server of this.servers) server.heardMs = this.nowMs;
      }
      for (const { id, up } of this.servers) if (up) this.event(id, { kind: 'tick' });
    }
    this.nowMs = untilMs;
  }

  event(id: number, event: Timeless): void {
    this.#queue.push(() => {
      const server = this.at(id);
      if (!server.up) return;
      const [state, effects] = mirrorStep(server.state, { ...event, nowMs: this.nowMs });
      server.state = state;
      for (const effect of effects) {
        if (effect.kind === 'persist' && server.full) {
          this.#failRest(server, effects.slice(effects.indexOf(effect)));
          return;
        }
        this.#perform(server, effect);
      }
    });
    if (this.#running) return;
    this.#running = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) next();
    this.#running = false;
  }

  /** The disk is full: what comes after is answered as failed. */
  #failRest({ id }: Server, effects: readonly MirrorEffect[]): void {
    const why = 'ENOSPC';
    for (const effect of effects) {
      if (effect.kind === 'arbiterRead' || effect.kind === 'arbiterSwap') {
        this.#noAnswer(id, effect.id, false);
      }
      if (effect.kind === 'engine') {
        this.event(id, { kind: 'engineDone', id: effect.id, ok: false, why });
      }
      if (effect.kind === 'run') this.event(id, { kind: 'scriptDone', ok: false, why });
    }
    this.event(id, { kind: 'persistFailed', why });
  }

  #perform(server: Server, effect: MirrorEffect): void {
    const { id } = server;
    server.log.push(effect);
    switch (effect.kind) {
      case 'persist':
        server.durable = effect.durable;
        return;
      case 'arbiterRead':
        if (!this.reaches[id] || this.deaf[id]) return this.#noAnswer(id, effect.id, false);
        this.event(id, {
          kind: 'arbiter',
          id: effect.id,
          answer: { outcome: 'record', record: this.register },
        });
        return;
      case 'arbiterSwap':
        return this.#swap(id, effect);
      case 'send': {
        const { message } = effect;
        if (this.linked && this.at(1 - id).up) this.event(1 - id, { kind: 'message', message });
        return;
      }
      case 'engine':
        return this.#engine(server, effect);
      case 'vip':
        server.vip = effect.vip === 'probe' ? server.vip : effect.vip;
        return;
      case 'run':
        if (server.hanging.has(effect.script)) return;
        this.event(id, {
          kind: 'scriptDone',
          ok: !server.failing.has(effect.script),
          why: 'exit 1',
        });
        return;
      case 'watch':
        if (effect.on && server.state.config.hasHealth) {
          this.event(id, { kind: 'health', up: this.health, why: 'no answer' });
        }
        return;
      default:
    }
  }

  #noAnswer(id: number, question: number, unknown: boolean): void {
    const why = 'timed out';
    const answer = unknown
      ? ({ outcome: 'unknown', why } as const)
      : ({ outcome: 'unreachable', why } as const);
    this.event(id, { kind: 'arbiter', id: question, answer });
  }

  #swap(id: number, effect: MirrorEffect & { kind: 'arbiterSwap' }): void {
    if (!this.reaches[id]) return this.#noAnswer(id, effect.id, false);
    const isSame = JSON.stringify(this.register) === JSON.stringify(effect.from);
    if (isSame) this.register = effect.to;
    if (this.deaf[id]) return this.#noAnswer(id, effect.id, true);
    const answer = isSame
      ? ({ outcome: 'won' } as const)
      : ({ outcome: 'lost', record: this.register } as const);
    this.event(id, { kind: 'arbiter', id: effect.id, answer });
  }

  #engine(server: Server, { id, order }: MirrorEffect & { kind: 'engine' }): void {
    if (order.what === 'prim' || order.what === 'alone') {
      server.alone = true;
      server.permit = order.epoch;
    }
    if (order.what === 'prim') server.copy = 'inSync';
    const isRole = order.what === 'prim' || order.what === 'second' || order.what === 'close';
    if (isRole) {
      this.#lose();
      server.role = order.what === 'close' ? 'none' : order.what;
    }
    this.event(server.id, { kind: 'engineDone', id, ok: true, why: '' });
    if (isRole) this.#connect();
    // A peer that is there is brought back, and waited for again at the end of that.
    if (order.what === 'alone' && this.connected) {
      this.connected = false;
      this.#connect();
    }
  }

  #lose(): void {
    if (!this.connected) return;
    this.connected = false;
    for (const { id, role } of this.servers) {
      if (role !== 'none') this.event(id, { kind: 'enginePeer', peer: 'lost' });
    }
  }

  /** Engines that find each other bring the secondary's copy up to date at once. */
  #connect(): void {
    const prim = this.servers.find(({ role, up }) => up && role === 'prim');
    const second = this.servers.find(({ role, up }) => up && role === 'second');
    if (!this.linked || this.connected || prim === undefined || second === undefined) return;
    this.connected = true;
    for (const { id } of this.servers) this.event(id, { kind: 'enginePeer', peer: 'connected' });
    if (!prim.alone) return;
    this.#copy(second, 'inconsistent');
    this.event(prim.id, { kind: 'peerCopy', copy: 'resync', epoch: prim.permit, alone: true });
    if (this.slow) return;
    this.finishResync();
  }

  /** A resync takes until `finishResync`. */
  slow = false;

  finishResync(): void {
    const prim = this.servers.find(({ role }) => role === 'prim');
    const second = this.servers.find(({ role }) => role === 'second');
    if (prim === undefined || second === undefined) throw new Error('no resync to finish');
    prim.alone = false;
    this.#copy(second, 'inSync');
    this.event(prim.id, { kind: 'peerCopy', copy: 'inSync', epoch: prim.permit, alone: false });
  }

  #copy(server: Server, copy: CopyState): void {
    server.copy = copy;
    this.event(server.id, { kind: 'copy', copy });
  }

  /** `PRIM Ready`. */
  shown(id: number): string {
    const { state, readiness } = shownOf(this.at(id).state);
    return `${state} ${readiness}`;
  }

  get both(): string {
    return `${this.shown(0)}, ${this.shown(1)}`;
  }

  /** Kinds of effects since `from`, with what tells them apart. */
  effects(id: number, from = 0): readonly string[] {
    return this.at(id)
      .log.slice(from)
      .map((effect) => {
        if (effect.kind === 'run') return `${effect.script}${effect.force ? ' force' : ''}`;
        if (effect.kind === 'vip') return `vip ${effect.vip}`;
        if (effect.kind === 'engine') return `engine ${effect.order.what}`;
        return effect.kind;
      });
  }

  refusals(id: number): readonly string[] {
    return this.at(id).log.flatMap((effect) =>
      effect.kind === 'record' && effect.record === 'refusal' ? [effect.text] : [],
    );
  }
}

/** Both run, node1 is PRIM, node2 is SECOND. */
export function runningPair(config: Partial<MirrorConfig> = {}): Pair {
  const pair = new Pair(config);
  pair.order(0, 'prim');
  pair.order(1, 'start');
  pair.pass(10);
  return pair;
}

/** `2: 0 of 0+1`: epoch, primary, who is in sync. */
export const record = (pair: Pair) => {
  const { epoch, primary, inSync } = pair.register ?? { epoch: 0, primary: -1, inSync: [] };
  return `${epoch}: ${primary} of ${inSync.join('+')}`;
};

export const inOrder = (effects: readonly string[], wanted: readonly string[]) => {
  let from = 0;
  for (const one of wanted) {
    const index = effects.indexOf(one, from);
    assert.ok(index >= 0, `${one} not after ${wanted.slice(0, wanted.indexOf(one)).join(', ')}`);
    from = index + 1;
  }
};

export const mark = (pair: Pair, id: number) => pair.at(id).log.length;

/** A record that node2 would have written. */
export function later(pair: Pair, epoch: number): ArbiterRecord {
  if (pair.register === null) throw new Error('no register yet');
  return { ...pair.register, epoch, primary: 1, inSync: [1] };
}
