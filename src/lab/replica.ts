/**
 * A replicated directory on two hosts of a lab, run by hand: the two replica processes and nothing
 * else of the product. Tests and benches of the write interceptor stand on it.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { makeCa, makeRequest, signRequest } from '../api/pki.ts';
import { ReplicaClient, replicaProgram, type ReplicaStatus } from '../native/replica.ts';
import type { Host } from './host.ts';
import type { Lab } from './lab.ts';
import { until } from './tool.ts';

export interface ReplicaOptions {
  /** Tells several pairs of one lab apart: in names of sockets, folders and in the port. */
  readonly name: string;
  /** The directory, the same path on both hosts; made when absent. */
  readonly dir: string;
  /** Folder for the engine's own files, on both hosts. */
  readonly stateDir: string;
  readonly port?: number;
  readonly ack?: 'fsync' | 'strict';
  readonly async?: 'none' | 'second';
  readonly ringBytes?: number;
  readonly journalBytes?: number;
}

const certificates = '/run/replica-pki';
const startMs = 5000;

/** The lab's own CA and one certificate per host, once per lab. */
async function writeCertificates(hosts: readonly Host[]): Promise<void> {
  if (hosts.every((host) => host.exists(`${certificates}/cert.pem`))) return;
  const ca = await makeCa('lab');
  for (const host of hosts) {
    const { key, request } = await makeRequest(host.name);
    const cert = await signRequest(ca, request, host.name, [host.address()]);
    host.writeFile(`${certificates}/ca.pem`, ca.cert);
    host.writeFile(`${certificates}/cert.pem`, cert);
    host.writeFile(`${certificates}/key.pem`, key, 0o600);
  }
}

/** The process of one host: holder, worker, and a client of its control socket. */
export class ReplicaProcess {
  readonly host: Host;
  readonly #socket: string;
  client: ReplicaClient;

  private constructor(host: Host, socket: string, client: ReplicaClient) {
    this.host = host;
    this.#socket = socket;
    this.client = client;
  }

  static async start(host: Host, name: string): Promise<ReplicaProcess> {
    const socket = `/run/replica-${name}.sock`;
    const log = `/run/replica-${name}.log`;
    const argv = [replicaProgram, '--control', socket, '--name', name, '--log', log];
    await host.spawn(argv, { detach: true });
    for (const end = performance.now() + startMs; ; await delay(3)) {
      // The socket of a process that ended may still be there.
      const client = await ReplicaClient.connect(host.path(socket)).catch(() => null);
      if (client !== null) return new ReplicaProcess(host, socket, client);
      if (performance.now() > end) throw new Error(`no engine answers at ${socket}`);
    }
  }

  /** After the worker died: talks to the new one. */
  async reconnect(): Promise<void> {
    this.client.close();
    this.client = await ReplicaClient.connect(this.host.path(this.#socket));
  }

  status(): Promise<ReplicaStatus> {
    return this.client.status();
  }

  /** Ends the role in order, then both processes; resolves when they are gone. */
  async stop(): Promise<void> {
    await this.client.request('close', {});
    await this.client.request('quit', {}).catch(() => {});
    this.client.close();
    const own = () => this.host.processes().some(({ command }) => command.includes(this.#socket));
    if (!(await until(() => !own(), startMs))) throw new Error(`${this.#socket} does not end`);
  }
}

/** PRIM on the lab's first host, SECOND on its second. */
export class ReplicaPair {
  readonly prim: ReplicaProcess;
  second: ReplicaProcess;
  readonly dir: string;
  readonly #name: string;
  readonly #common: Readonly<Record<string, string | number>>;
  readonly #listen: string;
  #epoch = 1;

  private constructor(
    options: ReplicaOptions,
    prim: ReplicaProcess,
    second: ReplicaProcess,
    common: Readonly<Record<string, string | number>>,
    listen: string,
  ) {
    this.prim = prim;
    this.second = second;
    this.dir = options.dir;
    this.#name = options.name;
    this.#common = common;
    this.#listen = listen;
  }

  /** Resolves when both are in sync. */
  static async start(lab: Lab, options: ReplicaOptions): Promise<ReplicaPair> {
    const [first, other] = lab.hosts;
    if (first === undefined || other === undefined) throw new Error('a pair needs two hosts');
    const hosts = [first, other];
    await writeCertificates(hosts);
    for (const host of hosts) await host.exec(['mkdir', '-p', options.dir, options.stateDir]);
    const port = options.port ?? 5600;
    const common = {
      set: randomBytes(16).toString('hex'),
      state: options.stateDir,
      dir: options.dir,
      cert: `${certificates}/cert.pem`,
      key: `${certificates}/key.pem`,
      ca: `${certificates}/ca.pem`,
      ack: options.ack ?? 'fsync',
      async: options.async ?? 'none',
      ring: options.ringBytes ?? 64 << 20,
      journal: options.journalBytes ?? 256 << 20,
    };
    const second = await ReplicaProcess.start(other, options.name);
    const listen = `${other.address()}:${port}`;
    const prim = await ReplicaProcess.start(first, options.name);
    const pair = new ReplicaPair(options, prim, second, common, listen);
    await pair.#openSecond();
    await pair.#openPrim();
    await pair.settled();
    return pair;
  }

  async #openSecond(): Promise<void> {
    const values = { ...this.#common, role: 'second', node: 1, listen: this.#listen };
    await this.second.client.request('open', { ...values, epoch: this.#epoch });
  }

  async #openPrim(): Promise<void> {
    const values = { ...this.#common, role: 'prim', node: 0, peer: this.#listen };
    await this.prim.client.request('open', { ...values, epoch: this.#epoch });
  }

  /** The second ends in order, with its processes. */
  stopSecond(): Promise<void> {
    return this.second.stop();
  }

  /** The second is there again; does not wait for it to be in sync. */
  async startSecond(): Promise<void> {
    this.second = await ReplicaProcess.start(this.second.host, this.#name);
    await this.#openSecond();
  }

  /** The first may go on without the second, in a new epoch. */
  async alone(): Promise<void> {
    this.#epoch++;
    await this.prim.client.request('alone', { epoch: this.#epoch });
  }

  /** The first ends its role in order and takes it again. */
  async reopenPrim(): Promise<void> {
    await this.prim.client.request('close', {});
    await this.#openPrim();
  }

  /** Resolves when the second has applied everything that the first has. */
  async settled(timeoutMs = 60_000): Promise<void> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const { last } = await this.prim.status();
      const { applied } = await this.second.status();
      if (applied >= last && (await this.prim.status()).peer === 'connected') return;
      if (performance.now() > end) throw new Error(`the second has ${applied} of ${last}`);
      await until(() => false, 20);
    }
  }

  async stop(): Promise<void> {
    await this.prim.stop();
    await this.second.stop();
  }
}
