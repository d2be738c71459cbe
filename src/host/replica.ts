/**
 * The replication engine of one mirror as the agent sees it: a process that lives on when the agent
 * dies, reached by its control socket (docs/internals/replication.md). This file starts it or finds
 * it running, keeps a connection to it, and knows its last status.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { HoldfastError } from '../errors.ts';
import {
  lookAtDirectories,
  type LookRefusal,
  ReplicaClient,
  type ReplicaClientOptions,
  type ReplicaStart,
  startReplica,
} from '../native/replica.ts';
import type { Paths } from '../paths.ts';

/** Keys and values of a control line, in its order; a key may come again. */
export type EngineValues = readonly (readonly [string, string])[];
export type EngineAnswer = Readonly<Record<string, string>>;

/** One connection to an engine. */
export interface EngineClient {
  /** Resolves with the values of `ok`; HF-MIRROR-003 where the engine refuses. */
  request(verb: string, values: EngineValues): Promise<EngineAnswer>;
  close(): void;
}

/** How an engine is started and reached; tests have one of their own. */
export interface EngineAccess {
  start(options: ReplicaStart): Promise<void>;
  connect(socket: string, options: ReplicaClientOptions): Promise<EngineClient>;
  /** @see lookAtDirectories */
  look(state: string, dirs: readonly string[], force: boolean): Promise<LookRefusal | null>;
}

/** The engines of this server. */
export const engineAccess: EngineAccess = {
  start: startReplica,
  connect: (socket, options) => ReplicaClient.connect(socket, options),
  look: lookAtDirectories,
};

export interface ReplicaOptions {
  readonly paths: Paths;
  readonly module: string;
  readonly access: EngineAccess;
  readonly onEvent: (name: string, values: EngineAnswer) => void;
  /** The status was read again, or the connection is not there any more. */
  readonly onStatus: () => void;
  /** Both of its processes are gone, and nobody has asked for that. */
  readonly onGone: () => void;
}

/** How often its status is read: status, metrics and alerts are no older than this. */
const statusEveryMs = 1000;
/**
 * Both processes keep the listening socket: while one of them lives a connection is taken, if only
 * answered by the next worker. One that is refused for this long is refused for good.
 */
const returnMs = 2000;
const retryMs = 20;
/** The last status stands for this long while a worker is replaced: alerts do not flap. */
const staleMs = 1000;
/** What a worker begins it ends within this, or it is not waited for any more. */
const settleMs = 60_000;
/** Phases of an engine that end by themselves. */
const underWay: readonly string[] = ['opening', 'closing', 'resuming'];

export class Replica {
  readonly #options: ReplicaOptions;
  readonly #socket: string;
  #client: EngineClient | null = null;
  #status: EngineAnswer = {};
  #timer: NodeJS.Timeout | null = null;
  #ended = false;
  /** Nobody has taken a connection for long enough. */
  #isGone = false;
  #asking: Promise<void> | null = null;
  #askAgain = false;

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.#socket = join(options.paths.run, 'replica', `${options.module}.sock`);
  }

  /** Its last status; empty before the first one and while nobody answers. */
  get status(): EngineAnswer {
    return this.#status;
  }

  get connected(): boolean {
    return this.#client !== null;
  }

  /** Connects to a running engine; false where there is none. */
  async attach(): Promise<boolean> {
    if (this.#client !== null) return true;
    if (!existsSync(this.#socket)) return false;
    try {
      await this.#connect();
      return true;
    } catch {
      return false;
    }
  }

  /** Connects to the engine, which is started where none runs. HF-MIRROR-001. */
  async start(): Promise<void> {
    if (await this.attach()) return;
    const { access, module: name, paths } = this.#options;
    mkdirSync(dirname(this.#socket), { recursive: true, mode: 0o700 });
    mkdirSync(paths.log, { recursive: true, mode: 0o755 });
    const log = join(paths.log, `replica-${name}.log`);
    await access.start({ control: this.#socket, name, log });
    await this.#connect();
  }

  /** Resolves when it is at nothing: an agent that died may have left an order under way. */
  async whenSettled(): Promise<void> {
    const untilMs = performance.now() + settleMs;
    while (
      underWay.includes(this.#status['phase'] ?? '') &&
      performance.now() < untilMs &&
      !this.#ended
    ) {
      await delay(retryMs);
      await this.#refresh();
    }
  }

  /**
   * Resolves when its status is known and a worker that began anew has its role again; false: it says
   * nothing, or is gone.
   */
  async whenKnown(): Promise<boolean> {
    const untilMs = performance.now() + settleMs;
    for (;;) {
      const { role, phase = '' } = this.#status;
      if (role !== undefined && !underWay.includes(phase)) return true;
      if (this.#ended || this.#isGone || performance.now() > untilMs) return false;
      await delay(retryMs);
      await this.#refresh();
    }
  }

  /** HF-MIRROR-002 while nobody answers; the engine's own refusals are HF-MIRROR-003. */
  async request(verb: string, values: EngineValues = []): Promise<EngineAnswer> {
    const client = this.#client;
    if (client === null) {
      throw new HoldfastError('HF-MIRROR-002', { module: this.#options.module });
    }
    const answer = await client.request(verb, values);
    if (verb !== 'status' && !this.#ended) await this.#refresh();
    return answer;
  }

  /**
   * Ends both processes, in order where they still answer; those that have not closed after `limitMs` are
   * killed. Never rejects.
   */
  async end(limitMs: number | null = null): Promise<string | null> {
    this.#ended = true;
    let reason: string | null = null;
    let timer: NodeJS.Timeout | null = null;
    const late = new Promise<never>((_resolve, reject) => {
      const text = `it did not close within ${limitMs} ms and was killed`;
      if (limitMs !== null) timer = setTimeout(() => reject(new Error(text)), limitMs);
    });
    try {
      if (this.#client === null && limitMs !== null) throw new Error('it does not answer');
      await Promise.race([this.#close(), late]);
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
    }
    if (timer !== null) clearTimeout(timer);
    this.#letGo();
    // One that is gone already was told as such.
    if (reason === null || limitMs === null) return reason;
    return (await killEngine(this.#socket)) ? reason : null;
  }

  async #close(): Promise<void> {
    try {
      if (this.#client !== null) await this.#client.request('close', []);
    } finally {
      // Its answer may be lost in its own end.
      await this.#client?.request('quit', []).catch(() => undefined);
    }
  }

  /** Leaves it running for the agent that follows. */
  abandon(): void {
    this.#ended = true;
    this.#letGo();
  }

  async #connect(): Promise<void> {
    let client: EngineClient | null = null;
    client = await this.#options.access.connect(this.#socket, {
      name: this.#options.module,
      onEvent: (name, values) => {
        if (this.#ended) return;
        this.#options.onEvent(name, values);
        // What an event changes shows in the status at once, not at its next turn.
        void this.#refresh();
      },
      onClosed: () => void this.#onClosed(client),
    });
    this.#client = client;
    this.#isGone = false;
    await this.#refresh();
    this.#timer ??= setInterval(() => void this.#refresh(), statusEveryMs).unref();
  }

  /** Reads the status, once at a time: an engine that does not answer is not asked ever more. */
  #refresh(): Promise<void> {
    this.#askAgain = this.#asking !== null;
    this.#asking ??= this.#ask();
    return this.#asking;
  }

  async #ask(): Promise<void> {
    do {
      const client = this.#client;
      this.#askAgain = false;
      // A connection that ends under way says so by itself; the next one has its own turn.
      const status = await client?.request('status', []).catch(() => null);
      if (client === this.#client && status) this.#status = status;
    } while (this.#askAgain);
    // In the same turn as the last look: who asks now is not answered by what was read before.
    this.#asking = null;
    if (!this.#ended) this.#options.onStatus();
  }

  /** The worker died, and the holder starts another; or both are gone. */
  async #onClosed(client: EngineClient | null): Promise<void> {
    if (this.#ended || client === null || client !== this.#client) return;
    this.#client = null;
    const stale = setTimeout(() => {
      if (this.#ended || this.#client !== null) return;
      this.#status = {};
      this.#options.onStatus();
    }, staleMs).unref();
    const untilMs = performance.now() + returnMs;
    while (!this.#ended && performance.now() < untilMs) {
      if (await this.attach()) return;
      await delay(retryMs);
    }
    clearTimeout(stale);
    if (this.#ended) return;
    this.#isGone = true;
    this.#letGo();
    this.#options.onGone();
  }

  #letGo(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#status = {};
    const client = this.#client;
    this.#client = null;
    client?.close();
  }
}

/** How long a killed process may take to be gone: one in an uninterruptible sleep stays longer. */
const goneMs = 2000;

/** Ends all processes of an engine that did not end by itself; false: there were none. */
async function killEngine(socket: string): Promise<boolean> {
  const untilMs = performance.now() + goneMs;
  for (let any = false; ; any = true) {
    const pids = enginePids(socket);
    if (pids.length === 0 || performance.now() > untilMs) return any;
    // Stopped first: each would start the other again.
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
      for (const pid of pids) signalQuietly(pid, signal);
    }
    await delay(retryMs);
  }
}

/** Processes of the engine with that control socket; one that has ended and was not waited for is none. */
function enginePids(socket: string): readonly number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const program = basename(readlinkSync(`/proc/${name}/exe`));
      const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
      return program.startsWith('holdfast-replica') && words.includes(socket) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

function signalQuietly(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended meanwhile.
  }
}
