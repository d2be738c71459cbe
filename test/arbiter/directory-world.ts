import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { markerName } from '../../src/arbiter/directory-store.ts';
import { DirectoryRegister } from '../../src/arbiter/directory.ts';
import type { Register } from '../../src/arbiter/register.ts';
import type { World } from './contract.ts';

export const clusterId = '00112233aabbccdd';

/** A directory with its marker, and clients of it; gone after the test. */
export class DirectoryWorld implements World {
  readonly path = mkdtempSync(join(tmpdir(), 'holdfast-register-'));
  readonly #registers: Register[] = [];

  constructor(t: TestContext) {
    writeFileSync(join(this.path, markerName), '');
    t.after(async () => {
      await Promise.all(this.#registers.map((register) => register.close()));
      rmSync(this.path, { recursive: true });
    });
  }

  open(_node: number, timeLimitMs = 20_000): Register {
    const { path } = this;
    const options = { path, clusterId, timeLimitMs, text: `directory ${path}`, isOwn: false };
    const register = new DirectoryRegister(options);
    this.#registers.push(register);
    return register;
  }

  crash(): Promise<void> {
    this.#signal('SIGKILL');
    return Promise.resolve();
  }

  readonly hang = (): Promise<void> => {
    this.#signal('SIGSTOP');
    return Promise.resolve();
  };

  /** The process that hung was killed when the time limit came. */
  resume(): Promise<void> {
    return Promise.resolve();
  }

  down(): Promise<void> {
    renameSync(join(this.path, markerName), join(this.path, 'away'));
    return Promise.resolve();
  }

  up(): Promise<void> {
    renameSync(join(this.path, 'away'), join(this.path, markerName));
    return Promise.resolve();
  }

  /** To the processes that serve this directory. */
  #signal(signal: NodeJS.Signals): void {
    for (const pid of workersOf(this.path)) {
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended meanwhile.
      }
    }
  }
}

/** Children of a process, this one where not said, that have the directory as an argument. */
export function workersOf(path: string, agent = process.pid): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        const parent = /^PPid:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
        return words.includes(path) && parent === String(agent);
      } catch {
        return false;
      }
    });
}
