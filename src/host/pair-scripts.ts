/** The scripts of a mirror that decides for itself: one at a time, and `transition` beside them. */
import type { ModuleConfig } from '../config/model.ts';
import type { MirrorEffect, MirrorEvent, ShownState } from '../core/mirror.ts';
import { failure, runScript, settleScript, succeeded } from '../module/scripts.ts';
import type { MirrorPorts } from './mirror-ports.ts';

type Run = Extract<MirrorEffect, { kind: 'run' }>;
export type ScriptNews = Omit<Extract<MirrorEvent, { kind: 'scriptDone' }>, 'nowMs'>;

const timeoutMs = 300_000;

export class PairScripts {
  readonly #config: () => ModuleConfig;
  readonly #ports: MirrorPorts;
  readonly #news: (event: ScriptNews) => void;
  #running: AbortController | null = null;
  /** What was begun before has ended. */
  #end: Promise<void> = Promise.resolve();
  #transitions: Promise<void> = Promise.resolve();

  constructor(config: () => ModuleConfig, ports: MirrorPorts, news: (event: ScriptNews) => void) {
    this.#config = config;
    this.#ports = ports;
    this.#news = news;
  }

  /** A script of the former agent may still run; the next one must not run beside it. */
  settle(): void {
    const { name } = this.#config();
    this.#end = settleScript(this.#ports.paths, name, this.#timeoutMs(false)).then((settled) => {
      if (settled === null) return;
      const { script, ended } = settled;
      this.#ports.record('script', `${script} of the former agent ended`, { ended });
    });
  }

  run(effect: Run): void {
    const abort = new AbortController();
    this.#running = abort;
    this.#end = this.#end.then(async () => {
      const { current, next, action, script, force } = effect;
      const result = await this.#execute({ script, current, next, action, force }, abort.signal);
      this.#news({ kind: 'scriptDone', ...result });
    });
  }

  /** The one that runs is cut short; it still says how it ended. */
  cancel(): void {
    this.#running?.abort();
  }

  /** `transition`, in the order of the changes. */
  transition(from: ShownState, to: ShownState): void {
    this.#transitions = this.#transitions.then(async () => {
      const run = { script: 'transition', current: from, next: to, action: 'start' } as const;
      await this.#execute({ ...run, force: false, beside: true });
    });
  }

  async #execute(
    run: Pick<
      Parameters<typeof runScript>[0],
      'script' | 'current' | 'next' | 'action' | 'force' | 'beside'
    >,
    signal: AbortSignal | null = null,
  ): Promise<{ readonly ok: boolean; readonly why: string }> {
    const { name, user } = this.#config();
    const { script, force } = run;
    const result = await runScript({
      ...run,
      paths: this.#ports.paths,
      module: { name, node: this.#ports.node, vars: user?.vars ?? {} },
      timeoutMs: this.#timeoutMs(force),
      log: { logging: user?.logging ?? 'userlog', userlogKib: user?.userlogKib ?? 2048 },
      ...(signal === null ? {} : { signal }),
    });
    const ok = succeeded(result);
    const why = ok ? '' : failure(result);
    if (!result.missing) {
      const outcome = ok ? 'done' : `failed: ${why}`;
      const text = `${script}${force ? ' force' : ''} ${outcome} after ${result.durationMs} ms`;
      this.#ports.record('script', text, { script, force, exit: result.exit, log: result.log });
    }
    return { ok, why };
  }

  #timeoutMs(force: boolean): number {
    const { user } = this.#config();
    return (force ? user?.forceStopTimeoutMs : user?.stopTimeoutMs) ?? timeoutMs;
  }
}
