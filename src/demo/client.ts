/** A client of the database: it commits numbered rows without pause, and keeps account of them. */
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { postgresBin } from '../lab/databases.ts';
import type { Host, HostProcess } from '../lab/host.ts';

/** What the client connects to; it gets in by its password. */
export interface Database {
  readonly addr: string;
  readonly user: string;
  readonly password: string;
}

/** What the client saw since the last mark. */
export interface Waits {
  readonly rows: number;
  readonly connections: number;
  /** Longest time from one acknowledgement to the next; what it waits now counts. */
  readonly longestMs: number;
}

/** A new connection, and a commit, are given up after this, or a quarter of the wait so far. */
const connectMs = 300;
const commitMs = 1000;
/** Pause before the next try after a refusal. */
const pauseMs = 20;
/** Longest that one question about the whole table may take. */
const askMs = 60_000;

/** psql from a host of clients: no file of settings, stops at the first error. */
function psql(database: Database, ...words: readonly string[]): readonly string[] {
  const { addr, user } = database;
  const from = ['-h', addr, '-U', user, '-d', user];
  return [`${postgresBin()}/psql`, '-XAtq', '-v', 'ON_ERROR_STOP=1', ...from, ...words];
}

/** One connection: psql, told line by line, so that it says of each commit that it is acknowledged. */
class Session {
  readonly #process: HostProcess;
  #answer: (line: string | null) => void = () => undefined;
  #isOver = false;

  constructor(process: HostProcess) {
    this.#process = process;
    const { child } = process;
    // Its end tells that the connection is lost, however the pipes end.
    child.stdin?.on('error', () => undefined);
    child.stderr?.resume();
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) =>
      this.#answer(line),
    );
    void process.ended.then(() => {
      this.#isOver = true;
      this.#answer(null);
    });
  }

  /** Runs lines, then echoes the word; false: no echo in time, or the connection is lost. */
  ask(lines: string, word: string, limitMs: number): Promise<boolean> {
    if (this.#isOver) return Promise.resolve(false);
    return new Promise((resolve) => {
      const end = (line: string | null): void => {
        clearTimeout(timer);
        this.#answer = () => undefined;
        resolve(line === word);
      };
      const timer = setTimeout(() => end(null), limitMs);
      this.#answer = end;
      this.#process.child.stdin?.write(`${lines}\\echo ${word}\n`);
    });
  }

  async end(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process.ended;
  }
}

export class Committer {
  readonly #host: Host;
  readonly #database: Database;
  /** Numbers whose COMMIT was acknowledged, ascending. */
  readonly #acknowledged: number[] = [];
  /** Last number whose COMMIT may have been sent. */
  #sent = 0;
  #lastMs = performance.now();
  #rows = 0;
  #connections = 0;
  #longestMs = 0;
  #isStopped = false;
  readonly #run: Promise<void>;

  /** Begins at once, from a host of clients. */
  constructor(host: Host, database: Database) {
    this.#host = host;
    this.#database = database;
    this.#run = this.#write();
    // Who stops it hears of it.
    this.#run.catch(() => undefined);
  }

  get acknowledged(): readonly number[] {
    return this.#acknowledged;
  }

  get sent(): number {
    return this.#sent;
  }

  get waits(): Waits {
    const longestMs = Math.max(this.#longestMs, performance.now() - this.#lastMs);
    return { rows: this.#rows, connections: this.#connections, longestMs };
  }

  /** Counts from 0; a wait that has begun counts whole in what follows. */
  mark(): void {
    this.#rows = 0;
    this.#connections = 0;
    this.#longestMs = 0;
  }

  /** Waits for `count` more acknowledged rows; false: they did not come in time. */
  async more(count: number, limitMs: number): Promise<boolean> {
    const wanted = this.#acknowledged.length + count;
    const end = performance.now() + limitMs;
    while (this.#acknowledged.length < wanted) {
      if (this.#isStopped || performance.now() > end) return false;
      await delay(pauseMs);
    }
    return true;
  }

  /** Every number that is in the table, ascending, as the client finds them by the virtual IP. */
  async found(): Promise<readonly number[]> {
    const argv = psql(this.#database, '-c', 'SELECT n FROM t ORDER BY n');
    const { stdout } = await this.#host.exec(argv, { env: this.#env, timeoutMs: askMs });
    return stdout.split('\n').filter(Boolean).map(Number);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#run;
  }

  get #env(): Readonly<Record<string, string>> {
    return { PGPASSWORD: this.#database.password };
  }

  #limit(leastMs: number): number {
    return Math.max(leastMs, (performance.now() - this.#lastMs) / 4);
  }

  async #write(): Promise<void> {
    while (!this.#isStopped) {
      const process = await this.#host.spawn(psql(this.#database), { env: this.#env });
      const session = new Session(process);
      // It reads what it is told once it is connected.
      if (await session.ask('', 'hello', this.#limit(connectMs))) {
        this.#connections += 1;
        await this.#commit(session);
      }
      await session.end();
      if (!this.#isStopped) await delay(pauseMs);
    }
  }

  /** Row after row, until one is not acknowledged: whether that one is there, nobody knows. */
  async #commit(session: Session): Promise<void> {
    while (!this.#isStopped) {
      this.#sent += 1;
      const row = this.#sent;
      const lines = `BEGIN; INSERT INTO t VALUES (${row}); COMMIT;\n`;
      if (!(await session.ask(lines, `${row}`, this.#limit(commitMs)))) return;
      this.#acknowledged.push(row);
      const nowMs = performance.now();
      this.#longestMs = Math.max(this.#longestMs, nowMs - this.#lastMs);
      this.#lastMs = nowMs;
      this.#rows += 1;
    }
  }
}
