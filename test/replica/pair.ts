/**
 * Two engines that replicate one directory over 127.0.0.1, and more for distant copies of it, each
 * in a mount namespace of its own, for tests that do it hundreds of times: certificates and
 * namespaces are made once.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeCa, makeRequest, signRequest } from '../../src/api/pki.ts';
import { builtFile } from '../../src/native/load.ts';
import {
  type ReplicaAnswer,
  ReplicaClient,
  type ReplicaStatus,
  replicaProgram,
  startReplica,
} from '../../src/native/replica.ts';

/** The program with the tests' native parts. */
export const tool = builtFile('replica_tool');

/** The engine; HOLDFAST_REPLICA_PROGRAM: another build of it, with sanitizers, say. */
const program = process.env['HOLDFAST_REPLICA_PROGRAM'] ?? replicaProgram;
/** The engine with bugs that can be planted in it: names of native/replica/faults.h. */
export const faultyProgram = builtFile('holdfast-replica-faulty');

/** Why these tests cannot run here; false when they can. */
export const cannotRun: string | false =
  process.getuid?.() !== 0
    ? 'mounting needs root'
    : !existsSync('/dev/fuse')
      ? 'there is no /dev/fuse'
      : !existsSync(replicaProgram) || !existsSync(tool)
        ? 'holdfast-replica and replica_tool are not built'
        : false;

export interface Ended {
  readonly code: number | null;
  readonly out: string;
}

/** Runs a program to its end; what it says on both outputs together. */
export function run(file: string, args: readonly string[]): Promise<Ended> {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (out += text));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, out }));
  });
}

/** Asks until it is so; rejects after `ms`. */
export async function until(what: string, met: () => Promise<boolean>, ms = 20_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await met())) {
    if (performance.now() > end) throw new Error(`it did not come to: ${what}`);
    await delay(5);
  }
}

/** A mount namespace that lasts until `end`. */
export class Namespace {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async make(): Promise<Namespace> {
    // cat ends with its input, also when this process is killed.
    const args = ['-m', '--propagation', 'private', 'sh', '-c', 'echo; exec cat'];
    const child = spawn('unshare', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    await new Promise((done) => child.stdout.once('data', done));
    return new Namespace(child);
  }

  /** What comes before a command that is to run in it. */
  get enter(): readonly string[] {
    return ['nsenter', '-t', String(this.#child.pid), '-m', '--'];
  }

  /** A path in it, as this process sees it. */
  seen(path: string): string {
    return `/proc/${this.#child.pid}/root${path}`;
  }

  end(): void {
    this.#child.stdin?.end();
  }
}

export type Options = Readonly<Record<string, string | number | readonly string[]>>;

export interface ReplicaEvent {
  readonly name: string;
  readonly values: ReplicaAnswer;
}

export class Side {
  readonly name: string;
  /** Its number in the cluster. */
  readonly node: number;
  /** The directory itself; what the engine mounts over it is seen in its namespace alone. */
  readonly dir: string;
  readonly state: string;
  readonly space: Namespace;
  /** What the engine has said of itself since the test began. */
  readonly events: ReplicaEvent[] = [];
  readonly #folder: string;
  readonly #control: string;
  readonly #fault: string | null;
  #client: ReplicaClient | null = null;
  #pids: { readonly worker: number; readonly holder: number } | null = null;
  #paused = false;

  /** `base`: where directory and state folder are to be, when not in `folder`. */
  constructor(
    name: string,
    node: number,
    folder: string,
    space: Namespace,
    fault: string | null,
    base: string = folder,
  ) {
    this.name = name;
    this.node = node;
    this.space = space;
    this.dir = join(base, name);
    this.state = join(base, `${name}.state`);
    this.#folder = folder;
    this.#control = join(folder, `${name}.sock`);
    this.#fault = fault;
  }

  get log(): string {
    return join(this.#folder, `${this.name}.log`);
  }

  /** The directory with what the engine mounts over it, as this process sees it. */
  get seen(): string {
    return this.space.seen(this.dir);
  }

  async launch(): Promise<void> {
    await mkdir(this.seen, { recursive: true });
    await startReplica({
      control: this.#control,
      name: this.name,
      log: this.log,
      ...(this.#fault === null
        ? { before: this.space.enter, program }
        : {
            before: [...this.space.enter, 'env', `HOLDFAST_FAULTS=${this.#fault}`],
            program: faultyProgram,
          }),
    });
  }

  async client(): Promise<ReplicaClient> {
    this.#client ??= await ReplicaClient.connect(this.#control, {
      name: this.name,
      onEvent: (name, values) => void this.events.push({ name, values }),
      onClosed: () => (this.#client = null),
    });
    return this.#client;
  }

  /** One request, on a new connection where the old one ended with its worker. */
  async request(verb: string, values: Options = {}): Promise<void> {
    await (await this.client()).request(verb, values);
  }

  async status(): Promise<ReplicaStatus> {
    const status = await (await this.client()).status();
    this.#pids = { worker: status.worker, holder: status.holder };
    return status;
  }

  async open(common: Options, values: Options): Promise<void> {
    await this.request('open', {
      ...common,
      node: this.node,
      state: this.state,
      dir: this.dir,
      ...values,
    });
    await this.status();
  }

  /** kill -9 of one process; the other starts it again. */
  async kill(which: 'worker' | 'holder'): Promise<void> {
    const before = await this.status();
    process.kill(before[which], 'SIGKILL');
    await until(`${this.name} has another ${which}`, async () => {
      const now = await this.status().catch(() => null);
      return now !== null && now[which] !== before[which] && now.phase !== 'resuming';
    });
  }

  /**
   * kill -9 of both at once: a server that loses power, but for what its kernel holds. `between`:
   * done when both stand still.
   */
  async killAll(between: () => Promise<void> = async () => undefined): Promise<void> {
    // Whoever stands still answers nobody.
    this.goOn();
    for (;;) {
      // The worker may have been replaced since it was last asked.
      await this.status().catch(() => null);
      const pids = this.#pids;
      if (pids === null) throw new Error(`${this.name} was never asked for its processes`);
      const both = [pids.holder, pids.worker];
      signalAll(both, 'SIGSTOP');
      await until(`${this.name} stands still`, async () => both.every((pid) => !runs(pid)));
      await between();
      signalAll(both, 'SIGKILL');
      await until(`${this.name} is dead`, async () => both.every((pid) => !alive(pid)));
      this.#client?.close();
      this.#client = null;
      const left = await ReplicaClient.connect(this.#control).catch(() => null);
      left?.close();
      if (left === null) return;
    }
  }

  /** Both stand still until `goOn`: they read nothing and answer nothing, and no connection ends. */
  async pause(): Promise<void> {
    const { worker, holder } = await this.status();
    signalAll([holder, worker], 'SIGSTOP');
    this.#paused = true;
    await until(`${this.name} stands still`, async () => this.standsStill);
  }

  get standsStill(): boolean {
    const pids = this.#pids;
    return pids !== null && !runs(pids.worker) && !runs(pids.holder);
  }

  goOn(): void {
    const pids = this.#pids;
    if (!this.#paused || pids === null) return;
    this.#paused = false;
    signalAll([pids.holder, pids.worker], 'SIGCONT');
  }

  async quit(): Promise<void> {
    const pids = this.#pids;
    await this.request('quit').catch(() => undefined);
    this.#client?.close();
    this.#client = null;
    if (pids === null) return;
    await until(`${this.name} is gone`, async () => !alive(pids.worker) && !alive(pids.holder));
  }

  /** Takes away what a killed engine left mounted. */
  async unmount(): Promise<void> {
    const [file = '', ...args] = this.space.enter;
    const again = `while umount -l ${this.dir} 2>/dev/null; do :; done`;
    await run(file, [...args, 'sh', '-c', again]);
  }
}

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // It was killed before.
    }
  }
}

/** False when all its threads are stopped or it is dead. */
function runs(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some((thread) => {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1');
      return !/\) [TtZX] /.test(stat);
    });
  } catch {
    return alive(pid);
  }
}

/** True while it runs; what is dead and not waited for does not. */
export function alive(pid: number): boolean {
  try {
    // Field 3, behind the name in brackets.
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !/\) [ZX] /.test(stat);
  } catch {
    return false;
  }
}

/** What all pairs of a test share. */
export class Ground {
  readonly folder: string;
  /** Of both servers of a pair; of distant copies, `space`. */
  readonly spaces: readonly [Namespace, Namespace];
  readonly #more: Namespace[] = [];
  #count = 0;

  private constructor(folder: string, spaces: readonly [Namespace, Namespace]) {
    this.folder = folder;
    this.spaces = spaces;
  }

  /** The namespace of the `index`th distant copy, from 0 on. */
  async space(index: number): Promise<Namespace> {
    for (;;) {
      const found = this.#more[index];
      if (found !== undefined) return found;
      this.#more.push(await Namespace.make());
    }
  }

  static async make(): Promise<Ground> {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-pair-'));
    const ca = await makeCa('test');
    const { key, request } = await makeRequest('server');
    const cert = await signRequest(ca, request, 'server', ['127.0.0.1']);
    await writeFile(join(folder, 'ca.pem'), ca.cert);
    await writeFile(join(folder, 'cert.pem'), cert);
    await writeFile(join(folder, 'key.pem'), key, { mode: 0o600 });
    return new Ground(folder, [await Namespace.make(), await Namespace.make()]);
  }

  /** A new folder in it. */
  async place(): Promise<string> {
    this.#count += 1;
    const folder = join(this.folder, String(this.#count));
    await mkdir(folder);
    return folder;
  }

  /** `fault`: the name of a bug that is planted on both sides. */
  async pair(fault: string | null = null): Promise<Pair> {
    return new Pair(this, await this.place(), await freePort(), fault);
  }

  /** The same, with directories and state folders elsewhere. */
  async pairOn(
    folder: string,
    bases: readonly [string, string],
    fault: string | null = null,
  ): Promise<Pair> {
    return new Pair(this, folder, await freePort(), fault, bases);
  }

  async end(): Promise<void> {
    for (const space of [...this.spaces, ...this.#more]) space.end();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A port of 127.0.0.1 that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  await new Promise((done) => server.close(done));
  return typeof address === 'object' ? (address?.port ?? 0) : 0;
}

export class Pair {
  readonly folder: string;
  readonly a: Side;
  readonly b: Side;
  readonly #common: Options;
  readonly #port: number;
  readonly #fault: string | null;
  readonly #others: Side[] = [];

  /** `bases`: where each side has its directory and its state folder, when not in `folder`. */
  constructor(
    ground: Ground,
    folder: string,
    port: number,
    fault: string | null,
    bases: readonly [string, string] = [folder, folder],
  ) {
    this.folder = folder;
    this.#port = port;
    this.#fault = fault;
    this.a = new Side('a', 1, folder, ground.spaces[0], fault, bases[0]);
    this.b = new Side('b', 2, folder, ground.spaces[1], fault, bases[1]);
    this.#common = {
      set: randomBytes(16).toString('hex'),
      epoch: 1,
      cert: join(ground.folder, 'cert.pem'),
      key: join(ground.folder, 'key.pem'),
      ca: join(ground.folder, 'ca.pem'),
      ring: 8 << 20,
      journal: 16 << 20,
    };
  }

  get sides(): readonly Side[] {
    return [this.a, this.b, ...this.#others];
  }

  /** One more server of the mirror, taken away with the pair. */
  add(name: string, space: Namespace, base: string): Side {
    const side = new Side(name, this.sides.length + 1, this.folder, space, this.#fault, base);
    this.#others.push(side);
    return side;
  }

  /** Both engines, a the primary and b the secondary. */
  async start(values: Options = {}): Promise<void> {
    await Promise.all([this.a.launch(), this.b.launch()]);
    await this.openSecond(values);
    await this.openPrim(values);
  }

  /** Where the secondary of the two listens. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  openPrim(values: Options = {}, side: Side = this.a): Promise<void> {
    return side.open(this.#common, { role: 'prim', peer: this.address, ...values });
  }

  openSecond(values: Options = {}, side: Side = this.b): Promise<void> {
    return side.open(this.#common, { role: 'second', listen: this.address, ...values });
  }

  /** Takes everything away, however it is. Rejects when a sanitizer had something to say. */
  async end(): Promise<void> {
    let said = '';
    for (const side of this.sides) {
      await side.killAll().catch(() => undefined);
      await side.unmount();
      said += await readFile(side.log, 'utf8').catch(() => '');
    }
    await rm(this.folder, { recursive: true, force: true });
    if (/Sanitizer|runtime error:/.test(said)) throw new Error(said);
  }
}
