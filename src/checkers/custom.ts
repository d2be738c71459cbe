import { join } from 'node:path';
import { mkdir } from 'node:fs/promises';
import { type ScriptModule, type ScriptState, scriptEnvironment } from '../module/environment.ts';
import { moduleDirs } from '../module/name.ts';
import {
  endGroup,
  forgetProcess,
  notedProcess,
  noteProcess,
  spawnGroup,
} from '../module/process.ts';
import { openUserlog } from '../module/userlog.ts';
import type { Paths } from '../paths.ts';
import type { Timers } from './poll.ts';

export interface CustomOptions {
  readonly paths: Paths;
  readonly module: ScriptModule;
  readonly ident: string;
  /** File below bin/, and its arguments, separated by blanks. */
  readonly exec: string;
  readonly arg: string;
  readonly timers: Timers;
  readonly state: () => ScriptState;
  /** It does not stay up: its resource cannot be trusted. */
  onBroken(reason: string): void;
}

export interface Custom {
  /** Its resource was set, so it works. */
  heard(): void;
  stop(): Promise<void>;
}

const firstPauseMs = 1000;
const longestPauseMs = 30_000;
const graceMs = 2000;
/** Ends in a row, without a word of its resource, after which it counts as broken. */
const endsUntilBroken = 3;

/**
 * Runs a module's own checker: a program that looks for itself and sets its resource by `holdfast set`.
 * It is started again when it ends, after a pause that grows to 30 s. One that a former agent left
 * behind is ended first, so that there are never two.
 */
export function startCustom(options: CustomOptions): Custom {
  const { paths, module, ident, timers } = options;
  const dirs = moduleDirs(paths, module.name);
  const note = dirs.checker(ident);
  let stopped = false;
  let ends = 0;
  let pauseMs = firstPauseMs;
  let pid: number | null = null;
  let cancel = (): void => undefined;

  const again = (why: string): void => {
    pid = null;
    forgetProcess(note);
    if (stopped) return;
    ends++;
    if (ends >= endsUntilBroken) options.onBroken(`bin/${options.exec} does not stay up: ${why}`);
    cancel = timers.after(pauseMs, () => void run());
    pauseMs = Math.min(pauseMs * 2, longestPauseMs);
  };

  const run = async (): Promise<void> => {
    const left = notedProcess(note);
    if (left !== null) await endGroup(left.pid, graceMs).catch(() => false);
    await mkdir(dirs.userVar, { recursive: true, mode: 0o755 }).catch(() => undefined);
    const log = await openUserlog(dirs.log, `custom.${ident.replaceAll('/', '_')}`, new Date());
    if (stopped) return log?.close();
    const child = spawnGroup(join(dirs.bin, options.exec), {
      args: options.arg.split(/\s+/).filter((part) => part !== ''),
      cwd: dirs.bin,
      env: scriptEnvironment(paths, module, options.state()),
      output: log?.fd ?? null,
    });
    log?.close();
    void child.ended.then((end) => again(end.error ?? end.signal ?? `exit ${end.exit}`));
    pid = child.pid;
    if (pid === null) return;
    noteProcess(note, ident, pid);
  };

  const beginning = run();
  return {
    heard() {
      ends = 0;
      pauseMs = firstPauseMs;
    },
    async stop() {
      stopped = true;
      cancel();
      await beginning;
      if (pid !== null) await endGroup(pid, graceMs).catch(() => false);
      forgetProcess(note);
    },
  };
}
