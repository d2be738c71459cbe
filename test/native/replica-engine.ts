/** Engines of the replica tests: real processes, each in a mount namespace of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  readlink,
  rm,
  writeFile,
  lstat,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { makeCa, makeRequest, signRequest } from '../../src/api/pki.ts';
import { repoRoot } from '../../src/lab/tool.ts';
import {
  ReplicaClient,
  type ReplicaAnswer,
  type ReplicaStatus,
  replicaProgram,
  startReplica,
} from '../../src/native/replica.ts';

/** HOLDFAST_REPLICA names another executable: one with sanitizers. */
const program = process.env['HOLDFAST_REPLICA'] ?? replicaProgram;

/** Why these tests cannot run here; false when they can. */
export const cannotRun: string | false =
  process.getuid?.() !== 0
    ? 'mounting needs root'
    : !existsSync('/dev/fuse')
      ? 'there is no /dev/fuse'
      : !existsSync(program)
        ? 'holdfast-replica is not built'
        : false;

export interface World {
  readonly folder: string;
  readonly set: string;
  readonly port: number;
  readonly engines: Engine[];
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  await new Promise((done) => server.close(done));
  return typeof address === 'object' ? (address?.port ?? 0) : 0;
}

/** A folder, certificates and names for one test. */
export async function makeWorld(): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-replica-'));
  const ca = await makeCa('test');
  const { key, request } = await makeRequest('server');
  const cert = await signRequest(ca, request, 'server', ['127.0.0.1']);
  await writeFile(join(folder, 'ca.pem'), ca.cert);
  await writeFile(join(folder, 'cert.pem'), cert);
  await writeFile(join(folder, 'key.pem'), key, { mode: 0o600 });
  const port = await freePort();
  return { folder, set: randomBytes(16).toString('hex'), port, engines: [] };
}

/** Ends everything that the test started. */
export async function endWorld(world: World): Promise<void> {
  for (const engine of world.engines) await engine.end();
  await rm(world.folder, { recursive: true, force: true });
}

export async function until(what: string, met: () => Promise<boolean>, ms = 20_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await met())) {
    if (performance.now() > end) throw new Error(`it did not come to: ${what}`);
    await delay(10);
  }
}

export class Engine {
  readonly world: World;
  readonly name: string;
  /** The directory as the engine names it, and as this process reaches it. */
  readonly dir: string;
  readonly seen: string;
  readonly state: string;
  readonly events: { name: string; values: ReplicaAnswer }[] = [];
  readonly #namespace: ChildProcess;
  readonly #control: string;
  #client: ReplicaClient | null = null;

  private constructor(world: World, name: string, namespace: ChildProcess) {
    this.world = world;
    this.name = name;
    this.#namespace = namespace;
    this.dir = join(world.folder, name, 'dir');
    this.seen = `/proc/${namespace.pid}/root${this.dir}`;
    this.state = join(world.folder, name, 'state');
    this.#control = join(world.folder, `${name}.sock`);
  }

  static async start(world: World, name: string): Promise<Engine> {
    // The namespace lives as long as this process: cat ends with its input.
    const args = ['-m', '--propagation', 'private', 'sh', '-c', 'echo; exec cat'];
    const namespace = spawn('unshare', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    await new Promise((done) => namespace.stdout.once('data', done));
    const engine = new Engine(world, name, namespace);
    world.engines.push(engine);
    await mkdir(engine.dir, { recursive: true });
    await engine.launch();
    return engine;
  }

  /** Starts holder and worker. */
  async launch(): Promise<void> {
    const before = ['nsenter', '-t', String(this.#namespace.pid), '-m', '--'];
    const log = join(this.world.folder, `${this.name}.log`);
    await startReplica({ control: this.#control, name: this.name, log, before, program });
    await this.connect();
  }

  /** A connection that watches; after the worker died, one to its successor. */
  async connect(): Promise<ReplicaClient> {
    this.#client?.close();
    this.#client = await ReplicaClient.connect(this.#control, {
      name: this.name,
      onEvent: (name, values) => this.events.push({ name, values }),
    });
    return this.#client;
  }

  async request(
    verb: string,
    values: Record<string, string | number> = {},
  ): Promise<ReplicaAnswer> {
    return await (this.#client ?? (await this.connect())).request(verb, values);
  }

  async status(): Promise<ReplicaStatus> {
    return await (this.#client ?? (await this.connect())).status();
  }

  /** `open`, with what is the same for all roles filled in. */
  async open(values: Record<string, string | number>): Promise<void> {
    const { folder, set, port } = this.world;
    const address = `127.0.0.1:${port}`;
    const role = values['role'];
    await this.request('open', {
      set,
      node: this.name === 'a' ? 1 : 2,
      epoch: 1,
      state: this.state,
      dir: this.dir,
      cert: join(folder, 'cert.pem'),
      key: join(folder, 'key.pem'),
      ca: join(folder, 'ca.pem'),
      ring: 8 << 20,
      journal: 32 << 20,
      ...(role === 'prim' ? { peer: address } : {}),
      ...(role === 'second' ? { listen: address } : {}),
      ...values,
    });
  }

  /** kill -9, and a connection to the one that follows. */
  async killWorker(): Promise<void> {
    const { worker } = await this.status();
    process.kill(worker, 'SIGKILL');
    await until(`${this.name} has another worker`, async () => {
      await this.connect();
      const now = await this.status().catch(() => null);
      return now !== null && now.worker !== worker && now.phase !== 'resuming';
    });
  }

  async killHolder(): Promise<void> {
    const { holder } = await this.status();
    process.kill(holder, 'SIGKILL');
    await until(`${this.name} has another holder`, async () => {
      const now = await this.status();
      return now.holder !== holder;
    });
  }

  /** As when the machine goes down, as far as the engine knows. */
  async killBoth(): Promise<void> {
    const { holder, worker } = await this.status();
    // Stopped first: neither may start the other again in between.
    for (const signal of ['SIGSTOP', 'SIGKILL'] as const) {
      for (const pid of [holder, worker]) process.kill(pid, signal);
    }
    await until('both are gone', async () => !alive(holder) && !alive(worker));
  }

  /** Runs a command in the engine's namespace; rejects unless it ends with 0. */
  async run(command: string): Promise<string> {
    const args = ['-t', String(this.#namespace.pid), '-m', '--', 'sh', '-c', command];
    const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' });
    let out = '';
    child.stdout.on('data', (text) => (out += String(text)));
    child.stderr.on('data', (text) => (out += String(text)));
    const code = await new Promise((done) => child.once('close', done));
    if (code !== 0) throw new Error(`${command}: ${String(code)}: ${out}`);
    return out;
  }

  /** A process that writes and syncs until `stop`. */
  async writer(file: string): Promise<Writer> {
    const script = join(repoRoot, 'dist/test/native/replica-writer.js');
    const args = ['-t', String(this.#namespace.pid), '-m', '--', process.execPath, script];
    const child = spawn('nsenter', [...args, join(this.dir, file)], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: '/',
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    await lines.next();
    return {
      stop: async () => {
        child.stdin.end();
        const { value } = (await lines.next()) as { value: string };
        return JSON.parse(value) as WriterResult;
      },
    };
  }

  /** Ends both processes, however they are, and what they mounted with the namespace. */
  async end(): Promise<void> {
    if (existsSync(this.#control)) {
      const client = await this.connect().catch(() => null);
      const pids = client === null ? null : await client.status().catch(() => null);
      await client?.request('quit').catch(() => undefined);
      client?.close();
      if (pids !== null) await until(`${this.name} is gone`, async () => !alive(pids.worker));
    }
    this.#namespace.stdin?.end();
  }
}

export interface WriterResult {
  readonly rounds: number;
  readonly error: string | null;
}

export interface Writer {
  stop(): Promise<WriterResult>;
}

export function alive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

/** Every name below a folder, with type, mode, size and content. */
export async function treeOf(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const walk = async (path: string): Promise<void> => {
    const all = await readdir(join(folder, path));
    const names = all.filter((name) => name !== 'lost+found' && name !== '.holdfast-copy');
    for (const name of names.sort()) {
      const at = path === '' ? name : `${path}/${name}`;
      const full = join(folder, at);
      const { mode, nlink, size, mtimeMs } = await lstat(full);
      const kind = (mode & 0o170000).toString(8);
      const isFile = kind === '100000';
      let content = '';
      if (isFile) content = (await readFile(full)).toString('base64');
      if (kind === '120000') content = await readlink(full);
      const head = `${mode.toString(8)} ${isFile ? `${nlink} ${size}` : ''} ${mtimeMs}`;
      found[at] = `${head} ${content}`;
      if (kind === '40000') await walk(at);
    }
  };
  await walk('');
  return found;
}

/** Resolves when the secondary has applied everything that the primary has. */
export async function settled(prim: Engine, second: Engine): Promise<void> {
  await until('the secondary has applied everything', async () => {
    const [here, there] = [await prim.status(), await second.status()];
    return here.peer === 'connected' && there.applied >= here.last;
  });
}
