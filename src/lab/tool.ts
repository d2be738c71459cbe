import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { accessSync, existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { HoldfastError } from '../errors.ts';

/** A process by pid and start time ("PID:START"), so that a recycled pid is never mistaken for it. */
export type ProcessId = string;

/** The folder that holds package.json, from the sources as from dist/. */
export const repoRoot: string = findRoot(dirname(fileURLToPath(import.meta.url)));

function findRoot(from: string): string {
  for (let folder = from; folder !== '/'; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json'))) return folder;
  }
  return from;
}

/** Path of lab_tool; throws HF-LAB-001 when it was not built. */
export function toolPath(): string {
  const path = join(repoRoot, 'build/Release/lab_tool');
  try {
    accessSync(path);
  } catch {
    throw new HoldfastError('HF-LAB-001', { path });
  }
  return path;
}

export interface Output {
  /** Exit code; 128 + signal where one ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Output kept of one command, per stream; the rest is cut. */
const outputMax = 16 * 1024 * 1024;

/** Time to read what a command wrote, once it has ended. */
const drainMs = 250;

/** Collects a child's output until it ends; kills it after timeoutMs (its code is then 137). */
export function collect(
  child: ChildProcess,
  input: string | null,
  timeoutMs: number,
): Promise<Output> {
  return new Promise((resolve, reject) => {
    let stdout = '';
    let stderr = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (stdout.length < outputMax) stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < outputMax) stderr += text;
    });
    // A command that ends without reading its input closes the pipe; its code tells the story.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input ?? '');
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    const end = (code: number | null) => {
      clearTimeout(timer);
      resolve({ code: code ?? 137, stdout, stderr });
    };
    child.once('close', end);
    // A process that the command left behind may hold its output open for ever; what the command
    // itself wrote is in the pipe when it exits.
    child.once('exit', (code) => setTimeout(() => end(code), drainMs).unref());
  });
}

/** Longest that one step of the lab's own set-up may take on a busy machine. */
const stepMs = 30_000;

/** Runs lab_tool and returns its output; a failure is HF-LAB-006 naming the step. */
export async function runTool(
  step: string,
  args: readonly string[],
  input: string | null = null,
): Promise<string> {
  const output = await collect(spawn(toolPath(), args, { stdio: 'pipe' }), input, stepMs);
  if (output.code !== 0) {
    const reason = output.stderr.trim() || `exit code ${output.code}`;
    throw new HoldfastError('HF-LAB-006', { step, reason });
  }
  return output.stdout;
}

/** Runs a command in the network namespace of a process. */
export function inNet(
  step: string,
  process: ProcessId,
  argv: readonly string[],
  input: string | null = null,
): Promise<string> {
  return runTool(step, ['net', process, ...argv], input);
}

/** Start time of a process (field 22 of /proc/PID/stat); null when it is gone or a zombie. */
export function startTime(pid: number): string | null {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return null;
  }
  // The command name (field 2) may hold spaces and brackets: count from the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? null);
}

export function processId(pid: number): ProcessId | null {
  const start = startTime(pid);
  return start === null ? null : `${pid}:${start}`;
}

export function pidOf(process: ProcessId): number {
  return Number(process.slice(0, process.indexOf(':')));
}

export function isAlive(process: ProcessId): boolean {
  return processId(pidOf(process)) === process;
}

/** Sends a signal to exactly that process; false when it is gone. */
export function signal(target: ProcessId, name: NodeJS.Signals): boolean {
  if (!isAlive(target)) return false;
  try {
    process.kill(pidOf(target), name);
    return true;
  } catch {
    return false;
  }
}

/** Waits until a condition holds, looking every few ms; false after timeoutMs. */
export async function until(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > end) return false;
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  return true;
}

export interface SpawnOptions {
  /** The command outlives this process (it ends with its host). */
  readonly detach?: boolean;
  /** File that takes stdout and stderr, appended. */
  readonly out?: string;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdio?: 'pipe' | 'ignore' | 'inherit';
}

/** A command started in a host's namespaces; pid is the one that the outside sees. */
export interface Spawned {
  readonly child: ChildProcess;
  readonly pid: Promise<number>;
}

/** Starts a command in all namespaces of a host. The child is the wrapper that stands for it. */
export function spawnIn(
  host: ProcessId,
  argv: readonly string[],
  options: SpawnOptions = {},
): Spawned {
  const args = ['exec', host, 'pid_fd=3', `detach=${options.detach ? 1 : 0}`];
  if (options.out !== undefined) args.push(`out=${options.out}`);
  args.push(`cwd=${options.cwd ?? '/'}`, '--', ...argv);
  const std = options.stdio ?? 'pipe';
  const stdio: StdioOptions = [std, std, std, 'pipe'];
  // `holdfast` is found on every host.
  const path = `${join(repoRoot, 'bin')}:${process.env['PATH'] ?? ''}`;
  const env = { ...process.env, PATH: path, ...options.env };
  const child = spawn(toolPath(), args, { stdio, env });
  const pid = firstLine(child.stdio[3] as Readable).then(Number);
  return { child, pid };
}

/** First line of a stream; '' when it ends before. The rest is thrown away. */
export function firstLine(stream: Readable | null): Promise<string> {
  if (stream === null) return Promise.resolve('');
  return new Promise((resolve) => {
    const lines = createInterface({ input: stream });
    lines.once('line', resolve);
    lines.once('close', () => resolve(''));
  });
}

/** Collects a stream's text, bounded; the function returns what has come so far. */
export function textOf(stream: Readable | null): () => string {
  let text = '';
  stream?.setEncoding('utf8').on('data', (more: string) => {
    if (text.length < outputMax) text += more;
  });
  return () => text.trim();
}
