import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf } from './durable.ts';

/*
 * Programs that a module brings run as leaders of their own session, so that a signal to the group
 * reaches what they started, a signal to the agent does not reach them, and they outlive it.
 */

/** How often an ending group is looked at; the kernel offers no event for "group is empty". */
const pollMs = 50;

export interface GroupOptions {
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Open file for stdout and stderr, null for none; 'pipe' hands both to the caller. */
  readonly output: number | 'pipe' | null;
}

/** How a program ended: exit status, or the signal that ended it, or why it could not be started. */
export interface GroupEnd {
  readonly exit: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly error: string | null;
}

export interface Group {
  /** Process id, which is the id of the group too; null when it could not be started. */
  readonly pid: number | null;
  /** Resolves when the program (not its whole group) has ended. */
  readonly ended: Promise<GroupEnd>;
  /** stdout and stderr where output is 'pipe', else empty. */
  readonly output: readonly Readable[];
}

/** Starts a program as leader of its own session and process group. Never throws. */
export function spawnGroup(file: string, options: GroupOptions): Group {
  const output = options.output ?? 'ignore';
  let child: ChildProcess;
  try {
    child = spawn(file, options.args, {
      cwd: options.cwd,
      env: { ...options.env },
      detached: true,
      stdio: ['ignore', output, output],
    });
  } catch (error) {
    // Some failures of execve come as an exception (E2BIG, ENOTDIR), others as an event.
    const end = { exit: null, signal: null, error: errnoOf(error) };
    return { pid: null, ended: Promise.resolve(end), output: [] };
  }
  const ended = new Promise<GroupEnd>((resolve) => {
    child.once('error', (error) => resolve({ exit: null, signal: null, error: errnoOf(error) }));
    child.once('exit', (exit, signal) => resolve({ exit, signal, error: null }));
  });
  const streams = [child.stdout, child.stderr].filter((stream) => stream !== null);
  return { pid: child.pid ?? null, ended, output: streams };
}

/** Signals a process group; false when it has no member left (zombies count as members). */
export function signalGroup(pgid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-pgid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/**
 * True while a group has a member that is not a zombie. Where process 1 reaps late or never, as in
 * many containers, the kernel's own answer would stay true for what has long ended.
 */
export function groupLives(pgid: number): boolean {
  if (!signalGroup(pgid, 0)) return false;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = statOf(Number(name));
    if (stat !== null && stat.pgrp === pgid) return true;
  }
  return false;
}

/**
 * Ends a process group: TERM, and KILL for what is left after graceMs. Resolves when nothing of it
 * lives, or 2 s after KILL when a member sits in an uninterruptible sleep; true when nothing lives.
 */
export async function endGroup(pgid: number, graceMs: number): Promise<boolean> {
  for (const [signal, boundMs] of [
    ['SIGTERM', graceMs],
    ['SIGKILL', 2000],
  ] as const) {
    if (!groupLives(pgid) || !signalGroup(pgid, signal)) return true;
    // A stopped process takes TERM only after CONT.
    signalGroup(pgid, 'SIGCONT');
    const until = performance.now() + boundMs;
    while (performance.now() < until) {
      await delay(pollMs);
      if (!groupLives(pgid)) return true;
    }
  }
  return false;
}

/**
 * When a process started, in clock ticks since boot: with the pid it names a process for all time.
 * Null when it is gone or a zombie.
 */
export function startTicks(pid: number): string | null {
  return statOf(pid)?.ticks ?? null;
}

/** Fields 3, 5 and 22 of /proc/PID/stat (proc(5)); null when it is gone or a zombie. */
function statOf(pid: number): { readonly pgrp: number; readonly ticks: string } | null {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return null;
  }
  // The command name may hold spaces and parentheses; the last ")" ends it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, , pgrp] = fields;
  const ticks = fields[19];
  if (state === 'Z' || state === 'X' || ticks === undefined) return null;
  return { pgrp: Number(pgrp), ticks };
}

/** A process that must be found again after the agent's own death. */
export interface ProcessNote {
  readonly what: string;
  readonly pid: number;
  /** See startTicks: tells the process from a later one with the same pid. */
  readonly ticks: string;
}

/** Notes a process in a file below /run. Where that fails, only a restart of the agent is less careful. */
export function noteProcess(path: string, what: string, pid: number): void {
  const ticks = startTicks(pid);
  if (ticks === null) return;
  const note: ProcessNote = { what, pid, ticks };
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeFileSync(path, `${JSON.stringify(note)}\n`, { mode: 0o600 });
  } catch {
    return;
  }
}

export function forgetProcess(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    return;
  }
}

/** The noted process if it still runs, else null. */
export function notedProcess(path: string): ProcessNote | null {
  let note: Partial<ProcessNote> | null;
  try {
    note = JSON.parse(readFileSync(path, 'utf8')) as typeof note;
  } catch {
    return null;
  }
  const { what, pid, ticks } = note ?? {};
  if (typeof what !== 'string' || typeof pid !== 'number' || typeof ticks !== 'string') return null;
  return startTicks(pid) === ticks ? { what, pid, ticks } : null;
}
