/**
 * One mirror on this node, run by the operator's hand: nothing here decides who is primary.
 *
 *   stopped ──▶ prestart ──▶ opening ──▶ waiting ──▶ starting ──▶ serving
 *   STOP        WAIT         WAIT        PRIM        start_prim    PRIM, ALONE, SECOND
 *      ▲                       (second: straight to starting)         │ stop
 *   poststop ◀── unmounting ◀── forcing ◀── stopping ◀────────────────┘
 *
 * Invariants
 * 1. start_prim runs only while the directories are mounted and synced writes are answered: the peer
 *    has been connected, or going on alone was ordered. Otherwise it would hang in its first fsync.
 * 2. The directories are unmounted only after both runs of the stop script.
 * 3. An epoch is durable before the engine hears of it.
 */
import type { ModuleConfig } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { ScriptState } from '../module/environment.ts';
import { failure, runScript, settleScript, type ScriptName, succeeded } from '../module/scripts.ts';
import type {
  ModuleState,
  ModuleStatus,
  ModuleVerb,
  Readiness,
  SecondWay,
  VerifyStatus,
} from './face.ts';
import type { Hosted } from './hosted.ts';
import { MirrorEngine } from './mirror-engine.ts';
import {
  fixedOf,
  type Heard,
  type MirrorPorts,
  type OpenOrder,
  type OpenWay,
} from './mirror-ports.ts';
import {
  MirrorRuntimeFile,
  type MirrorPhase,
  type MirrorRecord,
  type MirrorRole,
} from './mirror-state.ts';

/** Where the module is to go; `force` is a stop without the first run of the stop script. */
type Goal = 'up' | 'stop' | 'force' | 'restart';

/** Newest sentences kept for `why`. */
const whyMax = 8;
/** A start answers after this at the latest, as that of a farm does. */
const answerMs = 60_000;

export class HostedMirror implements Hosted {
  readonly name: string;
  readonly farm = null;
  readonly pair = null;
  readonly #ports: MirrorPorts;
  readonly #runtime: MirrorRuntimeFile;
  readonly #engine: MirrorEngine;
  readonly #waiters = new Set<() => void>();
  #config: ModuleConfig;
  #phase: MirrorPhase = 'stopped';
  #role: MirrorRole = 'prim';
  /** How the copy is to be taken; an agent that follows does not order it again. */
  #way: OpenWay = { order: null, heard: { primary: null, epoch: 0 } };
  #goal: Goal = 'stop';
  /** What was asked for, as scripts are told. */
  #action: 'start' | 'stop' | 'restart' = 'start';
  #script: AbortController | null = null;
  #driving = false;
  #driveAgain = false;
  #abandoned = false;
  #why: readonly string[] = [];

  constructor(config: ModuleConfig, record: MirrorRecord, ports: MirrorPorts) {
    this.name = config.name;
    this.#config = config;
    this.#ports = ports;
    this.#engine = new MirrorEngine(() => this.#config, record, ports, {
      changed: () => this.#onStatus(),
      gone: () => this.#onGone(),
    });
    this.#runtime = new MirrorRuntimeFile(ports.paths.run, config.name);
  }

  get config(): ModuleConfig {
    return this.#config;
  }

  get stopped(): boolean {
    return this.#phase === 'stopped';
  }

  async findFormer(): Promise<boolean> {
    const former = this.#runtime.read();
    if (former === null) return false;
    this.#phase = former.phase;
    this.#role = former.role;
    this.#goal = former.goal;
    return true;
  }

  adopt(): void {
    void this.#adopt();
  }

  /** The engine has lived on; where it has not, there is nothing left to serve from. */
  async #adopt(): Promise<void> {
    this.#driving = true;
    const timeoutMs = this.#scriptTimeoutMs(false);
    const settled = await settleScript(this.#ports.paths, this.name, timeoutMs);
    if (settled !== null) {
      this.#say('script', `${settled.script} of the former agent ended`, { ended: settled.ended });
    }
    const needsEngine = !['stopped', 'prestart', 'opening', 'poststop'].includes(this.#phase);
    const isThere = needsEngine && (await this.#engine.attach(this.#role));
    // Unmounting, it may have ended as it should.
    if (needsEngine && !isThere && this.#phase !== 'unmounting') this.#onGone();
    this.#driving = false;
    this.#drive();
  }

  async command(verb: ModuleVerb): Promise<void> {
    if (verb === 'start' || verb === 'stopstart') {
      throw new HoldfastError('HF-MIRROR-005', { module: this.name, verb });
    }
    if (verb === 'restart' && this.#phase !== 'serving') {
      const { state, readiness } = this.#shown();
      const values = { module: this.name, state: `${state} (${readiness})`, verb };
      throw new HoldfastError('HF-AGENT-005', values);
    }
    this.#why = [];
    if (verb === 'restart') {
      this.#setGoal('restart');
      return this.#until(() => this.#goal !== 'restart' && this.#resting());
    }
    if (this.stopped) return;
    this.#setGoal(verb === 'forcestop' ? 'force' : 'stop');
    if (verb === 'forcestop') this.#script?.abort();
    return this.#until(() => this.stopped);
  }

  /** @see Agent.prim */
  async prim(alone: boolean, force = false): Promise<void> {
    const isFar = this.#ports.isDistant(this.#config);
    const isPrim = !this.stopped && this.#role === 'prim';
    if (isFar && !isPrim && !force) throw this.#engine.lag.refusal();
    if (this.stopped) {
      const lacks = this.#engine.lag.text;
      const heard = await this.#ports.checkPeer(this.#config, 'prim');
      await this.#up('prim', force ? 'force' : null, heard);
      if (isFar) this.#blame(`it was a distant copy, and is primary by force; ${lacks}`);
      else if (!alone) return;
    }
    const isUp = this.#goal === 'up' && !['prestart', 'opening'].includes(this.#phase);
    if (!isUp || this.#role !== 'prim') throw this.#impossible('prim');
    if (this.#engine.ready) return;
    const node = this.#engine.peer;
    // After a disaster nobody else has a copy to wait for.
    if (!alone && !(isFar && force))
      throw new HoldfastError('HF-MIRROR-008', { module: this.name, node });
    // A peer that can still be asked must not be primary itself.
    const heard = await this.#ports.checkPeer(this.#config, 'prim');
    const epoch = await this.#engine.goAlone(heard.epoch);
    this.#say('transition', `alone from epoch ${epoch} on, by order`, { epoch });
    this.#drive();
    await this.#until(() => this.#resting() && this.#phase !== 'waiting');
  }

  /** @see Agent.second */
  async second(way: SecondWay = 'plain'): Promise<void> {
    if (this.stopped) {
      const heard = await this.#ports.checkPeer(this.#config, 'second');
      await this.#up('second', way === 'plain' ? null : way, heard);
      return;
    }
    // What the copy is taken for is said when it is opened.
    const isSecond = this.#role === 'second' && this.#goal === 'up' && way === 'plain';
    if (!isSecond) throw this.#impossible(way === 'plain' ? 'second' : `second ${way}`);
  }

  /** @see Agent.verify */
  async verify(): Promise<VerifyStatus> {
    if (!this.stopped && this.#role === 'prim' && this.#engine.peerConnected) {
      return this.#engine.verify();
    }
    const { state } = this.#shown();
    throw new HoldfastError('HF-MIRROR-011', { module: this.name, state });
  }

  setConfig(config: ModuleConfig): void {
    const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);
    if (!this.stopped) {
      const what = !same(this.#config.service.mode, config.service.mode)
        ? 'mode'
        : same(fixedOf(this.#config), fixedOf(config))
          ? null
          : '<rfs>';
      if (what !== null) throw new HoldfastError('HF-AGENT-006', { module: this.name, what });
    }
    this.#config = config;
  }

  why(): readonly string[] {
    return [...this.#waitsFor(), ...this.#why];
  }

  #waitsFor(): readonly string[] {
    const { peer } = this.#engine;
    const reason = this.#engine.peerReason === '' ? '' : ` (${this.#engine.peerReason})`;
    if (this.#phase === 'waiting') {
      const orders = `\`holdfast second -m ${this.name}\` there, or \`holdfast prim -m ${this.name} --alone\` here`;
      return [`waits for ${peer}${reason}: run ${orders}`];
    }
    if (this.#phase !== 'serving' || this.#engine.ready) return [];
    if (this.#engine.failed) {
      return [`this copy has failed: its journal or its directory could not be written`];
    }
    if (!this.#engine.connected) return ['the replication engine is being started again'];
    if (this.#engine.peerConnected) return [`this copy is being brought up to date by ${peer}`];
    const what = this.#role === 'prim' ? 'synced writes wait' : 'this copy may be old';
    return [`${peer} is not connected${reason}: ${what}`];
  }

  status(): ModuleStatus {
    const { mode, maxloop } = this.#config.service;
    return {
      name: this.name,
      mode,
      ...this.#shown(),
      why: this.why(),
      loopCount: 0,
      maxloop,
      signature: this.#config.signature,
      resources: {},
      farm: null,
      replica: this.stopped ? null : this.#engine.status(),
      pair: null,
    };
  }

  abandon(): void {
    this.#abandoned = true;
    this.#engine.abandon();
    this.#changed();
  }

  #onStatus(): void {
    this.#engine.checkAlerts(this.#phase === 'serving');
    if (this.#phase === 'waiting') this.#drive();
    this.#changed();
  }

  /** The application has lost its files: there is nothing to wait for. */
  #onGone(): void {
    this.#blame('the replication engine is gone, and its directories with it');
    this.#setGoal('force');
  }

  async #up(role: MirrorRole, order: OpenOrder | null, heard: Heard): Promise<void> {
    // Another order may have come first while the peer was asked.
    if (!this.stopped) throw this.#impossible(role);
    this.#role = role;
    this.#way = { order, heard };
    this.#why = [];
    this.#action = 'start';
    this.#goal = 'up';
    this.#enter('prestart', role);
    this.#drive();
    const byMs = this.#ports.nowMs() + answerMs;
    await this.#until(
      () => this.#resting() || (this.#phase === 'starting' && this.#ports.nowMs() > byMs),
      byMs,
    );
    if (this.stopped) {
      const [reason = 'it was stopped'] = this.#why;
      throw new HoldfastError('HF-MIRROR-015', { module: this.name, role, reason });
    }
  }

  #resting(): boolean {
    return !this.#driving && ['stopped', 'waiting', 'serving'].includes(this.#phase);
  }

  #setGoal(goal: Goal): void {
    // A forced stop is not taken back by a gentler one.
    if (!(this.#goal === 'force' && goal === 'stop' && !this.stopped)) this.#goal = goal;
    this.#action = goal === 'restart' ? 'restart' : 'stop';
    // An agent that takes over goes on with what was ordered.
    if (!this.stopped) this.#save();
    this.#drive();
  }

  #drive(): void {
    if (this.#abandoned) return;
    if (this.#driving) {
      // What was looked at last may be what has changed.
      this.#driveAgain = true;
      return;
    }
    this.#driving = true;
    void this.#run().finally(() => {
      this.#driving = false;
      if (this.#driveAgain) {
        this.#driveAgain = false;
        this.#drive();
      } else this.#changed();
    });
  }

  async #run(): Promise<void> {
    for (;;) {
      const next = await this.#step();
      if (next === null || this.#abandoned) return;
      this.#enter(next, this.#why[0] ?? this.#goal);
    }
  }

  /** Does what the phase is for; the next phase, or null where it rests. */
  async #step(): Promise<MirrorPhase | null> {
    const isDown = this.#goal === 'stop' || this.#goal === 'force';
    switch (this.#phase) {
      case 'stopped':
        return null;
      case 'prestart':
        return (await this.#runScript('prestart', false)) && this.#goal === 'up'
          ? 'opening'
          : 'poststop';
      case 'opening':
        return (await this.#open())
          ? this.#role === 'prim'
            ? 'waiting'
            : 'starting'
          : 'unmounting';
      case 'waiting':
        if (isDown) return 'unmounting';
        return this.#engine.ready ? 'starting' : null;
      case 'starting': {
        const ok = isDown || (await this.#runScript(`start_${this.#role}`, false));
        if (!ok && this.#goal === 'up') this.#setGoal('stop');
        return this.#goal === 'up' ? 'serving' : this.#goal === 'force' ? 'forcing' : 'stopping';
      }
      case 'serving':
        if (this.#goal === 'up') return null;
        return this.#goal === 'force' ? 'forcing' : 'stopping';
      case 'stopping':
        await this.#runScript(`stop_${this.#role}`, false);
        return 'forcing';
      case 'forcing':
        await this.#runScript(`stop_${this.#role}`, true);
        if (this.#goal !== 'restart') return 'unmounting';
        this.#goal = 'up';
        return 'starting';
      case 'unmounting':
        await this.#close();
        return 'poststop';
      case 'poststop':
        await this.#runScript('poststop', false);
        this.#goal = 'stop';
        return 'stopped';
    }
  }

  #enter(phase: MirrorPhase, why: string): void {
    const from = this.#phase;
    this.#phase = phase;
    const { state, readiness } = this.#shown();
    this.#say('transition', `${from} -> ${phase}: ${state} (${readiness}), ${why}`, {
      from,
      phase,
    });
    this.#save();
    this.#changed();
  }

  #save(): void {
    const id = `module.${this.name}.runtime`;
    try {
      if (this.stopped) this.#runtime.remove();
      else this.#runtime.write({ phase: this.#phase, role: this.#role, goal: this.#goal });
      this.#ports.alert(id, false, 'warning', '');
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const text = `state of module ${this.name} cannot be kept in /run: ${reason}`;
      this.#ports.alert(id, true, 'warning', text);
    }
  }

  #shown(): { readonly state: ModuleState; readonly readiness: Readiness } {
    const own = this.#role === 'second' ? 'SECOND' : this.#engine.alone ? 'ALONE' : 'PRIM';
    switch (this.#phase) {
      case 'stopped':
        return { state: 'STOP', readiness: 'NotReady' };
      case 'prestart':
      case 'opening':
        return { state: 'WAIT', readiness: 'Transient' };
      case 'poststop':
        return { state: 'STOP', readiness: 'Transient' };
      case 'serving':
        if (this.#engine.failed) return { state: own, readiness: 'NotReady' };
        return { state: own, readiness: this.#engine.ready ? 'Ready' : 'Transient' };
      default:
        return { state: own, readiness: 'Transient' };
    }
  }

  async #open(): Promise<boolean> {
    try {
      await this.#engine.open(this.#role, this.#way);
      return true;
    } catch (error) {
      this.#blame(error instanceof Error ? error.message : String(error));
      return false;
    }
  }

  async #close(): Promise<void> {
    const reason = await this.#engine.close();
    if (reason !== null) this.#blame(`the directories were not closed in order: ${reason}`);
  }

  async #runScript(script: ScriptName, force: boolean): Promise<boolean> {
    const abort = new AbortController();
    this.#script = abort;
    const own: ScriptState =
      this.#role === 'second' ? 'SECOND' : this.#engine.alone ? 'ALONE' : 'PRIM';
    const before = { prestart: 'STOP', poststop: 'WAIT' } as const;
    const current = script.startsWith('start_')
      ? 'WAIT'
      : (before[script as keyof typeof before] ?? own);
    const { user } = this.#config;
    const result = await runScript({
      paths: this.#ports.paths,
      module: { name: this.name, node: this.#ports.node, vars: user?.vars ?? {} },
      script,
      current,
      next: this.#action === 'stop' || script === 'poststop' ? 'STOP' : own,
      action: this.#action,
      force,
      timeoutMs: this.#scriptTimeoutMs(force),
      log: { logging: user?.logging ?? 'userlog', userlogKib: user?.userlogKib ?? 2048 },
      signal: abort.signal,
    });
    this.#script = null;
    const ok = succeeded(result);
    const why = ok ? '' : failure(result);
    if (!ok) this.#blame(`${script} failed: ${why}`);
    if (!result.missing) {
      this.#say(
        'script',
        `${script}${force ? ' force' : ''} ${ok ? 'done' : `failed: ${why}`} after ${result.durationMs} ms`,
        { script, force, exit: result.exit, log: result.log },
      );
    }
    return ok;
  }

  #impossible(verb: string): HoldfastError {
    const { state, readiness } = this.#shown();
    const values = { module: this.name, state: `${state} (${readiness})`, verb };
    return new HoldfastError('HF-MIRROR-006', values);
  }

  #scriptTimeoutMs(force: boolean): number {
    const { user } = this.#config;
    return (force ? user?.forceStopTimeoutMs : user?.stopTimeoutMs) ?? 300_000;
  }

  #blame(text: string): void {
    this.#why = [text, ...this.#why].slice(0, whyMax);
  }

  #say(
    kind: Parameters<MirrorPorts['record']>[0],
    text: string,
    data: Readonly<Record<string, unknown>>,
  ) {
    this.#ports.record(kind, text, data);
  }

  #changed(): void {
    for (const waiter of [...this.#waiters]) waiter();
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
      if (atMs < Infinity) timer = setTimeout(look, atMs - this.#ports.nowMs() + 1);
      this.#waiters.add(look);
      look();
    });
  }
}
