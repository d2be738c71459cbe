/** Carries out what writer.ts does, on a host. */
import type { Host } from '../../src/lab/host.ts';
import { script } from './script.ts';
import type { Task } from './writer.ts';

const timeoutMs = 600_000;

export async function carryOut<T>(host: Host, task: Task): Promise<T> {
  const input = JSON.stringify(task);
  const { stdout } = await host.exec(script('writer'), { input, timeoutMs });
  return JSON.parse(stdout) as T;
}
