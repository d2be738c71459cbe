import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type EtcdOptions, EtcdRegister } from '../../src/arbiter/etcd.ts';
import type { Register } from '../../src/arbiter/register.ts';
import type { World } from './contract.ts';

/** Why tests with etcd cannot run here; false: they can. */
export const noEtcd: string | false =
  spawnSync('etcd', ['--version']).status === 0 ? false : 'there is no etcd';

export const clusterId = '00112233aabbccdd';

/** TCP ports that are free on 127.0.0.1 now. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => {
    const address = server.address();
    return typeof address === 'object' ? (address?.port ?? 0) : 0;
  });
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}

interface Files {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

/** One etcd with a folder of its own. */
export class EtcdWorld implements World {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-etcd-'));
  readonly #registers: Register[] = [];
  #ports: number[] = [];
  #child: ChildProcess | null = null;
  #tls: Files | null = null;

  static async make(t: TestContext, tls: ((folder: string) => Files) | null = null) {
    const world = new EtcdWorld();
    t.after(() => world.#end());
    world.#tls = tls === null ? null : tls(world.folder);
    world.#ports = await freePorts(2);
    await world.up();
    return world;
  }

  get endpoint(): string {
    return `${this.#tls === null ? 'http' : 'https'}://127.0.0.1:${this.#ports[0]}`;
  }

  open(_node: number, timeLimitMs = 20_000): Register {
    return this.client({}, timeLimitMs);
  }

  client(config: Partial<EtcdOptions['config']>, timeLimitMs = 20_000): Register {
    const none = { caFile: null, certFile: null, keyFile: null };
    const register = new EtcdRegister({
      config: {
        type: 'etcd',
        endpoints: [this.endpoint],
        prefix: '/holdfast/',
        ...(this.#tls ?? none),
        ...config,
      },
      clusterId,
      timeLimitMs,
    });
    this.#registers.push(register);
    return register;
  }

  async crash(): Promise<void> {
    await this.down();
    await this.up();
  }

  readonly hang = (): Promise<void> => {
    this.#child?.kill('SIGSTOP');
    return Promise.resolve();
  };

  resume(): Promise<void> {
    this.#child?.kill('SIGCONT');
    return Promise.resolve();
  }

  async down(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  async up(): Promise<void> {
    const peer = `http://127.0.0.1:${this.#ports[1]}`;
    const tls = this.#tls;
    const args = [
      ['--data-dir', join(this.folder, 'data')],
      ['--listen-client-urls', this.endpoint, '--advertise-client-urls', this.endpoint],
      ['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
      ['--initial-cluster', `default=${peer}`, '--logger', 'zap', '--log-outputs', 'stderr'],
      tls === null
        ? []
        : ['--client-cert-auth', '--trusted-ca-file', tls.caFile]
            .concat('--cert-file', tls.certFile)
            .concat('--key-file', tls.keyFile),
    ];
    const child = spawn('etcd', args.flat(), { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      let said = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said = `${said}${text}`.slice(-20_000);
        if (/ready to serve client requests|serving (insecure )?client/.test(said)) resolve();
      });
      child.once('exit', (code) => reject(new Error(`etcd ended with ${code}: ${said}`)));
      child.once('error', reject);
    });
  }

  /** Puts a value under a key, beside any register. */
  async put(key: string, value: string): Promise<void> {
    const base64 = (text: string) => Buffer.from(text).toString('base64');
    const body = JSON.stringify({ key: base64(key), value: base64(value) });
    const answer = await fetch(`${this.endpoint}/v3/kv/put`, { method: 'POST', body });
    if (!answer.ok) throw new Error(`put: ${answer.status}`);
  }

  async #end(): Promise<void> {
    await Promise.all(this.#registers.map((register) => register.close()));
    await this.down();
    rmSync(this.folder, { recursive: true });
  }
}
