import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/*
 * Programs that a module brings run as leaders of their own session, so that a signal to the group
 * reaches what they started, a signal to the agent does not reach them, and they outlive it.
 */

/** How often an ending group is looked at; the kernel offers no event for "group is empty". */
const pollMs = 20;

export interface GroupOptions {
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Open file for stdout and stderr, null for none; 'pipe' hands both to the caller. */
  readonly output: number | 'pipe' | null;
}

/** Starts a program as leader of its own session and process group. Errors come as its event. */
export function spawnGroup(file: string, options: GroupOptions): ChildProcess {
  const output = options.output ?? 'ignore';
  return spawn(file, options.args, {
    cwd: options.cwd,
    env: { ...options.env },
    detached: true,
    stdio: ['ignore', output, output],
  });
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
 * Ends a process group: TERM, and KILL for what is left after graceMs. Resolves when the group is
 * empty, or 2 s after KILL when a member sits in an uninterruptible sleep; true when it is empty.
 */
export async function endGroup(pgid: number, graceMs: number): Promise<boolean> {
  for (const [signal, boundMs] of [
    ['SIGTERM', graceMs],
    ['SIGKILL', 2000],
  ] as const) {
    if (!signalGroup(pgid, signal)) return true;
    // A stopped process takes TERM only after CONT.
    signalGroup(pgid, 'SIGCONT');
    const until = performance.now() + boundMs;
    while (performance.now() < until) {
      await delay(pollMs);
      if (!signalGroup(pgid, 0)) return true;
    }
  }
  return false;
}

/**
 * When a process started, in clock ticks since boot: with the pid it names a process for all time
 * (field 22 of /proc/PID/stat, proc(5)). Null when it is gone or a zombie.
 */
export function startTicks(pid: number): string | null {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return null;
  }
  // The command name may hold spaces and parentheses; the last ")" ends it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? null);
}
