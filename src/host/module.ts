/**
 * One installed module on this node: feeds core/module with what happens, performs its effects
 * (scripts, gate, health check, farm), and keeps what the next agent needs to take it over.
 */
import type { ModuleConfig, ReadyConfig } from '../config/model.ts';
import type { Snapshot } from '../core/farm-types.ts';
import {
  initialModule,
  loopCount,
  moduleDeadline,
  shownState,
  stepModule,
  type ModuleEffect,
  type ModuleEvent,
  type ModuleSettings,
  type ModuleState,
  type ModuleVerb,
} from '../core/module.ts';
import { HoldfastError } from '../errors.ts';
import {
  failure,
  runScript,
  settleScript,
  succeeded,
  type ScriptResult,
} from '../module/scripts.ts';
import type { Paths } from '../paths.ts';
import type { EventRecord, ModuleStatus } from './face.ts';
import type { Farm } from './farm.ts';
import type { Hosted } from './hosted.ts';
import { type ModuleRuntime, RuntimeFile } from './runtime.ts';

/** What a module needs of its node. */
export interface ModulePorts {
  readonly paths: Paths;
  readonly node: string;
  readonly nowMs: () => number;
  readonly leaseSlot: number;
  readonly record: (
    kind: EventRecord['kind'],
    text: string,
    data: Readonly<Record<string, unknown>>,
  ) => void;
  /** Opens the device and the farm machine of this configuration; not started yet. */
  readonly openFarm: (config: ModuleConfig, hooks: FarmHooks) => Farm;
  /** Takes the farm's part off its device, and the filter off a device without modules. */
  readonly closeFarm: (farm: Farm) => void;
  /** Tells a starting farm the state of all peers. */
  readonly replayPeers: (farm: Farm) => void;
  /** Watches the application; returns the end of it. */
  readonly watch: (
    ready: ReadyConfig,
    config: ModuleConfig,
    report: (up: boolean, why: string) => void,
  ) => { stop(): void };
  /** The heartbeats say nothing of this module any more. */
  readonly silence: () => void;
  readonly alert: (id: string, on: boolean, message: string) => void;
  /** Something that status shows may have changed. */
  readonly changed: () => void;
}

/** What a farm tells its module. */
export interface FarmHooks {
  readonly persist: (snapshot: Snapshot) => void;
  readonly changed: () => void;
}

/** A start answers after this at the latest, with the application not answering yet. */
const startAnswerMs = 60_000;
/**
 * From the last bucket given up to stopping the application: handshakes that are under way then, and
 * wait for their client's next packet, become connections, which the application can end in order.
 */
const handshakeMs = 500;
/** From shutting the gate to stopping the application at the latest. */
const closeTimeoutMs = 2000;

type Untimed<E> = E extends ModuleEvent ? Omit<E, 'nowMs'> : never;

export class HostedModule implements Hosted {
  readonly name: string;
  readonly pair = null;
  readonly #ports: ModulePorts;
  readonly #runtime: RuntimeFile;
  readonly #queue: ModuleEvent[] = [];
  readonly #waiters = new Set<() => void>();
  #config: ModuleConfig;
  #state: ModuleState;
  /** Found, not taken over yet. */
  #former: ModuleRuntime | null = null;
  #farm: Farm | null = null;
  #snapshot: Snapshot | null = null;
  #watcher: { stop(): void } | null = null;
  #script: AbortController | null = null;
  #scriptEnd: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | null = null;
  /** Did this node own buckets when the gate was last moved? If so, clients may be on their way. */
  #answered = false;
  /** Runs from the last bucket given up to the end of `closing`. */
  #handshakes: NodeJS.Timeout | null = null;
  #busy = false;
  #abandoned = false;

  constructor(config: ModuleConfig, ports: ModulePorts) {
    this.name = config.name;
    this.#config = config;
    this.#ports = ports;
    this.#runtime = new RuntimeFile(ports.paths.run, config.name);
    this.#state = initialModule(settingsOf(config));
  }

  get config(): ModuleConfig {
    return this.#config;
  }

  get farm(): Farm | null {
    return this.#farm;
  }

  get stopped(): boolean {
    return this.#state.phase === 'stopped';
  }

  /**
   * Finds what a former agent of this boot left and looks where it has connections.
   * @returns false when it left nothing; otherwise `adopt` is to follow.
   */
  async findFormer(): Promise<boolean> {
    this.#former = this.#runtime.read();
    if (this.#former === null) return false;
    this.#snapshot = this.#former.farm;
    if (this.#snapshot !== null) {
      this.#farm = this.#newFarm();
      this.#farm.prepare();
      await this.#farm.scanSockets();
    }
    return true;
  }

  /** Takes over what was found, without waiting for anything. */
  adopt(): void {
    if (this.#former === null) return;
    const { phase, after, loops } = this.#former;
    this.#former = null;
    // A script of the former agent may still run; the next one must not run beside it.
    this.#scriptEnd = this.#settleFormerScript();
    this.#dispatch({ kind: 'adopt', phase, after, loops });
  }

  /**
   * Carries a command out: resolves when the module is where it was asked to go, or cannot get there.
   * A start whose application does not answer resolves after a minute; status then says so.
   */
  async command(verb: ModuleVerb): Promise<void> {
    const refused = this.#refusal(verb);
    if (refused !== null) {
      this.#dispatch({ kind: 'command', verb });
      throw refused;
    }
    this.#dispatch({ kind: 'command', verb });
    const up = verb === 'start' || verb === 'restart' || verb === 'stopstart';
    const byMs = this.#ports.nowMs() + startAnswerMs;
    // The phase that the command leaves may look like its end (a restart begins in `serving`), so
    // the first look is after the machine has taken the command in.
    while (!this.#settled(up, byMs)) await this.#nextChange(byMs);
  }

  /**
   * Takes another configuration. While the module runs, only what can change without a stop may
   * differ: HF-AGENT-006 otherwise.
   */
  setConfig(config: ModuleConfig): void {
    if (!this.stopped) {
      const what = stopNeededFor(this.#config, config);
      if (what !== null) throw new HoldfastError('HF-AGENT-006', { module: this.name, what });
    }
    this.#config = config;
    this.#dispatch({ kind: 'settings', settings: settingsOf(config) });
    if (this.#farm !== null) this.#replaceFarm(this.#farm);
    if (this.#watcher !== null) {
      this.#perform({ kind: 'watch', on: false });
      this.#perform({ kind: 'watch', on: true });
    }
  }

  why(): readonly string[] {
    const { phase, health, healthWhy, why } = this.#state;
    const waiting =
      phase === 'opening' && health === false
        ? [`waiting for the application to answer: ${healthWhy}`]
        : phase === 'opening' && health === null
          ? ['waiting for the first answer of the application']
          : [];
    return [...waiting, ...why];
  }

  status(): ModuleStatus {
    const { state, readiness } = shownState(this.#state.phase);
    const { mode, maxloop } = this.#config.service;
    return {
      name: this.name,
      mode,
      state,
      readiness,
      why: this.why(),
      loopCount: loopCount(this.#state, this.#ports.nowMs()),
      maxloop,
      signature: this.#config.signature,
      resources:
        this.#config.ready === null
          ? {}
          : {
              'farm.ready':
                this.#state.health === null ? 'init' : this.#state.health ? 'up' : 'down',
            },
      farm: this.#farm?.status() ?? null,
      replica: null,
      pair: null,
    };
  }

  /** Lets go without touching the application or the kernel: the next agent takes over. */
  abandon(): void {
    this.#abandoned = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#handshakes !== null) clearTimeout(this.#handshakes);
    this.#watcher?.stop();
    this.#farm?.abandon();
  }

  #refusal(verb: ModuleVerb): HoldfastError | null {
    const { phase } = this.#state;
    const isDown =
      phase === 'closing' || phase === 'stopping' || phase === 'forcing' || phase === 'poststop';
    const isUp = phase === 'serving' || phase === 'opening';
    const impossible = (verb === 'start' && isDown) || (verb === 'restart' && !isUp);
    if (!impossible) return null;
    const { state, readiness } = shownState(phase);
    return new HoldfastError('HF-AGENT-005', {
      module: this.name,
      state: `${state} (${readiness})`,
      verb,
    });
  }

  #settled(up: boolean, byMs: number): boolean {
    if (this.#abandoned) return true;
    const { phase, pending } = this.#state;
    if (pending !== null) return false;
    if (!up) return phase === 'stopped';
    const isLate = this.#ports.nowMs() >= byMs;
    return phase === 'serving' || phase === 'stopped' || (phase === 'opening' && isLate);
  }

  #nextChange(byMs: number): Promise<void> {
    return new Promise((resolve) => {
      const waitMs = Math.max(10, byMs - this.#ports.nowMs());
      const done = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, waitMs);
      this.#waiters.add(done);
    });
  }

  #dispatch(event: Untimed<ModuleEvent>): void {
    if (this.#abandoned) return;
    this.#queue.push({ ...event, nowMs: this.#ports.nowMs() } as ModuleEvent);
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const before = this.#state;
        const [state, effects] = stepModule(before, next);
        this.#state = state;
        // Before the effects: an agent that dies in the middle must find where it was going.
        if (state.phase !== before.phase || state.loops !== before.loops) this.#save();
        for (const effect of effects) this.#perform(effect);
      }
    } finally {
      this.#busy = false;
    }
    this.#arm();
    for (const waiter of [...this.#waiters]) waiter();
    this.#ports.changed();
  }

  #perform(effect: ModuleEffect): void {
    switch (effect.kind) {
      case 'run':
        this.#run(effect);
        return;
      case 'cancel':
        this.#script?.abort();
        return;
      case 'farm':
        if (effect.on) this.#joinFarm();
        else this.#leaveFarm();
        return;
      case 'gate':
        this.#answered = (this.#farm?.owned() ?? 0) > 0;
        this.#farm?.dispatch({ kind: 'ready', on: effect.open });
        if (!effect.open) this.#checkClosed();
        return;
      case 'watch':
        this.#watcher?.stop();
        this.#watcher = null;
        if (effect.on && this.#config.ready !== null) {
          this.#watcher = this.#ports.watch(this.#config.ready, this.#config, (up, why) =>
            this.#dispatch({ kind: 'health', up, why }),
          );
        }
        return;
      case 'record':
        this.#ports.record(effect.record, effect.text, effect.data);
        return;
    }
  }

  #joinFarm(): void {
    if (this.#config.service.mode !== 'farm' || this.#farm?.running === true) return;
    const adopt = this.#snapshot;
    this.#farm ??= this.#newFarm();
    // A former agent's open gate stays open: starting it closed would turn clients away for nothing.
    const ready = this.#state.phase === 'serving';
    this.#farm.dispatch({ kind: 'start', ready, adopt, epochMax: adopt?.epochMax ?? 0 });
    this.#ports.replayPeers(this.#farm);
  }

  #newFarm(): Farm {
    return this.#ports.openFarm(this.#config, {
      persist: (snapshot) => {
        this.#snapshot = snapshot;
        this.#save();
      },
      changed: () => {
        this.#checkClosed();
        this.#ports.changed();
      },
    });
  }

  /** Another configuration or another cluster, the same buckets: what an adopting agent does. */
  #replaceFarm(old: Farm): void {
    old.abandon();
    const farm = this.#newFarm();
    this.#farm = farm;
    // Held connections are counted again within a second; until then nothing is given up.
    void farm.scanSockets();
    farm.dispatch({
      kind: 'start',
      ready: this.#state.phase === 'serving',
      adopt: this.#snapshot,
      epochMax: this.#snapshot?.epochMax ?? 0,
    });
    this.#ports.replayPeers(farm);
  }

  #leaveFarm(): void {
    const farm = this.#farm;
    if (farm === null) return;
    farm.dispatch({ kind: 'stop' });
    this.#farm = null;
    this.#snapshot = null;
    this.#ports.silence();
    this.#ports.closeFarm(farm);
  }

  /** Ends `closing` once no bucket is owned and nobody is on the way any more. */
  #checkClosed(): void {
    if (this.#state.phase !== 'closing' || this.#handshakes !== null) return;
    if (this.#farm !== null && this.#farm.owned() > 0) return;
    const done = () => {
      this.#handshakes = null;
      this.#dispatch({ kind: 'closed' });
    };
    if (this.#answered) this.#handshakes = setTimeout(done, handshakeMs);
    else done();
  }

  async #settleFormerScript(): Promise<void> {
    const settled = await settleScript(this.#ports.paths, this.name, this.#scriptTimeoutMs(false));
    if (settled === null) return;
    this.#ports.record('script', `${settled.script} of the former agent ended`, {
      ended: settled.ended,
    });
  }

  #run(effect: Extract<ModuleEffect, { kind: 'run' }>): void {
    const abort = new AbortController();
    this.#script = abort;
    const before = this.#scriptEnd;
    this.#scriptEnd = (async () => {
      await before;
      const result = await runScript({
        paths: this.#ports.paths,
        module: {
          name: this.name,
          node: this.#ports.node,
          vars: this.#config.user?.vars ?? {},
        },
        script: effect.script,
        current: effect.current,
        next: effect.next,
        action: effect.action,
        force: effect.force,
        timeoutMs: this.#scriptTimeoutMs(effect.force),
        log: {
          logging: this.#config.user?.logging ?? 'userlog',
          userlogKib: this.#config.user?.userlogKib ?? 2048,
        },
        signal: abort.signal,
      });
      this.#onScriptEnd(effect, result);
    })();
    void this.#scriptEnd;
  }

  #onScriptEnd(effect: Extract<ModuleEffect, { kind: 'run' }>, result: ScriptResult): void {
    const ok = succeeded(result);
    const why = ok ? '' : failure(result);
    if (!result.missing) {
      this.#ports.record(
        'script',
        `${effect.script}${effect.force ? ' force' : ''} ${ok ? 'done' : `failed: ${why}`} after ${result.durationMs} ms`,
        { script: effect.script, force: effect.force, exit: result.exit, log: result.log },
      );
    }
    this.#dispatch({ kind: 'scriptDone', ok, why });
  }

  #scriptTimeoutMs(force: boolean): number {
    const user = this.#config.user;
    return (force ? user?.forceStopTimeoutMs : user?.stopTimeoutMs) ?? 300_000;
  }

  #save(): void {
    const id = `module.${this.name}.runtime`;
    try {
      if (this.#state.phase === 'stopped') this.#runtime.remove();
      else {
        this.#runtime.write({
          phase: this.#state.phase,
          after: this.#state.after,
          loops: this.#state.loops,
          leaseSlot: this.#ports.leaseSlot,
          farm: this.#snapshot,
        });
      }
      this.#ports.alert(id, false, '');
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#ports.alert(id, true, `state of module ${this.name} cannot be kept in /run: ${reason}`);
    }
  }

  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const at = moduleDeadline(this.#state);
    if (at === null) return;
    this.#timer = setTimeout(
      () => this.#dispatch({ kind: 'tick' }),
      Math.max(0, Math.ceil(at - this.#ports.nowMs())),
    );
  }
}

function settingsOf(config: ModuleConfig): ModuleSettings {
  return {
    maxloop: config.service.maxloop,
    loopIntervalMs: config.service.loopIntervalMs,
    hasHealth: config.ready !== null,
    healthAction: config.ready?.action ?? 'noaction',
    closeTimeoutMs,
  };
}

/** The first thing that differs and cannot change while the module runs, or null. */
function stopNeededFor(now: ModuleConfig, next: ModuleConfig): string | null {
  const differs = (a: unknown, b: unknown): boolean => JSON.stringify(a) !== JSON.stringify(b);
  if (now.service.mode !== next.service.mode) return 'mode';
  if (differs(now.farmLans, next.farmLans)) return 'farm networks';
  if (differs(withoutLines(now.vip?.interfaces), withoutLines(next.vip?.interfaces))) {
    return 'virtual interfaces and addresses';
  }
  const names = (config: ModuleConfig) => config.vip?.groups.map((group) => group.name) ?? [];
  if (differs(names(now), names(next))) return 'load-balancing groups';
  return null;
}

/** A line number that moved is no change. */
function withoutLines(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value ?? null, (key, item: unknown) => (key === 'line' ? undefined : item)),
  );
}
