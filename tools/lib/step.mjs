import { spawn, spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository. */
export const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/** A failure that is told in one sentence, without a stack. */
export class StepError extends Error {}

/** Prints one line about what is going on. */
export function say(line) {
  process.stdout.write(`holdfast: ${line}\n`);
}

/**
 * Runs `main` and turns a StepError into a line on stderr and exit code 1. `main` may return an exit
 * code.
 */
export async function runMain(main) {
  try {
    process.exitCode = (await main()) ?? 0;
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    process.stderr.write(`holdfast: ${error.message}\n`);
    process.exitCode = 1;
  }
}

/** Runs a command that is heard only when it fails: then its output and a StepError. */
export function quietly(what, command, args) {
  const started = Date.now();
  const run = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    stdio: ['ignore', 'pipe', 'pipe'],
    // Their output goes through a pipe; some colour it all the same where CI is set.
    env: process.stdout.isTTY === true ? process.env : { ...process.env, NO_COLOR: '1' },
  });
  if (run.error !== undefined) throw new StepError(`${what}: ${run.error.message}`);
  if (run.status !== 0) {
    process.stdout.write(run.stdout);
    process.stderr.write(run.stderr);
    throw new StepError(`${what} failed (${run.signal ?? `exit code ${run.status}`})`);
  }
  say(`${what}: done in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}

/**
 * Runs a command on this terminal and resolves with its exit code. Signals that the terminal sends
 * to both are left to the child, so that it can clean up; a signal for us alone is passed on.
 */
export function inForeground(command, args, env = process.env) {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { cwd: root, stdio: 'inherit', env });
    const ignored = () => {};
    const pass = () => child.kill('SIGTERM');
    process.on('SIGINT', ignored);
    process.on('SIGTERM', pass);
    child.on('error', fail);
    child.on('exit', (code, signal) => {
      process.off('SIGINT', ignored);
      process.off('SIGTERM', pass);
      done(signal === null ? code : 128 + constants.signals[signal]);
    });
  });
}
