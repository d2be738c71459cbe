/**
 * The typed face of native/replica: a client of an engine's control socket, and the start of an
 * engine. The engine is no addon: it is two processes of its own, which outlive the caller. The
 * lines on the socket are described in docs/internals/replication.md.
 */
import { execFile, spawn } from 'node:child_process';
import { type Socket, connect } from 'node:net';
import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { HoldfastError } from '../errors.ts';
import { builtFile } from './load.ts';

/** The engine's executable. */
export const replicaProgram: string = builtFile('holdfast-replica');

/** Keys and values of a request; a key whose value is a list comes once for each entry. */
export type ReplicaValues =
  | readonly (readonly [string, string])[]
  | Readonly<Record<string, string | number | bigint | readonly string[] | undefined>>;

/** Values of an answer or an event. */
export type ReplicaAnswer = Readonly<Record<string, string>>;

/** What `status` says, with its figures as numbers. What a role does not have is 0 or ''. */
export interface ReplicaStatus {
  readonly role: 'none' | 'prim' | 'second' | 'mount';
  /** What the worker is at: a role is usable when `open`. */
  readonly phase: 'none' | 'opening' | 'open' | 'closing' | 'resuming';
  readonly peer: string;
  readonly alone: boolean;
  readonly epoch: number;
  /** LSNs: of the last change, sent, received by the peer, durable there, applied there. */
  readonly last: number;
  readonly sent: number;
  readonly received: number;
  readonly durable: number;
  readonly applied: number;
  /** Process ids, and how often a worker was started again. */
  readonly worker: number;
  readonly holder: number;
  readonly restarts: number;
  /** Everything that was said, as text. */
  readonly all: ReplicaAnswer;
}

/** Space, %, newline, = and bytes below 0x21 as %XX; also DEL. */
export function encodeValue(value: string): string {
  return Array.from(value, (char) => {
    const code = char.charCodeAt(0);
    const plain = code > 0x20 && code !== 0x7f && char !== '%' && char !== '=';
    return plain ? char : `%${code.toString(16).toUpperCase().padStart(2, '0')}`;
  }).join('');
}

/** A value as it came. Bytes that are no UTF-8 become U+FFFD. */
export function decodeValue(text: string): string {
  if (!text.includes('%')) return text;
  const bytes: number[] = [];
  const raw = Buffer.from(text, 'utf8');
  for (let i = 0; i < raw.length; i++) {
    const byte = raw[i] ?? 0;
    if (byte === 0x25) {
      bytes.push(Number.parseInt(raw.toString('latin1', i + 1, i + 3), 16));
      i += 2;
    } else {
      bytes.push(byte);
    }
  }
  return Buffer.from(bytes).toString('utf8');
}

function pairs(values: ReplicaValues): (readonly [string, string])[] {
  if (Array.isArray(values)) return [...(values as readonly (readonly [string, string])[])];
  return Object.entries(values as Record<string, unknown>).flatMap(([key, value]) => {
    if (value === undefined) return [];
    const list: unknown[] = Array.isArray(value) ? value : [value];
    return list.map((entry) => [key, String(entry)] as const);
  });
}

function parseValues(words: readonly string[]): Record<string, string> {
  const values: Record<string, string> = {};
  for (const word of words) {
    const at = word.indexOf('=');
    if (at > 0) values[word.slice(0, at)] = decodeValue(word.slice(at + 1));
  }
  return values;
}

interface Pending {
  readonly verb: string;
  readonly resolve: (answer: ReplicaAnswer) => void;
  readonly reject: (error: Error) => void;
}

/** A line longer than this is no line of an engine. */
const lineMax = 1024 * 1024;

export interface ReplicaClientOptions {
  /** The mirror's name in errors; the socket's name where absent. */
  readonly name?: string;
  /** Where given, the connection watches. */
  readonly onEvent?: (name: string, values: ReplicaAnswer) => void;
  /** Called once, when the connection ends and `close` was not called. */
  readonly onClosed?: () => void;
}

/** One connection to an engine. Requests are answered in their order. */
export class ReplicaClient {
  readonly #socket: Socket;
  readonly #name: string;
  readonly #options: ReplicaClientOptions;
  readonly #pending: Pending[] = [];
  #input = '';
  #closed = false;

  private constructor(socket: Socket, name: string, options: ReplicaClientOptions) {
    this.#socket = socket;
    this.#name = name;
    this.#options = options;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#onData(text));
    socket.on('error', () => undefined); // 'close' follows
    socket.on('close', () => this.#onClose());
  }

  /** Connects to the control socket at `path`. Rejects with HF-MIRROR-002 where nobody listens. */
  static async connect(path: string, options: ReplicaClientOptions = {}): Promise<ReplicaClient> {
    const name = options.name ?? basename(path, '.sock');
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (cause) =>
        reject(new HoldfastError('HF-MIRROR-002', { module: name }, null, cause)),
      );
    });
    const client = new ReplicaClient(socket, name, options);
    if (options.onEvent !== undefined) await client.request('watch');
    return client;
  }

  /**
   * Sends one request; resolves with the values of `ok`. Rejects with HF-MIRROR-003 where the
   * engine refuses (its code and sentence are in the message; HF-MIRROR-029 for VOLUME), and with HF-MIRROR-002 when the
   * connection ends before the answer: then it is not known whether the request was carried out.
   */
  request(verb: string, values: ReplicaValues = {}): Promise<ReplicaAnswer> {
    if (this.#closed) return Promise.reject(this.#gone());
    const words = pairs(values).map(([key, value]) => `${key}=${encodeValue(value)}`);
    return new Promise((resolve, reject) => {
      this.#pending.push({ verb, resolve, reject });
      this.#socket.write(`${[verb, ...words].join(' ')}\n`);
    });
  }

  async status(): Promise<ReplicaStatus> {
    const all = await this.request('status');
    const figure = (key: string) => Number(all[key] ?? 0);
    return {
      role: (all['role'] ?? 'none') as ReplicaStatus['role'],
      phase: (all['phase'] ?? 'none') as ReplicaStatus['phase'],
      peer: all['peer'] ?? '',
      alone: all['alone'] === '1',
      epoch: figure('epoch'),
      last: figure('last'),
      sent: figure('sent'),
      received: figure('received'),
      durable: figure('durable'),
      applied: figure('applied'),
      worker: figure('worker'),
      holder: figure('holder'),
      restarts: figure('restarts'),
      all,
    };
  }

  /** Ends the connection; the engine goes on. */
  close(): void {
    this.#closed = true;
    this.#socket.destroy();
  }

  #gone(): HoldfastError {
    return new HoldfastError('HF-MIRROR-002', { module: this.#name });
  }

  #onData(text: string): void {
    this.#input += text;
    for (let end = this.#input.indexOf('\n'); end >= 0; end = this.#input.indexOf('\n')) {
      const line = this.#input.slice(0, end);
      this.#input = this.#input.slice(end + 1);
      this.#onLine(line.split(' '));
    }
    if (this.#input.length > lineMax) this.#socket.destroy();
  }

  #onLine([kind, ...words]: string[]): void {
    if (kind === 'event') {
      const [name, ...values] = words;
      this.#options.onEvent?.(name ?? '', parseValues(values));
      return;
    }
    const pending = this.#pending.shift();
    if (pending === undefined) return;
    if (kind === 'ok') {
      pending.resolve(parseValues(words));
      return;
    }
    const [code, ...values] = words;
    const reason = parseValues(values)['text'] ?? '';
    const refused = { module: this.#name, verb: pending.verb, reason, code: code ?? '' };
    const known = code === 'VOLUME' ? 'HF-MIRROR-029' : 'HF-MIRROR-003';
    pending.reject(new HoldfastError(known, refused));
  }

  #onClose(): void {
    const told = this.#closed;
    this.#closed = true;
    for (const pending of this.#pending.splice(0)) pending.reject(this.#gone());
    if (!told) this.#options.onClosed?.();
  }
}

export interface ReplicaStart {
  /** Path of the control socket, at most 107 bytes. */
  readonly control: string;
  /** The mirror's name. */
  readonly name: string;
  /** Memory for records that the peer does not have yet; a multiple of 4096. */
  readonly ringBytes?: number;
  /** A file that what cannot be said on the socket is appended to. */
  readonly log?: string;
  /** Another executable than the built one (with sanitizers, say). */
  readonly program?: string;
  /** What comes before the executable on its command line: `unshare -m`, say. */
  readonly before?: readonly string[];
}

/** A fresh engine listens within this, on a busy server. */
const startMs = 10_000;

async function answers(control: string): Promise<boolean> {
  const client = await ReplicaClient.connect(control).catch(() => null);
  client?.close();
  return client !== null;
}

/**
 * Starts an engine and resolves when its socket answers. It goes on when this process ends. Rejects
 * with HF-MIRROR-001: an engine answers there already, the executable is not there, or it ended at
 * once.
 */
export async function startReplica(options: ReplicaStart): Promise<void> {
  const { control, name, ringBytes, log, program = replicaProgram, before = [] } = options;
  const failed = (reason: string) =>
    new HoldfastError('HF-MIRROR-001', { module: name, reason, log: log ?? '-' });
  if (await answers(control)) throw failed('an engine answers there already');
  const args = ['--control', control, '--name', name];
  if (ringBytes !== undefined) args.push('--ring', String(ringBytes));
  if (log !== undefined) args.push('--log', log);
  const [file = program, ...rest] = [...before, program, ...args];
  const child = spawn(file, rest, {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
    cwd: '/',
  });
  let ended: string | null = null;
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (said.length < 4096) said += text;
  });
  child.on('error', (error) => (ended = error.message));
  child.on('exit', (code, signal) => (ended = said.trim() || `exit ${code ?? signal ?? ''}`));
  const untilMs = performance.now() + startMs;
  for (;;) {
    if (await answers(control)) {
      child.stderr.destroy();
      child.unref();
      return;
    }
    const reason = ended ?? (performance.now() > untilMs ? 'it does not answer' : null);
    if (reason !== null) throw failed(reason);
    await delay(10);
  }
}

/** Why an engine would refuse its directories: VOLUME where one is not the copy's, or an errno. */
export interface LookRefusal {
  readonly code: string;
  readonly text: string;
}

/** Exit code of a look that found something. */
const lookRefused = 3;

/**
 * Asks whether these directories could be opened for the copy of the state folder `state`, on which no
 * engine runs; nothing is changed. `force`: for a primary by force, which takes what is there. Null:
 * nothing is known against it, also where the executable cannot be run. It may wait for a disk.
 */
export function lookAtDirectories(
  state: string,
  dirs: readonly string[],
  force: boolean,
): Promise<LookRefusal | null> {
  const args = ['--look', state, ...(force ? ['--force'] : []), ...dirs];
  return new Promise((resolve) => {
    execFile(replicaProgram, args, { cwd: '/' }, (error, stdout) => {
      const [, code, text] = /^(\S+) (.*)\n$/s.exec(stdout) ?? [];
      const isRefused = error?.code === lookRefused && code !== undefined && text !== undefined;
      resolve(isRefused ? { code, text } : null);
    });
  });
}
