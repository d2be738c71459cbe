/** Real databases on a lab host, with their own defaults but for where they listen. */
import { existsSync, readdirSync } from 'node:fs';
import type { Host, HostProcess } from './host.ts';
import { until } from './tool.ts';

const timeoutMs = 300_000;

/** Folder of the newest PostgreSQL that is installed. */
export function postgresBin(): string {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  if (versions[0] === undefined) throw new Error('PostgreSQL is not installed');
  return `${root}/${versions[0]}/bin`;
}

export interface PgbenchResult {
  readonly transactions: number;
  readonly perS: number;
}

/** PostgreSQL with its data in `dir`/postgres. */
export class Postgres {
  readonly #host: Host;
  readonly #data: string;
  readonly #socket: string;

  constructor(host: Host, dir: string) {
    this.#host = host;
    this.#data = `${dir}/postgres`;
    this.#socket = '/run/lab-postgres';
  }

  /** Starts it; makes its data first when there is none. True: it did. */
  async start(): Promise<boolean> {
    const { code } = await this.#host.exec(['test', '-e', `${this.#data}/PG_VERSION`], {
      check: false,
    });
    for (const folder of [this.#data, this.#socket]) {
      await this.#host.exec(['install', '-d', '-o', 'postgres', '-m', '700', folder]);
    }
    const isNew = code !== 0;
    if (isNew) await this.#run('initdb', '--pgdata', this.#data, '--auth=trust');
    await this.#control('start', '-o', `-c listen_addresses= -k ${this.#socket}`);
    return isNew;
  }

  async stop(): Promise<void> {
    await this.#control('stop', '-m', 'fast');
  }

  /** pgbench's own tables. */
  async fill(scale: number): Promise<void> {
    await this.#run('pgbench', '-h', this.#socket, '-i', '-q', '-s', `${scale}`, 'postgres');
  }

  /** TPC-B like, for that long. Throws when a transaction fails. */
  async bench(clients: number, seconds: number): Promise<PgbenchResult> {
    const words = ['-c', `${clients}`, '-j', '2', '-T', `${seconds}`, 'postgres'];
    const stdout = await this.#run('pgbench', '-h', this.#socket, ...words);
    return {
      transactions: Number(/actually processed: (\d+)/.exec(stdout)?.[1]),
      perS: Number(/tps = ([\d.]+)/.exec(stdout)?.[1]),
    };
  }

  /** Runs SQL, returns what it printed. */
  query(sql: string): Promise<string> {
    return this.#run('psql', '-h', this.#socket, '-v', 'ON_ERROR_STOP=1', '-Atc', sql, 'postgres');
  }

  #control(...words: string[]): Promise<string> {
    const log = `${this.#socket}/log`;
    return this.#run('pg_ctl', '--pgdata', this.#data, '--wait', '--log', log, ...words);
  }

  async #run(program: string, ...words: string[]): Promise<string> {
    const user = ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups'];
    const argv = [...user, `${postgresBin()}/${program}`, ...words];
    return (await this.#host.exec(argv, { timeoutMs })).stdout;
  }
}

/** MariaDB with its data in `dir`/mariadb. */
export class Mariadb {
  readonly #host: Host;
  readonly #data: string;
  readonly #run = '/run/lab-mariadb';
  readonly #socket = `${this.#run}/socket`;
  #server: HostProcess | null = null;

  constructor(host: Host, dir: string) {
    this.#host = host;
    this.#data = `${dir}/mariadb`;
  }

  async start(): Promise<void> {
    const host = this.#host;
    await host.exec(['install', '-d', '-o', 'mysql', '-m', '700', this.#data, this.#run]);
    const { code } = await host.exec(['test', '-e', `${this.#data}/mysql`], { check: false });
    const common = ['--no-defaults', `--datadir=${this.#data}`, '--user=mysql'];
    if (code !== 0) {
      const install = ['mariadb-install-db', ...common, '--auth-root-authentication-method=normal'];
      await host.exec([...install, '--skip-test-db'], { timeoutMs });
    }
    const server = ['mariadbd', ...common, `--socket=${this.#socket}`, '--skip-networking'];
    this.#server = await host.spawn([...server, `--pid-file=${this.#run}/pid`]);
    if (!(await until(() => host.exists(this.#socket), 60_000))) {
      throw new Error('MariaDB did not start');
    }
  }

  async query(sql: string): Promise<string> {
    const argv = ['mariadb', '--no-defaults', `--socket=${this.#socket}`, '-uroot', '-N'];
    return (await this.#host.exec(argv, { input: sql, timeoutMs })).stdout;
  }

  async stop(): Promise<void> {
    await this.#host.exec(
      ['mariadb-admin', '--no-defaults', `--socket=${this.#socket}`, '-uroot', 'shutdown'],
      { timeoutMs },
    );
    await this.#server?.ended;
  }
}
