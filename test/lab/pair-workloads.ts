/** What runs on a mirror in a random run (pair-nemesis.ts), its clients, and how to know what is wrong. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { postgresBin } from '../../src/lab/databases.ts';
import type { Host, HostProcess } from '../../src/lab/host.ts';
import { AppendHistory, wrongNow, wrongReads } from './append-check.ts';
import { dir, type Pair, type PairOptions } from './pair-support.ts';
import { type Answer, parseAnswer, wrongRecords } from './set-check.ts';
import { eventually } from './support.ts';

export interface Workload {
  readonly mirror: PairOptions;
  /** Its processes, by their command lines. */
  readonly application: RegExp;
  /** Who answered when. */
  readonly answers: readonly Answer[];
  /** Writes that were acknowledged. */
  readonly acknowledged: number;
  /** All that clients said. */
  readonly said: readonly string[];
  /** Clients begin; the mirror serves. */
  begin(pair: Pair): Promise<void>;
  /** What is wrong with the data as the primary shows them now. */
  wrong(primary: Host): Promise<readonly string[]>;
  /** Clients end. */
  end(): Promise<void>;
  /** What clients saw that was wrong, once they have ended. */
  wrongEver(): readonly string[];
  /** What is wrong with the data of a server where nothing runs any more; nothing where it does not show. */
  wrongAtRest(host: Host): Promise<readonly string[]>;
}

/** A program in the clients' namespace that says what it sees, a line each. */
class Clients {
  readonly said: string[] = [];
  readonly #program: string;
  #process: HostProcess | null = null;

  constructor(program: string) {
    this.#program = program;
  }

  async begin(pair: Pair, onLine: (line: string) => void): Promise<void> {
    const [space] = pair.lab.clients;
    const program = join(import.meta.dirname, this.#program);
    const process_ = await space?.spawn([process.execPath, program, pair.lab.vip(1)]);
    this.#process = process_ ?? null;
    const { stdout } = process_?.child ?? {};
    if (stdout === undefined || stdout === null) throw new Error('the clients say nothing');
    createInterface({ input: stdout }).on('line', (line) => {
      this.said.push(line);
      onLine(line);
    });
  }

  async end(): Promise<void> {
    this.#process?.kill('SIGKILL');
    await this.#process?.ended;
  }
}

/** Plain files: records that are added to a file, by set-server.ts. */
export class FilesWorkload implements Workload {
  readonly application = /^\S*node \S*set-server\.js/;
  readonly answers: Answer[] = [];
  acknowledged = 0;
  readonly mirror: PairOptions = {
    tool: (lab) => {
      const path = join(lab.dir, 'set-server');
      const program = join(import.meta.dirname, 'set-server.js');
      const command = `VIP=${lab.vip(1)} exec ${process.execPath} ${program} "$@"`;
      writeFileSync(path, `#!/bin/sh\n${command}\n`, { mode: 0o755 });
      return path;
    },
  };
  readonly #clients = new Clients('set-clients.js');

  get said(): readonly string[] {
    return this.#clients.said;
  }

  begin(pair: Pair): Promise<void> {
    return this.#clients.begin(pair, (line) => {
      const answer = parseAnswer(line);
      if (answer === null) return;
      this.answers.push(answer);
      if (answer.kind === 'w') this.acknowledged += 1;
    });
  }

  async wrong(primary: Host): Promise<readonly string[]> {
    const answers = [...this.answers];
    const { stdout } = await primary.exec(['cat', `${dir}/set`], { check: false });
    return wrongRecords(answers, stdout.trimEnd().split('\n'));
  }

  end(): Promise<void> {
    return this.#clients.end();
  }

  wrongEver(): readonly string[] {
    return [];
  }

  wrongAtRest(host: Host): Promise<readonly string[]> {
    return this.wrong(host);
  }
}

/** PostgreSQL: values that are appended to a table, and reads of all of it (append-clients.ts). */
export class PostgresWorkload implements Workload {
  readonly application = /^(\S*\/)?postgres(:| -D)/;
  readonly mirror: PairOptions = {
    folder: 'modules/postgresql',
    // One that is killed before it was seen to answer is started again while the run looks on.
    edit: (xml) => xml.replace('action="restart"/>', 'start_timeout="30s" action="restart"/>'),
  };
  readonly #history = new AppendHistory();
  readonly #clients = new Clients('append-clients.js');
  #hasEnded = false;

  get answers(): readonly Answer[] {
    return this.#history.answers;
  }

  get acknowledged(): number {
    return this.#history.acknowledged;
  }

  get said(): readonly string[] {
    return this.#clients.said;
  }

  async begin(pair: Pair): Promise<void> {
    const { a } = pair;
    const line = 'host all postgres 10.0.0.0/8 trust';
    await a.exec(['sh', '-c', `echo '${line}' >>${dir}/data/pg_hba.conf`]);
    await psql(a, 'SELECT pg_reload_conf()');
    // Without a key: what is there twice is to be seen.
    await psql(a, 'CREATE TABLE t (v text NOT NULL)');
    await this.#clients.begin(pair, (said) => this.#history.add(said));
  }

  async wrong(primary: Host): Promise<readonly string[]> {
    const beganNs = Number(process.hrtime.bigint());
    const ids = (await psql(primary, 'SELECT v FROM t')).split('\n').filter(Boolean);
    const endedNs = Number(process.hrtime.bigint());
    const look = async (): Promise<true | null> =>
      this.#hasEnded || this.#history.untilNs > endedNs ? true : null;
    await eventually('what clients have sent to be known', look);
    return wrongNow(this.#history, ids, beganNs);
  }

  async end(): Promise<void> {
    await this.#clients.end();
    this.#hasEnded = true;
  }

  wrongEver(): readonly string[] {
    return wrongReads(this.#history);
  }

  wrongAtRest(): Promise<readonly string[]> {
    return Promise.resolve([]);
  }
}

/** Runs a command as the administrator of the database of a server. */
async function psql(host: Host, command: string): Promise<string> {
  const user = ['setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups'];
  const argv = [...user, `${postgresBin()}/psql`, '-h', '/run/postgresql', '-XAtqc', command];
  return (await host.exec([...argv, 'postgres'])).stdout;
}
