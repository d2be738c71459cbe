import { get as httpGet, type RequestOptions } from 'node:http';
import { get as httpsGet } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { Paths } from '../paths.ts';
import { errnoOf } from '../module/durable.ts';
import { type ScriptModule, type ScriptState, scriptEnvironment } from '../module/environment.ts';
import { moduleDirs } from '../module/name.ts';
import { endGroup, spawnGroup } from '../module/process.ts';

/** Between TERM and KILL of a check script that overran. */
const graceMs = 500;
const maxReasonBytes = 256;

/** Null when a TCP connection to the address opens, else why not. */
export function probeTcp(addr: string, port: number, signal: AbortSignal): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect({ host: addr, port, signal });
    const done = (why: string | null): void => {
      resolve(why);
      socket.destroy();
    };
    socket.once('connect', () => done(null));
    socket.once('error', (error) => done(`${addr}:${port} ${errnoOf(error)}`));
  });
}

export interface HttpTarget {
  readonly addr: string;
  readonly port: number;
  readonly path: string;
  /** Certificates that may have signed the server's one; null: plain HTTP. */
  readonly ca: string | null;
}

/** Null when a GET is answered with a status from 200 to 399, else why not. The body is not read. */
export function probeHttp(target: HttpTarget, signal: AbortSignal): Promise<string | null> {
  const { addr, port, path, ca } = target;
  const options: RequestOptions = {
    host: addr,
    port,
    path,
    signal,
    agent: false,
    headers: { 'user-agent': 'holdfast-check', connection: 'close' },
  };
  return new Promise((resolve) => {
    const request =
      ca === null
        ? httpGet(options)
        : // The cluster's own CA signed it; nodes are asked by addresses that no certificate names.
          httpsGet({ ...options, ca, checkServerIdentity: () => undefined });
    request.once('response', (response) => {
      const status = response.statusCode ?? 0;
      resolve(status >= 200 && status < 400 ? null : `${addr}:${port} answers ${status}`);
      response.destroy();
    });
    // Stays after the answer: destroying it may still raise one.
    request.on('error', (error) => resolve(`${addr}:${port} ${errnoOf(error)}`));
  });
}

export interface ScriptTarget {
  readonly paths: Paths;
  readonly module: ScriptModule;
  /** File below bin/. */
  readonly file: string;
  readonly state: ScriptState;
}

/**
 * Null when a script of the module exits 0, else why not: the last line it wrote, or its status.
 * Where the signal comes first, what it started is ended with it.
 */
export async function probeScript(
  target: ScriptTarget,
  signal: AbortSignal,
): Promise<string | null> {
  const { paths, module, file, state } = target;
  const dirs = moduleDirs(paths, module.name);
  const { pid, ended, output } = spawnGroup(join(dirs.bin, file), {
    args: [],
    cwd: dirs.bin,
    env: scriptEnvironment(paths, module, state),
    output: 'pipe',
  });
  let text = '';
  for (const stream of output) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text = (text + chunk).slice(-maxReasonBytes);
    });
  }
  let killing: Promise<unknown> = Promise.resolve();
  const onAbort = (): void => {
    if (pid !== null) killing = endGroup(pid, graceMs).catch(() => false);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    const { exit, signal: by, error } = await ended;
    if (exit === 0) return null;
    if (error !== null) return `bin/${file} cannot run: ${error}`;
    // What it wrote last may be read after its end; what it left running may hold the pipe open.
    await setImmediate();
    const last = text.trimEnd().split('\n').at(-1) ?? '';
    return `bin/${file}: ${last === '' ? (by ?? `exit ${exit}`) : last}`;
  } finally {
    signal.removeEventListener('abort', onAbort);
    await killing;
    for (const stream of output) stream.destroy();
  }
}
