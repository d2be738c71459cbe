/**
 * Two servers that are apart and come back: either may be the primary, each may have a disk of its
 * own, and rounds of random operations follow one another on whoever is the primary. Whoever it is,
 * it has the same distant copies.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Disk, runIn } from './disk.ts';
import { Distant } from './distant.ts';
import {
  freePort,
  type Ground,
  type Options,
  type Pair,
  type ReplicaEvent,
  run,
  type Side,
  tool,
  until,
} from './pair.ts';

/** One history: it begins with what is there and ends when it is told, or with its directory. */
export class Round {
  readonly log: string;
  /** The directory as it was when the round began; null: empty. */
  readonly base: string | null;
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  out = '';

  constructor(side: Side, log: string, base: string | null, seed: number) {
    this.log = log;
    this.base = base;
    const [file = '', ...args] = side.space.enter;
    const history = [tool, 'history', side.dir, '--log', log, '--seed', String(seed)];
    const more = ['--seconds', '3600', '--threads', '3', '--on', base === null ? '0' : '1'];
    const child = spawn(file, [...args, ...history, ...more], { cwd: '/' });
    this.#child = child;
    child.stdout.setEncoding('utf8').on('data', (text: string) => (this.out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (this.out += text));
    this.#ended = new Promise((done) => child.once('close', done));
  }

  async ready(): Promise<void> {
    const ended = this.#ended.then(() => true);
    while (!this.out.includes('ready\n')) {
      if (await Promise.race([ended, delay(2, false)])) {
        throw new Error(`the history ended at once: ${this.out}`);
      }
    }
  }

  /** Ends it; rejects when an operation had an error. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    if ((await this.#ended) !== 0) throw new Error(`the application got an error: ${this.out}`);
  }

  /** The same where its server died: errors are to be expected. */
  async died(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

export interface DuoOptions {
  /** A disk of so many MiB for each server, or for one of them; 0: none. */
  readonly disksMib?: readonly [number, number];
  /** What every `open` says too. */
  readonly open?: Options;
  /** The name of a planted bug. */
  readonly fault?: string;
  /** How many distant copies there are; each may have a disk of so many MiB. */
  readonly distant?: number;
  readonly distantMib?: number;
  /** The primary reaches them through relays. */
  readonly relayed?: boolean;
}

export class Duo {
  readonly pair: Pair;
  prim: Side;
  second: Side;
  epoch = 1;
  round: Round | null = null;
  readonly #distant: Distant[] = [];
  readonly #disks: Map<Side, Disk>;
  readonly #open: Options;
  #rounds = 0;
  #copies = 0;

  private constructor(pair: Pair, disks: Map<Side, Disk>, open: Options) {
    this.pair = pair;
    this.prim = pair.a;
    this.second = pair.b;
    this.#disks = disks;
    this.#open = open;
  }

  /** Nothing is launched yet. */
  static async make(ground: Ground, options: DuoOptions = {}): Promise<Duo> {
    const folder = await ground.place();
    const made = new Map<number, Disk>();
    const bases: [string, string] = [folder, folder];
    for (const [i, mib] of (options.disksMib ?? []).entries()) {
      const space = ground.spaces[i as 0 | 1];
      if (mib === 0) continue;
      const disk = await Disk.make(join(folder, `disk${i}`), space, mib);
      made.set(i, disk);
      bases[i as 0 | 1] = disk.path;
    }
    const pair = await ground.pairOn(folder, bases, options.fault ?? null);
    const disks = new Map([...made].map(([i, disk]) => [i === 0 ? pair.a : pair.b, disk]));
    const duo = new Duo(pair, disks, options.open ?? {});
    for (let i = 0; i < (options.distant ?? 0); i++) {
      duo.#distant.push(await duo.#makeDistant(ground, i, options));
    }
    return duo;
  }

  /** All launched and in sync; a the primary. */
  static async start(ground: Ground, options: DuoOptions = {}): Promise<Duo> {
    const duo = await Duo.make(ground, options);
    try {
      await Promise.all([duo.prim.launch(), duo.second.launch()]);
      await duo.openSecond();
      await Promise.all(duo.distant.map((copy) => copy.returns()));
      await duo.openPrim();
      await duo.inSync();
      for (const copy of duo.distant) await copy.inSync();
    } catch (error) {
      await duo.end();
      throw error;
    }
    return duo;
  }

  /** In the order in which the primary knows them. */
  get distant(): readonly Distant[] {
    return this.#distant;
  }

  async #makeDistant(ground: Ground, index: number, options: DuoOptions): Promise<Distant> {
    const { folder } = this.pair;
    const space = await ground.space(index);
    const mib = options.distantMib ?? 0;
    const disk =
      mib === 0 ? null : await Disk.make(join(folder, `distant-disk${index}`), space, mib);
    const side = this.pair.add(`d${index}`, space, disk?.path ?? folder);
    if (disk !== null) this.#disks.set(side, disk);
    return await Distant.make(this, index, side, await freePort(), options.relayed ?? false);
  }

  disk(side: Side): Disk {
    const disk = this.#disks.get(side);
    if (disk === undefined) throw new Error(`${side.name} has no disk of its own`);
    return disk;
  }

  openPrim(values: Options = {}): Promise<void> {
    const distant = this.distant.map(({ address }) => address);
    const open = { ...this.#open, distant, ...values, epoch: this.epoch };
    return this.pair.openPrim(open, this.prim);
  }

  openSecond(values: Options = {}): Promise<void> {
    return this.openCopy(this.second, values);
  }

  /** Any server as a secondary; where a pair's has its address, unless `listen` says otherwise. */
  openCopy(side: Side, values: Options): Promise<void> {
    return this.pair.openSecond({ ...this.#open, ...values, epoch: this.epoch }, side);
  }

  /** A server becomes the primary by force, and alone; where it looks for a secondary is nobody. */
  async openForced(side: Side, values: Options = {}): Promise<void> {
    const peer = `127.0.0.1:${await freePort()}`;
    this.epoch += 2;
    const open = { ...this.#open, peer, ...values, epoch: this.epoch - 1, force: 1 };
    await this.pair.openPrim(open, side);
    await side.request('alone', { epoch: this.epoch });
  }

  /** A second that is not running comes back. */
  async secondReturns(values: Options = {}): Promise<void> {
    await this.second.launch();
    await this.openSecond(values);
  }

  /** A primary that is not running comes back as the primary. */
  async primReturns(values: Options = {}): Promise<void> {
    this.epoch += 1;
    await this.prim.launch();
    await this.openPrim(values);
  }

  async alone(): Promise<void> {
    this.epoch += 1;
    await this.prim.request('alone', { epoch: this.epoch });
  }

  /** The primary stopped in order and opened again: what it has made so far is nothing new. */
  async primAgain(): Promise<void> {
    await this.prim.request('close');
    this.epoch += 1;
    await this.openPrim();
    await this.inSync();
  }

  /** The second, closed in order, is the primary, and alone. */
  async takeOver(values: Options = {}): Promise<void> {
    await this.second.request('close');
    [this.prim, this.second] = [this.second, this.prim];
    this.epoch += 1;
    await this.openPrim(values);
    await this.alone();
  }

  /** Both closed in order, and opened the other way round. */
  async switchOver(): Promise<void> {
    await this.prim.request('close');
    await this.second.request('close');
    [this.prim, this.second] = [this.second, this.prim];
    this.epoch += 1;
    await this.openSecond();
    await this.openPrim();
    await this.inSync();
  }

  /** kill -9 of both processes; `pull`: what is not on its disk is lost as well. */
  async crash(side: Side, how: 'kill' | 'pull' = 'kill'): Promise<void> {
    let pulled = how === 'kill';
    await side.killAll(async () => {
      if (!pulled) await this.disk(side).pull();
      pulled = true;
    });
    if (side === this.prim) await this.roundDied();
    await side.unmount();
    if (how === 'pull') await this.disk(side).again();
  }

  async quitAll(): Promise<void> {
    for (const side of [this.prim, this.second]) await side.quit();
  }

  // ── rounds ────────────────────────────────────────────────────────────────────────────────────

  /** Random operations on the primary from here on. */
  async begin(seed: number): Promise<void> {
    this.#rounds += 1;
    const base = this.#rounds === 1 ? null : await this.copy(this.prim);
    this.round = new Round(this.prim, this.#path(`history${this.#rounds}.log`), base, seed);
    await this.round.ready();
  }

  async roundDied(): Promise<void> {
    await this.round?.died();
  }

  /** The round is over without an error, all servers have the same, and it is what was written. */
  async finish(): Promise<void> {
    await this.round?.stop();
    await this.settled();
    await this.assertEqual();
    await this.check(this.prim, 'all');
    for (const copy of this.distant) await copy.isEqual();
  }

  /** What a server has is a prefix of the round's history with all that must be there. */
  async check(side: Side, least: 'all' | 'fsync' | 'none'): Promise<void> {
    const { round } = this;
    if (round === null) return;
    const base = round.base === null ? [] : ['--base', round.base];
    const { code, out } = await run(tool, [
      ...['check-prefix', round.log, side.seen, '--least', least],
      ...base,
    ]);
    if (code !== 0) throw new Error(`${side.name}: ${out}`);
  }

  /** A copy of what a server has in its directory: a folder beside. */
  async copy(side: Side): Promise<string> {
    this.#copies += 1;
    const to = this.#path(`copy${this.#copies}`);
    await run('mkdir', [to]);
    const { code, out } = await run('cp', ['-a', `${side.seen}/.`, to]);
    if (code !== 0) throw new Error(out);
    return to;
  }

  #path(name: string): string {
    return join(this.pair.folder, name);
  }

  // ── what is so ────────────────────────────────────────────────────────────────────────────────

  async inSync(ms = 60_000): Promise<void> {
    let shown = '';
    const met = async (): Promise<boolean> => {
      const [prim, second] = [await this.prim.status(), await this.second.status()];
      shown = JSON.stringify([prim.all, second.all]);
      const there = prim.peer === 'connected' && prim.all['insync'] === '1';
      return there && second.all['state'] === 'in_sync';
    };
    await until('both in sync', () => met().catch(() => false), ms).catch(() => {
      const said = [this.prim, this.second].map(({ events }) => JSON.stringify(events.slice(-12)));
      throw new Error(`not in sync: ${shown}\n${said.join('\n')}`);
    });
  }

  /** The second has applied all that the primary has. */
  async settled(): Promise<void> {
    await until('the second has applied everything', async () => {
      const { last } = await this.prim.status();
      return (await this.second.status()).applied === last;
    });
  }

  /** The trees are equal, but for what is the engine's own. */
  async assertEqual(left = this.prim.seen, right = this.second.seen): Promise<void> {
    const { code, out } = await run(tool, ['compare', left, right]);
    if (code !== 0) throw new Error(`the trees differ: ${out}`);
  }

  /** Waits until a server has said it, after the `from`th event; its values. */
  async heard(
    side: Side,
    name: string,
    values: Readonly<Record<string, string>> = {},
    from = 0,
  ): Promise<Readonly<Record<string, string>>> {
    const fits = (event: ReplicaEvent): boolean =>
      event.name === name &&
      Object.entries(values).every(([key, value]) => event.values[key] === value);
    const find = () => side.events.slice(from).find(fits);
    await until(`${side.name} says ${name} ${JSON.stringify(values)}`, async () => {
      if (find() !== undefined) return true;
      await side.client().catch(() => null);
      return false;
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}; it said ${JSON.stringify(side.events.slice(from))}`);
    });
    return find()?.values ?? {};
  }

  /** A figure of the status. */
  async figure(side: Side, key: string): Promise<number> {
    return Number((await side.status()).all[key] ?? Number.NaN);
  }

  /** Runs a shell line in a server's namespace, in its directory. */
  sh(side: Side, line: string): Promise<string> {
    return runIn(side.space, 'sh', ['-ec', `cd ${side.dir}; ${line}`]);
  }

  async end(): Promise<void> {
    await this.roundDied();
    for (const copy of this.distant) copy.relay?.end();
    for (const side of this.pair.sides) {
      await side.killAll().catch(() => undefined);
      await side.unmount();
    }
    for (const disk of this.#disks.values()) await disk.unmount();
    await this.pair.end();
    await rm(this.pair.folder, { recursive: true, force: true });
  }
}
