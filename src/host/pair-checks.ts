/**
 * The checkers of a mirror that decides for itself: `<check>`, `<errd>` and the rules of `<failover>`. They run
 * as the state of the module says; what they find becomes orders, holds and vetoes of core/mirror.
 */
import {
  type Checker,
  type CheckerDeps,
  checkResource,
  type CheckReport,
  procResource,
  startChecker,
  startProc,
} from '../checkers/checker.ts';
import { probeScript } from '../checkers/probes.ts';
import type { CheckWhen, ModuleConfig, ProcConfig } from '../config/model.ts';
import { swapObstacle } from '../core/mirror-lead.ts';
import { type MirrorState, shownOf } from '../core/mirror.ts';
import type { ResourceState } from '../core/rules.ts';
import { lookedAt, RuleTimes, rulesOf, type WatchRule } from './pair-rules.ts';

export type CheckOrder = 'stop' | 'stopstart' | 'restart' | 'swap';

/** What the checkers of a module need of their node. */
export type CheckPorts = Omit<CheckerDeps, 'report' | 'state' | 'module'>;

export interface CheckActs {
  readonly node: string;
  readonly order: (verb: CheckOrder, by: string) => void;
  readonly hold: (why: string | null) => void;
  readonly veto: (why: string | null) => void;
  readonly record: (text: string, data: Readonly<Record<string, unknown>>) => void;
}

type When = CheckWhen | ProcConfig['when'];

/** A script that is asked what to do answers within this. */
const scriptTimeoutMs = 60_000;

/** One checker, which runs or not; its state is `init` where it does not. */
class Watched {
  readonly resource: string;
  readonly when: When;
  state: Exclude<ResourceState, 'unknown'> = 'init';
  reason = '';
  readonly #start: (report: CheckerDeps['report']) => Checker;
  readonly #report: (one: Watched, report: CheckReport) => void;
  #wanted = false;
  #checker: Checker | null = null;
  /** Starts and ends, one after the other: a checker of one's own must never run twice. */
  #turn: Promise<void>;

  /** `before`: what must have ended first. */
  constructor(
    what: { readonly resource: string; readonly when: When },
    start: (report: CheckerDeps['report']) => Checker,
    report: (one: Watched, report: CheckReport) => void,
    before: Promise<void>,
  ) {
    this.resource = what.resource;
    this.when = what.when;
    this.#start = start;
    this.#report = report;
    this.#turn = before;
  }

  /** Resolves when what was wanted so far has begun or ended. */
  get settled(): Promise<void> {
    return this.#turn;
  }

  get wanted(): boolean {
    return this.#wanted;
  }

  want(on: boolean): void {
    if (on === this.#wanted) return;
    this.#wanted = on;
    this.state = 'init';
    this.reason = '';
    if (!on) {
      const ended = this.#checker?.stop();
      this.#checker = null;
      this.#turn = this.#turn.then(() => ended).catch(() => undefined);
      return;
    }
    this.#turn = this.#turn.then(() => {
      if (!this.#wanted || this.#checker !== null) return;
      const checker = this.#start((report) => {
        if (this.#checker === checker) this.#report(this, report);
      });
      this.#checker = checker;
    });
  }

  set(state: CheckReport['state'], reason: string): boolean {
    return this.#checker?.set(state, reason) ?? false;
  }
}

export class PairChecks {
  readonly #ports: CheckPorts;
  readonly #acts: CheckActs;
  #config: ModuleConfig;
  #rules: readonly WatchRule[] = [];
  #watched: readonly Watched[] = [];
  readonly #times = new RuleTimes();
  /** Rules that were acted by since the application was started last. */
  readonly #fired = new Set<WatchRule>();
  #asking: AbortController | null = null;
  #state: MirrorState | null = null;
  #timer: NodeJS.Timeout | null = null;
  #why: readonly string[] = [];
  #judging = false;
  #ended = false;

  constructor(config: ModuleConfig, ports: CheckPorts, acts: CheckActs) {
    this.#ports = ports;
    this.#acts = acts;
    this.#config = config;
    this.#make();
  }

  /** The module is where this state says: checkers begin and end by it. */
  follow(state: MirrorState): void {
    if (this.#ended) return;
    this.#state = state;
    for (const one of this.#watched) one.want(isOn(one.when, state));
    this.#judge();
  }

  /** Another configuration: all begin anew where something of it concerns them. */
  reconfigure(config: ModuleConfig): void {
    const concerns = ({ checks, errd, failover, user }: ModuleConfig): string =>
      JSON.stringify([checks, errd, failover, user?.vars]);
    const isSame = concerns(config) === concerns(this.#config);
    this.#config = config;
    if (isSame) return;
    for (const one of this.#watched) one.want(false);
    this.#make();
    if (this.#state !== null) this.follow(this.#state);
  }

  /** `holdfast set`: false where no checker of one's own has that resource, or it does not run. */
  set(resource: string, state: CheckReport['state'], reason: string): boolean {
    return this.#watched.find((one) => one.resource === resource)?.set(state, reason) ?? false;
  }

  resources(): Readonly<Record<string, ResourceState>> {
    return Object.fromEntries(this.#watched.map(({ resource, state }) => [resource, state]));
  }

  why(): readonly string[] {
    const down = this.#watched.filter(({ state }) => state === 'down');
    return [...this.#why, ...down.map((one) => `${one.resource} is down: ${one.reason}`)];
  }

  /** Ends them all; checkers of one's own end with the agent, and the next one starts them again. */
  abandon(): void {
    this.#ended = true;
    this.#asking?.abort();
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const one of this.#watched) one.want(false);
  }

  #make(): void {
    const { checks, errd } = this.#config;
    this.#rules = rulesOf(this.#config);
    this.#times.clear();
    this.#fired.clear();
    const deps = (report: CheckerDeps['report']): CheckerDeps => ({
      ...this.#ports,
      module: this.#module,
      state: () => (this.#state === null ? 'STOP' : shownOf(this.#state).state),
      report,
    });
    const heard = (one: Watched, report: CheckReport): void => this.#heard(one, report);
    // One that has the place of another must not run beside it.
    const before = Promise.all(this.#watched.map((one) => one.settled)).then(() => undefined);
    this.#watched = [
      ...checks.map((check) => {
        const what = { resource: checkResource(check), when: check.when };
        return new Watched(what, (report) => startChecker(check, deps(report)), heard, before);
      }),
      ...(errd?.procs ?? []).map((proc) => {
        const what = { resource: procResource(proc), when: proc.when };
        const pollMs = errd?.pollMs ?? 0;
        return new Watched(what, (report) => startProc(proc, pollMs, deps(report)), heard, before);
      }),
    ];
  }

  get #module(): CheckerDeps['module'] {
    const { name, user } = this.#config;
    return { name, node: this.#acts.node, vars: user?.vars ?? {} };
  }

  #heard(one: Watched, { resource, state, reason }: CheckReport): void {
    const from = one.state;
    one.state = state;
    one.reason = reason;
    const data = { resource, from, state, reason };
    this.#acts.record(`${resource}: ${from} -> ${state}, ${reason}`, data);
    this.#judge();
  }

  /** What an act changes comes back here by `follow`, and is looked at when this look is over. */
  #judge(): void {
    if (this.#judging || this.#ended) return;
    this.#judging = true;
    try {
      for (let seen = null as MirrorState | null; this.#state !== seen; ) {
        seen = this.#state;
        if (seen !== null) this.#look(seen);
      }
    } finally {
      this.#judging = false;
    }
  }

  #look(state: MirrorState): void {
    const nowMs = this.#ports.timers.nowMs();
    const table = new Map(this.#watched.map((one) => [one.resource, one.state]));
    const ripe = this.#times.ripe(this.#rules, table, nowMs);
    this.#arm(this.#times.nextMs(nowMs));
    if (!isRunning(state)) {
      this.#fired.clear();
      this.#asking?.abort();
      this.#asking = null;
    }
    this.#why = [];
    const veto = this.#veto(table);
    if (veto !== state.veto) return this.#acts.veto(veto);
    const hold = this.#hold(state, ripe, table);
    if (hold !== state.hold) return this.#acts.hold(hold);
    if (!isRunning(state) || state.pendingDown !== null) return;
    const next = ripe.find((rule) => rule.action !== 'wait' && !this.#fired.has(rule));
    if (next !== undefined) this.#fire(next, state, ripe);
  }

  /** A server whose witness does not answer, or that does not know yet, claims nothing. */
  #veto(table: ReadonlyMap<string, ResourceState>): string | null {
    const waits = lookedAt(this.#rules, 'wait', table.keys());
    for (const { resource, when, wanted, state, reason } of this.#watched) {
      if (!wanted) continue;
      const isWitness = resource.startsWith('splitbrain.');
      if (isWitness && state === 'down') return `${resource} is down: ${reason}`;
      const isNeeded = isWitness || (when === 'pre' && waits.has(resource));
      if (isNeeded && state === 'init') return `${resource} has not said anything yet`;
    }
    return null;
  }

  /** One that an agent before this one set stays until its checkers have spoken here. */
  #hold(
    state: MirrorState,
    ripe: readonly WatchRule[],
    table: ReadonlyMap<string, ResourceState>,
  ): string | null {
    if (state.phase === 'stopped') return null;
    const rule = ripe.find(({ action }) => action === 'wait');
    if (rule !== undefined) return this.#cause(rule);
    if (state.hold === null) return null;
    const waits = lookedAt(this.#rules, 'wait', table.keys());
    const isOpen = this.#watched.some(
      (one) => one.wanted && one.state === 'init' && waits.has(one.resource),
    );
    return isOpen ? state.hold : null;
  }

  /** The rule by its name, and what is down of what it looks at. */
  #cause(rule: WatchRule): string {
    const names = lookedAt([{ ...rule, action: 'wait' }], 'wait', this.#names());
    const down = this.#watched.filter((one) => one.state === 'down' && names.has(one.resource));
    const reasons = down.map((one) => `${one.resource} is down, ${one.reason}`);
    return [rule.label, ...reasons].join(': ');
  }

  #names(): readonly string[] {
    return this.#watched.map(({ resource }) => resource);
  }

  #fire(rule: WatchRule, state: MirrorState, ripe: readonly WatchRule[]): void {
    const { action } = rule;
    if (typeof action === 'object') {
      this.#fired.add(rule);
      return void this.#askScript(rule, action.script);
    }
    if (action === 'wait') return;
    const obstacle = action === 'swap' ? swapObstacle(state) : null;
    if (obstacle === null) {
      this.#fired.add(rule);
      return this.#acts.order(action, this.#cause(rule));
    }
    // Looked at again with each change of either server; a secondary has nothing to hand over.
    if (state.phase !== 'second') this.#why = [`${rule.label} would swap, but ${obstacle}`];
    const other = ripe.find((one) => one.action !== 'swap' && !this.#fired.has(one));
    if (other !== undefined && other.action !== 'wait') this.#fire(other, state, ripe);
  }

  async #askScript(rule: WatchRule, file: string): Promise<void> {
    const asking = new AbortController();
    this.#asking = asking;
    const cancel = this.#ports.timers.after(scriptTimeoutMs, () => asking.abort());
    const { paths } = this.#ports;
    const state = this.#state === null ? 'STOP' : shownOf(this.#state).state;
    const target = { paths, module: this.#module, file, state };
    const why = await probeScript(target, asking.signal).catch(String);
    cancel();
    const isStale = this.#asking !== asking || this.#ended;
    this.#acts.record(`${rule.label}: bin/${file} ${why === null ? 'done' : `failed: ${why}`}`, {});
    if (isStale) return;
    this.#asking = null;
    if (why !== null) return this.#acts.order('stopstart', `${this.#cause(rule)}: ${why}`);
    // It says that it is mended; where the next look finds that it is not, it is asked again.
    this.#ports.timers.after(2 * (this.#config.errd?.pollMs ?? 0), () => {
      this.#fired.delete(rule);
      this.#judge();
    });
  }

  #arm(ms: number | null): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = ms === null ? null : setTimeout(() => this.#judge(), ms + 1);
  }
}

/** The application runs, and nothing is under way that would end that. */
function isRunning({ phase }: MirrorState): boolean {
  return phase === 'prim' || phase === 'primGate' || phase === 'second';
}

function isOn(when: When, state: MirrorState): boolean {
  const { phase } = state;
  const isPrim = phase === 'prim' || phase === 'primGate';
  const isSecond = phase === 'second';
  switch (when) {
    case 'pre':
      return phase !== 'stopped' && phase !== 'poststop';
    case 'prim':
      return isPrim;
    case 'second':
      return isSecond;
    case 'both':
      return isPrim || isSecond;
    case 'sec':
      return isSecond || (isPrim && shownOf(state).state === 'ALONE');
    case 'custom':
      return false;
  }
}
