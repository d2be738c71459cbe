import { access, constants, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { UserConfig } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { Paths } from '../paths.ts';
import { type ScriptModule, type ScriptState, scriptEnvironment } from './environment.ts';
import { type ModuleDirs, moduleDirs } from './name.ts';
import {
  endGroup,
  forgetProcess,
  groupLives,
  notedProcess,
  noteProcess,
  type ProcessNote,
  spawnGroup,
  startTicks,
} from './process.ts';
import { boundFile, openUserlog, type Userlog } from './userlog.ts';

export type ScriptName =
  | 'prestart'
  | 'poststop'
  | 'start_both'
  | 'stop_both'
  | 'start_prim'
  | 'stop_prim'
  | 'start_second'
  | 'stop_second'
  | 'start_sec'
  | 'stop_sec'
  | 'transition';

export type ScriptAction =
  | 'start'
  | 'stop'
  | 'stopstart'
  | 'stopwait'
  | 'restart'
  | 'swap'
  | 'failover';

export interface ScriptRun {
  readonly paths: Paths;
  readonly module: ScriptModule;
  readonly script: ScriptName;
  /** First arguments of the script, as SafeKit gives them. */
  readonly current: ScriptState;
  readonly next: ScriptState;
  readonly action: ScriptAction;
  /** The second run of a stop script: `force` comes first, before the states. */
  readonly force: boolean;
  /** The whole group is ended when the script is not done by then. */
  readonly timeoutMs: number;
  readonly log: Pick<UserConfig, 'logging' | 'userlogKib'>;
  readonly signal?: AbortSignal;
  /** True: it runs beside another one, and no agent that follows waits for it (`transition`). */
  readonly beside?: boolean;
  /** Between TERM and KILL; 5 s where absent. */
  readonly graceMs?: number;
}

export interface ScriptResult {
  /** Exit status; 0 when the module has no such script; null when a signal ended it. */
  readonly exit: number | null;
  /** Signal that ended it, else null. */
  readonly signal: NodeJS.Signals | null;
  /** The module has no such script, which is no failure: all scripts are optional. */
  readonly missing: boolean;
  readonly timedOut: boolean;
  readonly cancelled: boolean;
  /** Why it could not run at all (no executable bit, no interpreter), else null. */
  readonly refused: HoldfastError | null;
  readonly durationMs: number;
  /** Its user log, else null. */
  readonly log: string | null;
}

/** Time between TERM and KILL of a script that overran or was cancelled. */
const defaultGraceMs = 5000;
/** How often the log of a running script is held to its bound. */
const boundEveryMs = 1000;

/** True when the script did what it was asked to: exit 0, or no such script. */
export function succeeded(result: ScriptResult): boolean {
  return result.exit === 0 && !result.timedOut && !result.cancelled && result.refused === null;
}

/** Why a script failed, a sentence part. */
export function failure(result: ScriptResult): string {
  if (result.refused !== null) return result.refused.message;
  if (result.timedOut) return 'it overran its time limit and was ended';
  if (result.cancelled) return 'it was cut short';
  return result.exit === null ? `signal ${result.signal ?? '?'}` : `exit status ${result.exit}`;
}

/**
 * Runs one script of a module and waits for its end. Never rejects for what the script does: see
 * ScriptResult. It runs in a session of its own and writes straight to its user log; daemons that it
 * leaves behind live on, whether they left its process group or not, unless it overran or was
 * cancelled: then its group is ended, and only what left the group stays.
 *
 * The caller runs one script of a module at a time, and after a restart of the agent waits with
 * `settleScript` for one that the former agent began.
 */
export async function runScript(run: ScriptRun): Promise<ScriptResult> {
  const begun = performance.now();
  const dirs = moduleDirs(run.paths, run.module.name);
  const file = join(dirs.bin, run.script);
  const base = { signal: null, missing: false, timedOut: false, cancelled: false, refused: null };
  const ended = (): number => Math.round(performance.now() - begun);
  try {
    await access(file, constants.F_OK);
  } catch {
    return { ...base, exit: 0, missing: true, durationMs: ended(), log: null };
  }
  if (run.signal?.aborted === true) {
    return { ...base, exit: null, cancelled: true, durationMs: ended(), log: null };
  }
  await mkdir(dirs.userVar, { recursive: true, mode: 0o755 }).catch(() => undefined);
  const log =
    run.log.logging === 'none' ? null : await openUserlog(dirs.log, run.script, new Date());
  try {
    const outcome = await execute(run, file, dirs, log);
    return { ...base, ...outcome, durationMs: ended(), log: log?.path ?? null };
  } finally {
    log?.close();
  }
}

type Outcome = Pick<ScriptResult, 'exit'> & Partial<ScriptResult>;

async function execute(
  run: ScriptRun,
  file: string,
  dirs: ModuleDirs,
  log: Userlog | null,
): Promise<Outcome> {
  const args = [run.current, run.next, run.action];
  const { pid, ended } = spawnGroup(file, {
    args: run.force ? ['force', ...args] : args,
    cwd: dirs.bin,
    env: scriptEnvironment(run.paths, run.module, run.current),
    output: log?.fd ?? null,
  });
  if (pid === null) {
    const reason = (await ended).error ?? 'no reason given';
    const values = { script: run.script, module: run.module.name, reason };
    return { exit: null, refused: new HoldfastError('HF-MODULE-030', values) };
  }
  if (run.beside !== true) noteProcess(dirs.running, run.script, pid);

  let cause: 'timedOut' | 'cancelled' | null = null;
  let killing: Promise<unknown> = Promise.resolve();
  const end = (why: 'timedOut' | 'cancelled'): void => {
    if (cause !== null) return;
    cause = why;
    killing = endGroup(pid, run.graceMs ?? defaultGraceMs).catch(() => false);
  };
  const onAbort = (): void => end('cancelled');
  const timer = setTimeout(() => end('timedOut'), run.timeoutMs);
  const maxBytes = run.log.userlogKib * 1024;
  const bound = setInterval(() => log !== null && boundQuietly(log.path, maxBytes), boundEveryMs);
  run.signal?.addEventListener('abort', onAbort, { once: true });
  if (run.signal?.aborted === true) onAbort();
  try {
    const { exit, signal } = await ended;
    clearTimeout(timer);
    await killing;
    return cause === null ? { exit, signal } : { exit, signal, [cause]: true };
  } finally {
    clearTimeout(timer);
    clearInterval(bound);
    run.signal?.removeEventListener('abort', onAbort);
    if (run.beside !== true) forgetProcess(dirs.running);
    if (log !== null) boundQuietly(log.path, maxBytes);
  }
}

/** A log that cannot be bounded now (full disk, removed by the operator) is tried again later. */
function boundQuietly(path: string, maxBytes: number): void {
  try {
    boundFile(path, maxBytes);
  } catch {
    return;
  }
}

/** The script of this module that a former agent began and that is still running, else null. */
export function leftRunning(paths: Paths, name: string): ProcessNote | null {
  return notedProcess(moduleDirs(paths, name).running);
}

/**
 * Waits for a script that a former agent began: its exit status is lost, but what follows must not run
 * beside it. After timeoutMs its group is ended. Returns the script's name, null where none was left.
 */
export async function settleScript(
  paths: Paths,
  name: string,
  timeoutMs: number,
): Promise<{ readonly script: string; readonly ended: boolean } | null> {
  const left = leftRunning(paths, name);
  if (left === null) return null;
  const until = performance.now() + timeoutMs;
  let ended = false;
  while (startTicks(left.pid) === left.ticks) {
    if (performance.now() >= until) {
      ended = groupLives(left.pid);
      await endGroup(left.pid, defaultGraceMs);
      break;
    }
    await delay(50);
  }
  forgetProcess(moduleDirs(paths, name).running);
  return { script: left.what, ended };
}
