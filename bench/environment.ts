/** What a bench says about the machine and the code that it ran on. */
import { execFileSync } from 'node:child_process';
import os from 'node:os';
import { packageRoot, version } from '../src/version.ts';

/** `peer`: the versions measured beside; `order`: how runs were ordered, seed and warm-up. */
export function environment(
  loadAtStart: number,
  peer: string,
  order: string,
): Readonly<Record<string, string>> {
  const git = (...words: string[]) =>
    execFileSync('git', words, { cwd: packageRoot, stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .trim();
  let commit = 'no commit';
  try {
    commit = git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain') ? '+changes' : '');
  } catch {
    // Run from an installed package.
  }
  const load = os.loadavg()[0] ?? 0;
  return {
    machine: `${os.cpus().length} x ${os.cpus()[0]?.model.trim() ?? 'unknown CPU'}`,
    kernel: `Linux ${os.release()}`,
    node: process.version,
    holdfast: `${version} (${commit})`,
    peer,
    load: `${loadAtStart.toFixed(1)} at the start, ${load.toFixed(1)} at the end, the bench included`,
    order,
  };
}

const isTerminal = process.stderr.isTTY === true;

/** One line on stderr that is written over on a terminal. */
export function progress(text: string): void {
  process.stderr.write(isTerminal ? `\r\x1b[K${text}` : `${text}\n`);
}
