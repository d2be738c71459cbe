import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { makeCa, makeRequest, signRequest } from '../../src/api/pki.ts';
import type { Register } from '../../src/arbiter/register.ts';
import { WitnessRegister } from '../../src/arbiter/witness.ts';
import { builtFile } from '../../src/native/load.ts';
import type { World } from './contract.ts';

export interface KeyFiles {
  readonly cert: string;
  readonly key: string;
  readonly caCert: string;
}

/** A cluster as a witness sees it: an id and an authority. */
export interface Authority {
  readonly clusterId: string;
  readonly ca: { readonly cert: string; readonly key: string };
}

/** The authority of a new cluster. */
export async function makeAuthority(clusterId: string): Promise<Authority> {
  return { clusterId, ca: await makeCa(clusterId) };
}

/** Files of a certificate of that authority, in a new folder. */
export async function writeKeyFiles(
  folder: string,
  { ca }: Authority,
  name: string,
  role: 'node' | 'witness',
): Promise<KeyFiles> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { key, request } = await makeRequest(name, role);
  const files = {
    cert: join(folder, `${role}.crt`),
    key: join(folder, `${role}.key`),
    caCert: join(folder, 'ca.crt'),
  };
  writeFileSync(files.key, key, { mode: 0o600 });
  writeFileSync(files.caCert, ca.cert);
  writeFileSync(files.cert, await signRequest(ca, request, name, ['127.0.0.1'], role));
  return files;
}

export const clusterId = '00112233aabbccdd';
let shared: Promise<Authority> | null = null;

/** holdfast-witness in a folder of its own, serving one cluster. */
export class WitnessWorld implements World {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-witness-'));
  readonly state = join(this.folder, 'state');
  port = 0;
  readonly #registers: Register[] = [];
  #files: readonly KeyFiles[] = [];
  #child: ChildProcess | null = null;

  static async make(t: TestContext): Promise<WitnessWorld> {
    const world = new WitnessWorld();
    t.after(() => world.#end());
    shared ??= makeAuthority(clusterId);
    const authority = await shared;
    mkdirSync(world.state, { mode: 0o700 });
    await writeKeyFiles(join(world.state, clusterId), authority, 'w1', 'witness');
    world.#files = await Promise.all(
      ['a', 'b'].map((name) => writeKeyFiles(join(world.folder, name), authority, name, 'node')),
    );
    await world.up();
    return world;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  filesOf(node: number): KeyFiles {
    const files = this.#files[node];
    if (files === undefined) throw new Error(`no node ${node}`);
    return files;
  }

  open(node: number, timeLimitMs = 20_000): Register {
    return this.client({ keyFiles: this.filesOf(node), timeLimitMs });
  }

  client(
    options: Partial<ConstructorParameters<typeof WitnessRegister>[0]> & {
      readonly keyFiles: KeyFiles;
    },
  ): Register {
    const register = new WitnessRegister({
      name: 'w1',
      addr: '127.0.0.1',
      port: this.port,
      clusterId,
      timeLimitMs: 20_000,
      ...options,
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
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  async up(): Promise<void> {
    const { child, port } = await startWitness(this.state, this.port);
    this.#child = child;
    this.port = port;
  }

  async #end(): Promise<void> {
    await Promise.all(this.#registers.map((register) => register.close()));
    await this.down();
    rmSync(this.folder, { recursive: true });
  }
}

/** Starts the program; resolves when it listens. Port 0: any. Rejects with what it said. */
export async function startWitness(
  state: string,
  port = 0,
): Promise<{ readonly child: ChildProcess; readonly port: number; readonly said: () => string }> {
  const child = spawn(
    builtFile('holdfast-witness'),
    ['--state', state, '--listen', `127.0.0.1:${port}`],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const found = await new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding('utf8').once('data', resolve);
    child.once('close', (code) => reject(new Error(`it ended with ${code}: ${said}`)));
    child.once('error', reject);
  });
  const listens = Number(/port (\d+)/.exec(found)?.[1]);
  return { child, port: listens, said: () => said };
}
