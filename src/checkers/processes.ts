/** `<errd>`: are the processes of the application there? Read from /proc; services from systemd. */
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { posixRegex } from '../config/posix.ts';
import { errnoOf } from '../module/durable.ts';
import type { Timers } from './poll.ts';

export interface Process {
  /** Name of the program, at most 15 bytes (comm of /proc). */
  readonly name: string;
  /** Arguments, by blanks. */
  readonly command: string;
}

export interface ProcessQuery {
  readonly name: string;
  readonly service: boolean;
  readonly nameRegex: string | null;
  readonly argRegex: string | null;
  readonly atLeast: number;
  /** -1: no limit. */
  readonly atMost: number;
}

/** Processes whose files are read at one time. */
const atOnce = 64;
/** A list that is younger than this is asked again: the checks of a module look at one time. */
const freshMs = 500;
const nameMax = 15;

/** Null when as many are there as asked for, else why not. */
export async function probeProcesses(
  query: ProcessQuery,
  table: ProcessTable,
  signal: AbortSignal,
): Promise<string | null> {
  if (query.service) return probeService(query.name, signal);
  const name = query.nameRegex === null ? null : posixRegex(query.nameRegex);
  const args = query.argRegex === null ? null : posixRegex(query.argRegex);
  const found = (await table.list()).filter(
    (one) =>
      (name === null ? one.name === query.name.slice(0, nameMax) : name.test(one.name)) &&
      (args === null || args.test(one.command)),
  ).length;
  if (found < query.atLeast) return `${found} of at least ${query.atLeast} processes`;
  if (query.atMost >= 0 && found > query.atMost) {
    return `${found} processes, more than ${query.atMost}`;
  }
  return null;
}

function probeService(name: string, signal: AbortSignal): Promise<string | null> {
  return new Promise((resolve) => {
    execFile('systemctl', ['is-active', '--', name], { signal }, (error, stdout) => {
      const said = stdout.trim();
      if (error === null) resolve(null);
      else resolve(said === '' ? `systemctl: ${errnoOf(error)}` : `the service is ${said}`);
    });
  });
}

/** The processes of this server; zombies are none. */
export class ProcessTable {
  readonly #folder: string;
  readonly #timers: Pick<Timers, 'nowMs'>;
  #atMs = -Infinity;
  #list: Promise<readonly Process[]> = Promise.resolve([]);

  constructor(timers: Pick<Timers, 'nowMs'>, folder = '/proc') {
    this.#timers = timers;
    this.#folder = folder;
  }

  list(): Promise<readonly Process[]> {
    if (this.#timers.nowMs() - this.#atMs >= freshMs) {
      this.#atMs = this.#timers.nowMs();
      this.#list = this.#read();
    }
    return this.#list;
  }

  async #read(): Promise<readonly Process[]> {
    const ids = (await readdir(this.#folder)).filter((name) => /^\d+$/.test(name));
    const all: Process[] = [];
    for (let first = 0; first < ids.length; first += atOnce) {
      const some = ids.slice(first, first + atOnce).map((id) => this.#one(id));
      for (const one of await Promise.all(some)) if (one !== null) all.push(one);
    }
    return all;
  }

  /** Null: it is gone, or has ended and nobody has waited for it. */
  async #one(id: string): Promise<Process | null> {
    try {
      const stat = await readFile(`${this.#folder}/${id}/stat`, 'utf8');
      // proc(5): "pid (comm) state …"; comm may hold any character.
      const [open, close] = [stat.indexOf('('), stat.lastIndexOf(')')];
      const state = stat[close + 2];
      if (open < 0 || close < open || state === 'Z' || state === 'X') return null;
      const command = await readFile(`${this.#folder}/${id}/cmdline`, 'utf8');
      const args = command.replace(/\0+$/, '').replaceAll('\0', ' ');
      return { name: stat.slice(open + 1, close), command: args };
    } catch {
      return null;
    }
  }
}
