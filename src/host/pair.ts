/**
 * One mirror on this node that decides for itself: core/mirror decides, this file feeds it with what
 * happens and performs what it wants: scripts, replication engine, virtual address, heartbeats,
 * register. docs/internals/mirror-core.md, "What the host owes", is what it keeps to.
 */
import type { ModuleConfig } from '../config/model.ts';
import { loopCount } from '../core/mirror-loops.ts';
import {
  type ArbiterAnswer,
  type Message,
  type MirrorEffect,
  mirrorInit,
  type MirrorState,
  type MirrorVerb,
  mirrorWhy,
  shownOf,
} from '../core/mirror.ts';
import { HoldfastError } from '../errors.ts';
import { explainRefusal } from '../errors/explain.ts';
import type { ModuleStatus, ModuleVerb, SecondWay, VerifyStatus } from './face.ts';
import type { Hosted } from './hosted.ts';
import type { MirrorRecord } from './mirror-state.ts';
import { PairData } from './pair-data.ts';
import { PairEngine } from './pair-engine.ts';
import { PairLoop } from './pair-loop.ts';
import { PeerGate, type PeerNews } from './pair-peer.ts';
import { coreConfig, type PairPorts, type PairVip, stopNeededFor } from './pair-ports.ts';
import { PairScripts } from './pair-scripts.ts';
import { announced, pairStatus, rests } from './pair-shown.ts';
import { type PairMemory, type PairRecord, PairRuntimeFile } from './pair-state.ts';

/** A start answers after this at the latest, as that of a farm does. */
const answerMs = 60_000;
/** A register answers within its own limit; one that breaks that counts as one that did not. */
const questionMs = 15_000;
/** A primary that was asked to give way begins within this. */
const refusalMs = 5000;
/** What the core says of an order that it refuses begins so. */
const refused = 'not carrying out';

type Question = Extract<MirrorEffect, { kind: 'arbiterRead' | 'arbiterSwap' }>;

/** What a pair is made of, beside what its node gives it. */
export interface PairParts {
  readonly config: ModuleConfig;
  readonly peer: number;
  readonly record: PairRecord;
  /** Epochs of the engine, for a mirror that is run by hand again. */
  readonly epochs: MirrorRecord;
}

export class HostedPair implements Hosted {
  readonly name: string;
  readonly farm = null;
  readonly pair = this;
  readonly #ports: PairPorts;
  readonly #peer: number;
  readonly #record: PairRecord;
  readonly #runtime: PairRuntimeFile;
  readonly #engine: PairEngine;
  readonly #scripts: PairScripts;
  readonly #gate: PeerGate;
  readonly #loop: PairLoop;
  readonly #data: PairData;
  readonly #waiters = new Set<() => void>();
  #config: ModuleConfig;
  /** Found, not taken over yet. */
  #former: PairMemory | null = null;
  #vip: PairVip | null = null;
  #watcher: { stop(): void } | null = null;
  #abandoned = false;
  /** Orders to stop, so far. */
  #stops = 0;

  private constructor({ config, peer, record, epochs }: PairParts, ports: PairPorts) {
    this.name = config.name;
    this.#config = config;
    this.#peer = peer;
    this.#ports = ports;
    this.#record = record;
    const { mirror } = ports;
    this.#runtime = new PairRuntimeFile(mirror.paths.run, config.name);
    const current = (): ModuleConfig => this.#config;
    this.#engine = new PairEngine(current, epochs, mirror, peer, {
      news: (event) => this.#loop.take(event),
      changed: () => {
        const { phase } = this.#loop.state;
        this.#engine.mirror.checkAlerts(phase === 'prim' || phase === 'second');
        this.#changed();
      },
    });
    this.#scripts = new PairScripts(current, mirror, (event) => this.#loop.take(event));
    this.#gate = new PeerGate({
      nowMs: mirror.nowMs,
      suspectMs: () => this.#loop.state.config.timing.suspectMs,
      poll: ports.poll,
      suspect: (times) => {
        const text = `${ports.names()[peer] ?? 'the other server'} is suspect: silent for too long`;
        mirror.record('peer', text, times);
      },
      news: (news) => this.#loop.take({ kind: 'peer', ...news }),
    });
    this.#loop = new PairLoop(mirrorInit(this.#coreConfig()), mirror.nowMs, {
      persist: (durable) => this.#record.write(durable),
      arbiter: (question) => void this.#ask(question),
      send: ({ message }) => ports.send(peer, message),
      engine: ({ id, order }) => {
        if (this.#hasData) this.#engine.order(id, order);
        else this.#loop.take({ kind: 'engineDone', id, ok: true, why: '' });
      },
      announce: (effect) => this.#announce(effect),
      consent: (on) => ports.consent(on),
      vip: (vip) => this.#vip?.perform(vip),
      run: (effect) => this.#scripts.run(effect),
      cancel: () => this.#scripts.cancel(),
      transition: ({ from, to }) => this.#scripts.transition(from, to),
      watch: (on) => this.#watch(on),
      record: ({ record, text, data }) => this.#say(record, text, data),
      poll: ports.poll,
      keep: (state) => this.#keep(state),
      changed: () => this.#changed(),
    });
    this.#data = new PairData(
      async (force) => (this.#hasData ? this.#engine.look(force) : null),
      () => this.#loop.state,
      (why) => this.#loop.take({ kind: 'data', why }),
    );
  }

  /** Reads what is kept; a mirror that no former agent left running begins stopped. */
  static async open(parts: PairParts, ports: PairPorts): Promise<HostedPair> {
    const pair = new HostedPair(parts, ports);
    pair.#former = pair.#runtime.read()?.state ?? null;
    if (pair.#former === null) await pair.#boot();
    return pair;
  }

  async #boot(): Promise<void> {
    // What a former agent ran and nothing is known of any more.
    this.#ports.clearVip(this.#config);
    if (this.#hasData) await this.#engine.endLeft();
    const { copy, epoch } = this.#engine.superblock();
    const { value } = this.#record;
    // The engine takes nothing older than what it was told, whoever told it.
    const durable = { ...value, promised: Math.max(value.promised, epoch) };
    this.#loop.take({ kind: 'boot', durable, copy });
    this.#hearPeer();
  }

  #hearPeer(): void {
    const news = this.#ports.peer(this.#peer);
    if (news !== null) this.#gate.onPeer(news);
  }

  get config(): ModuleConfig {
    return this.#config;
  }

  /** Id of the other server. */
  get peer(): number {
    return this.#peer;
  }

  get stopped(): boolean {
    return this.#former === null && this.#loop.state.phase === 'stopped';
  }

  get #hasData(): boolean {
    return this.#config.rfs !== null;
  }

  async findFormer(): Promise<boolean> {
    return this.#former !== null;
  }

  adopt(): void {
    const former = this.#former;
    if (former === null) return;
    this.#former = null;
    const { phase } = former;
    this.#vip = this.#ports.openVip(this.#config);
    const hasVip = ['primStarting', 'primGate', 'prim', 'primStopping', 'primForcing'];
    if (hasVip.includes(phase)) this.#vip?.adopt(phase === 'prim');
    else {
      this.#ports.clearVip(this.#config);
      this.#vip?.guard();
    }
    // In the same turn: heartbeats that lack the module would end its lease.
    const last = announced(former);
    if (last !== null) void this.#announce(last);
    this.#loop.assume(last?.consent ?? false);
    this.#scripts.settle();
    const { engine } = former;
    if (this.#hasData && engine.role !== 'none') {
      this.#engine.adopt(engine.role, engine.pending !== null);
    }
    const state: MirrorState = { ...former, config: this.#coreConfig() };
    this.#loop.take({ kind: 'adopt', state, lapsed: !this.#ports.leaseHeld() });
    this.#hearPeer();
  }

  /** Heartbeats of the peer. */
  onPeer(node: number, news: PeerNews): void {
    if (node === this.#peer && this.#former === null) this.#gate.onPeer(news);
  }

  /** From the peer's agent. */
  onMessage(from: number, message: Message): void {
    if (from === this.#peer && this.#former === null) this.#loop.take({ kind: 'message', message });
  }

  /** The kernel's lease of the address runs again, or has run out. */
  onLease(held: boolean): void {
    if (this.#former !== null) return;
    if (held) this.#vip?.reannounce();
    this.#loop.take({ kind: 'lease', held });
  }

  async command(verb: ModuleVerb): Promise<void> {
    if (verb === 'stop' || verb === 'forcestop') {
      this.#stops += 1;
      this.#order(verb);
      return this.#until(() => this.stopped && this.#loop.idle);
    }
    await this.#begin(verb);
    return this.#untilRests();
  }

  /** @see Agent.prim */
  async prim(force: boolean): Promise<void> {
    await this.#begin(force ? 'primforce' : 'prim');
    await this.#untilRests();
    this.#mustBe('primary', 'prim');
  }

  /** @see Agent.second */
  async second(way: SecondWay): Promise<void> {
    const verbs = {
      plain: 'second',
      fullsync: 'secondFullsync',
      discard: 'secondDiscard',
    } as const satisfies Record<SecondWay, MirrorVerb>;
    await this.#begin(verbs[way]);
    await this.#untilRests();
  }

  /** @see Agent.swap */
  async swap(sync: boolean): Promise<void> {
    const { phase } = this.#loop.state;
    const verb = sync ? 'swap' : 'swap nosync';
    if (phase !== 'prim' && phase !== 'primGate' && phase !== 'second')
      throw this.#impossible(verb);
    let left = false;
    this.#order(sync ? 'swap' : 'swapNosync');
    const beganMs = this.#ports.mirror.nowMs();
    const byMs = beganMs + answerMs;
    await this.#until(() => {
      const now = this.#loop.state;
      left ||= now.phase !== phase;
      // The primary that was asked has not begun: it refuses, and says why.
      const isRefused = !left && this.#isLate(beganMs + refusalMs) && serves(now);
      return (left && this.#loop.idle && rests(now)) || isRefused || this.#isLate(byMs);
    }, byMs);
    const { phase: now } = this.#loop.state;
    if (now !== phase) return;
    const reason = left ? 'the other server did not take over' : 'nothing came of it';
    throw new HoldfastError('HF-MIRROR-040', { module: this.name, verb, reason });
  }

  /** @see Agent.failover */
  async failover(on: boolean): Promise<void> {
    this.#order(on ? 'failoverOn' : 'failoverOff');
    await this.#until(() => this.#loop.idle);
  }

  /** @see Agent.verify */
  async verify(): Promise<VerifyStatus> {
    const { mirror } = this.#engine;
    if (this.#loop.state.phase === 'prim' && mirror.peerConnected) return mirror.verify();
    const { state } = shownOf(this.#loop.state);
    throw new HoldfastError('HF-MIRROR-011', { module: this.name, state });
  }

  setConfig(config: ModuleConfig): void {
    const former = this.#config;
    if (!this.stopped) {
      const what = stopNeededFor(former, config);
      if (what !== null) throw new HoldfastError('HF-AGENT-006', { module: this.name, what });
    }
    this.#config = config;
    if (this.#former !== null) return;
    this.#loop.reconfigure(this.#coreConfig());
    const { failover } = config.service;
    if (failover !== former.service.failover) this.#order(failover ? 'failoverOn' : 'failoverOff');
    if (this.#watcher !== null) this.#watch(true);
  }

  why(): readonly string[] {
    if (this.#former !== null) return [];
    const apart = this.#engine.mirror.apart?.message;
    return [...(apart === undefined ? [] : [apart]), ...mirrorWhy(this.#loop.state)];
  }

  status(): ModuleStatus {
    const { state } = this.#loop;
    const { mode, maxloop } = this.#config.service;
    const { mirror } = this.#engine;
    const hasEngine = this.#hasData && state.engine.role !== 'none';
    const health = state.health === null ? 'init' : state.health ? 'up' : 'down';
    return {
      name: this.name,
      mode,
      ...shownOf(state),
      why: this.why(),
      loopCount: loopCount(state),
      maxloop,
      signature: this.#config.signature,
      resources: this.#config.ready === null ? {} : { 'mirror.ready': health },
      farm: null,
      replica: hasEngine ? mirror.status() : null,
      pair: pairStatus(state, this.#ports.register().text, this.#vip),
    };
  }

  abandon(): void {
    this.#abandoned = true;
    this.#loop.end();
    this.#data.end();
    this.#gate.end();
    this.#watcher?.stop();
    this.#vip?.abandon();
    this.#engine.abandon();
    this.#changed();
  }

  #coreConfig(): MirrorState['config'] {
    return coreConfig(this.#config, this.#ports.me, this.#peer, this.#ports.names());
  }

  /** An order to become something, once it is known whether the data is there. */
  async #begin(verb: MirrorVerb): Promise<void> {
    const stops = this.#stops;
    const why = await this.#data.found(verb);
    // It came first, and is carried out by now.
    if (stops !== this.#stops) throw this.#impossible(verb);
    if (why !== null) this.#data.tell(why);
    this.#openVip();
    this.#order(verb);
    this.#data.tell(why);
  }

  #order(verb: MirrorVerb): void {
    this.#loop.take({ kind: 'order', verb, auto: null });
    const [reason] = this.#loop.state.why;
    if (reason?.startsWith(refused) !== true) return;
    throw (
      this.#refusal(reason) ??
      new HoldfastError('HF-MIRROR-040', { module: this.name, verb, reason })
    );
  }

  /** A sentence of the machine as the error that it is; null: it is none of the registry. */
  #refusal(text: string): HoldfastError | null {
    const told = explainRefusal(text, this.name);
    return told === null ? null : new HoldfastError(told.code, told.values);
  }

  #impossible(verb: string): HoldfastError {
    const { state, readiness } = shownOf(this.#loop.state);
    const values = { module: this.name, state: `${state} (${readiness})`, verb };
    return new HoldfastError('HF-AGENT-005', values);
  }

  #mustBe(role: 'primary', verb: string): void {
    const { phase, refusal, why } = this.#loop.state;
    if (phase.startsWith('prim') && phase !== 'prestart') return;
    const reason = refusal ?? why[0] ?? 'it was stopped';
    const values = { module: this.name, role: `${role} (${verb})`, reason };
    throw this.#refusal(reason) ?? new HoldfastError('HF-MIRROR-015', values);
  }

  /** One question at a time; an answer comes in any case. */
  async #ask(question: Question): Promise<void> {
    const register = this.#ports.register();
    const { id } = question;
    let timer: NodeJS.Timeout | null = null;
    const late = new Promise<ArbiterAnswer>((resolve) => {
      const answer = { outcome: 'unknown', why: 'no answer within its time limit' } as const;
      timer = setTimeout(() => resolve(answer), questionMs);
    });
    const asked =
      question.kind === 'arbiterRead'
        ? register.read(this.name)
        : register.swap(this.name, question.from, question.to);
    const answer = await Promise.race([asked, late]);
    if (timer !== null) clearTimeout(timer);
    // What the heartbeats said meanwhile comes first.
    this.#ports.poll();
    this.#loop.take({ kind: 'arbiter', id, answer });
  }

  #announce(effect: Extract<MirrorEffect, { kind: 'announce' }>): Promise<void> | void {
    return this.#ports.announce(effect, this.#loop.state.config.timing.leaseMs);
  }

  #watch(on: boolean): void {
    this.#watcher?.stop();
    this.#watcher = null;
    const { ready } = this.#config;
    if (!on || ready === null) return;
    this.#watcher = this.#ports.watch(ready, this.#config, (up, why) =>
      this.#loop.take({ kind: 'health', up, why }),
    );
  }

  /** HF-AGENT-008 before anything is begun. */
  #openVip(): void {
    this.#vip ??= this.#ports.openVip(this.#config);
    this.#vip?.guard();
  }

  #keep(state: MirrorState): void {
    const id = `module.${this.name}.runtime`;
    const { alert } = this.#ports.mirror;
    try {
      if (state.phase === 'stopped') this.#runtime.remove();
      else {
        const { config: _, ...memory } = state;
        this.#runtime.write(this.#ports.leaseSlot, memory);
      }
      alert(id, false, 'warning', '');
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const text = `state of module ${this.name} cannot be kept in /run: ${reason}`;
      alert(id, true, 'warning', text);
    }
  }

  #say(
    record: Extract<MirrorEffect, { kind: 'record' }>['record'],
    text: string,
    data: Readonly<Record<string, unknown>>,
  ): void {
    const code = explainRefusal(text, this.name)?.code;
    const all = code === undefined ? data : { code, ...data };
    this.#ports.mirror.record(record === 'arbiter' ? 'view' : record, text, all);
  }

  #changed(): void {
    // Everything that belongs to the address was taken away on the way down.
    if (this.#vip !== null && this.stopped && this.#loop.idle && !this.#abandoned) {
      this.#vip.remove();
      this.#vip = null;
    }
    if (!this.#abandoned) this.#checkArbiter();
    for (const waiter of [...this.#waiters]) waiter();
  }

  /** Service goes on without it, and so an operator must be told before anything else fails. */
  #checkArbiter(): void {
    const { arbiterBad, arbiterWhy } = this.#loop.state;
    const why = this.stopped ? null : (arbiterBad ?? arbiterWhy);
    const text = `${this.name}: the arbiter cannot be used, and no failure would be survived: ${why ?? ''}`;
    this.#ports.mirror.alert(`module.${this.name}.arbiter`, why !== null, 'critical', text);
  }

  #isLate(byMs: number): boolean {
    return this.#ports.mirror.nowMs() >= byMs;
  }

  #untilRests(): Promise<void> {
    const byMs = this.#ports.mirror.nowMs() + answerMs;
    return this.#until(
      () => (this.#loop.idle && rests(this.#loop.state)) || this.#isLate(byMs),
      byMs,
    );
  }

  /** Resolves when it is so; looked at after each change, and at `atMs`. */
  #until(isSo: () => boolean, atMs = Infinity): Promise<void> {
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | null = null;
      const look = (): void => {
        if (!this.#abandoned && !isSo()) return;
        if (timer !== null) clearTimeout(timer);
        this.#waiters.delete(look);
        resolve();
      };
      const leftMs = atMs - this.#ports.mirror.nowMs() + 1;
      if (atMs < Infinity) timer = setTimeout(look, leftMs);
      this.#waiters.add(look);
      look();
    });
  }
}

/** The peer serves as if nothing had been asked of it. */
function serves({ peer }: MirrorState): boolean {
  return peer.status?.role === 'primary' && peer.status.readiness === 'Ready';
}
