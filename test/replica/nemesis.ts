/**
 * One long run: random operations on whoever is the primary, and a nemesis that picks what happens to
 * whom. After each step both are in sync again, nothing whose fsync returned is missing, and the
 * trees are equal; the application of a server that lives sees no error. Every other run has a
 * distant copy too, which may be away for several steps, and is equal whenever trees are compared.
 */
import { writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { Duo } from './duo.ts';
import { type Ground, run, type Side } from './pair.ts';
import { randomOf } from './prefix.ts';
import { closedAndEqual } from './rows.ts';

export interface NemesisOptions {
  readonly steps: number;
  /** The name of a planted bug. */
  readonly fault?: string;
  /** Distant copies; absent: by the seed. */
  readonly distant?: 0 | 1;
}

export interface NemesisResult {
  readonly seed: number;
  readonly steps: readonly string[];
  /** Null: all is as it must be. */
  readonly problem: string | null;
}

type Random = (limit: number) => number;

class Nemesis {
  readonly steps: string[] = [];
  readonly #duo: Duo;
  readonly #random: Random;
  #distantIs: 'there' | 'paused' | 'closed' | 'dead' = 'there';

  constructor(duo: Duo, random: Random) {
    this.#duo = duo;
    this.#random = random;
  }

  async begin(): Promise<void> {
    await this.#duo.begin(this.#random(1_000_000_000));
  }

  #wait(most: number): Promise<void> {
    return delay(this.#random(most));
  }

  #pick<T>(of: readonly T[]): T {
    const chosen = of[this.#random(of.length)];
    if (chosen === undefined) throw new Error('nothing to pick from');
    return chosen;
  }

  #say(what: string): void {
    this.steps.push(what);
  }

  /** What happens to a stream: a cut, a worker or a holder killed. */
  async #trouble(): Promise<void> {
    const duo = this.#duo;
    const side: Side = this.#pick([duo.prim, duo.second]);
    const what = this.#pick(['none', 'cut', 'cut', 'worker', 'worker', 'holder']);
    this.#say(what === 'none' ? 'nothing' : `${what} of ${side.name}`);
    if (what === 'cut') await side.request('cut', { ms: this.#random(300) });
    if (what === 'worker' || what === 'holder') await side.kill(what);
    await this.#wait(150);
  }

  /** Sometimes more than the ring holds, so that what is dirty must be known otherwise. */
  async #much(): Promise<void> {
    if (this.#random(2) === 0) return;
    const file = `bulk/f${this.#random(4)}`;
    const other = `bulk/f${this.#random(4)}`;
    const line = this.#pick([
      `head -c ${1 + this.#random(20)}M /dev/urandom >${file}`,
      `head -c 6M /dev/urandom >${file}; mv -T ${file} ${other}`,
      `rm -f ${file}; head -c 9M /dev/urandom >${file}; ln -f ${file} ${file}.link`,
      `rm -rf bulk/d; mkdir bulk/d; head -c 5M /dev/urandom >bulk/d/x; truncate -s 90M ${file}`,
      `mv -T bulk bulk2; mkdir bulk2/in; mv bulk2/in bulk; mv bulk2 bulk/old; rm -rf bulk/old`,
    ]);
    this.#say(line);
    // Two names of one file, or none: mv has its say, which does not matter here.
    await this.#duo.sh(this.#duo.prim, `mkdir -p bulk; (${line}) 2>/dev/null || true`);
  }

  /** What happens to the distant copy: nobody waits for it, so it may last. */
  async #distantTrouble(): Promise<void> {
    const [copy] = this.#duo.distant;
    if (copy === undefined) return;
    if (this.#distantIs !== 'there') {
      if (this.#random(2) === 0) await this.#distantBack();
      return;
    }
    const all = ['none', 'cut', 'worker', 'holder', 'pause', 'pause', 'close', 'kill', 'pull'];
    const what = this.#pick(all);
    if (what !== 'none') this.#say(`${what} of the distant copy`);
    if (what === 'cut') await copy.side.request('cut', { ms: this.#random(300) });
    if (what === 'worker' || what === 'holder') await copy.side.kill(what);
    if (what === 'pause') await copy.side.pause();
    if (what === 'close') await copy.close();
    if (what === 'kill' || what === 'pull') await copy.crash(what);
    if (what === 'pause') this.#distantIs = 'paused';
    if (what === 'close') this.#distantIs = 'closed';
    if (what === 'kill' || what === 'pull') this.#distantIs = 'dead';
  }

  async #distantBack(): Promise<void> {
    const [copy] = this.#duo.distant;
    if (copy === undefined || this.#distantIs === 'there') return;
    this.#say('the distant copy is back');
    if (this.#distantIs === 'paused') copy.side.goOn();
    if (this.#distantIs === 'closed') await copy.open();
    if (this.#distantIs === 'dead') await copy.returns();
    this.#distantIs = 'there';
  }

  /** See Duo.finish. */
  async finish(): Promise<void> {
    await this.#distantBack();
    await this.#duo.finish();
  }

  #how(): 'kill' | 'pull' {
    return this.#pick(['kill', 'pull']);
  }

  /** The second comes back to a primary, perhaps not at the first attempt. */
  async #rejoin(returns: () => Promise<void>): Promise<void> {
    await returns();
    for (let i = this.#random(3); i > 0; i--) {
      await this.#wait(60);
      if (this.#random(3) === 0) {
        const how = this.#how();
        this.#say(`${how} of the second in the resync`);
        await this.#duo.crash(this.#duo.second, how);
        await this.#wait(100);
        await this.#duo.secondReturns();
      } else {
        await this.#trouble();
      }
    }
    await this.#duo.inSync();
  }

  async #secondDies(): Promise<void> {
    const how = this.#how();
    this.#say(`${how} of the second`);
    await this.#duo.crash(this.#duo.second, how);
    if (this.#random(4) > 0) {
      this.#say('alone');
      await this.#duo.alone();
      await this.#much();
    }
    await this.#wait(500);
    await this.#rejoin(() => this.#duo.secondReturns());
  }

  async #secondLeaves(): Promise<void> {
    this.#say('the second stops');
    await this.#duo.second.request('close');
    await this.#wait(100);
    await this.#duo.alone();
    await this.#much();
    await this.#wait(500);
    await this.#rejoin(() => this.#duo.openSecond());
  }

  async #primDies(): Promise<void> {
    const duo = this.#duo;
    const how = this.#how();
    if (this.#random(2) === 0) {
      await duo.prim.request('cut', { ms: 60_000 });
      await this.#wait(60);
    }
    this.#say(`${how} of the primary`);
    await duo.crash(duo.prim, how);
    await duo.takeOver();
    await duo.check(duo.prim, 'fsync');
    await this.begin();
    await this.#much();
    await this.#wait(300);
    await this.#rejoin(() => duo.secondReturns());
  }

  async #bothDie(): Promise<void> {
    const duo = this.#duo;
    const how = this.#how();
    this.#say(`${how} of both`);
    await Promise.all([duo.crash(duo.prim, how), duo.crash(duo.second, how)]);
    // A directory that lost its power is no prefix: only the other's journal makes it one.
    if (how === 'kill' && this.#random(2) === 0) {
      this.#say('both back');
      await duo.primReturns();
      await duo.secondReturns();
      await duo.inSync();
      await duo.check(duo.prim, 'fsync');
      await this.begin();
      return;
    }
    await duo.secondReturns();
    await duo.takeOver();
    await duo.check(duo.prim, 'fsync');
    await this.begin();
    await this.#rejoin(() => duo.secondReturns());
  }

  async #sourceDies(): Promise<void> {
    const duo = this.#duo;
    this.#say('the second stops');
    await duo.second.request('close');
    const old = await duo.copy(duo.second);
    await duo.alone();
    await this.#much();
    await this.#wait(500);
    const said = duo.second.events.length;
    await duo.openSecond();
    await this.#wait(200);
    const returns = this.#random(2) === 0;
    this.#say('kill of the source');
    await duo.crash(duo.prim);
    if (returns) {
      await duo.primReturns();
      await duo.inSync();
      await duo.check(duo.prim, 'fsync');
      await this.begin();
      return;
    }
    const state = (await duo.second.status()).all['state'] ?? '';
    const since = duo.second.events.slice(said);
    const has = (name: string): boolean => since.some((event) => event.name === name);
    this.#say(`the target is ${state} and takes over`);
    // Whether it has everything is known to it only when it was told so since it came back.
    const isWhole = state === 'in_sync' && has('insync');
    await duo.takeOver(state === 'in_sync' ? {} : { force: 1 });
    if (isWhole) await duo.check(duo.prim, 'fsync');
    else if (state === 'inconsistent' || !has('resync')) await duo.assertEqual(old, duo.prim.seen);
    await this.begin();
    await this.#wait(200);
    // The operator has chosen: what the other acknowledged alone is given up.
    await this.#rejoin(() => duo.secondReturns(isWhole ? {} : { discard: 1 }));
  }

  async #switchOver(): Promise<void> {
    this.#say('switch over');
    await this.finish();
    await this.#duo.switchOver();
    await this.begin();
  }

  async step(): Promise<void> {
    await this.#wait(300);
    await this.#distantTrouble();
    const all: readonly (() => Promise<void>)[] = [
      () => this.#trouble(),
      () => this.#trouble(),
      () => this.#secondDies(),
      () => this.#secondDies(),
      () => this.#secondLeaves(),
      () => this.#primDies(),
      () => this.#primDies(),
      () => this.#bothDie(),
      () => this.#sourceDies(),
      () => this.#switchOver(),
    ];
    await this.#pick(all)();
    await this.#duo.inSync();
    if (this.#random(2) === 0) return;
    this.#say('compared');
    await this.finish();
    await this.begin();
  }
}

/** One run. Rejects only when something other than what is tested goes wrong. */
export async function nemesisRun(
  ground: Ground,
  seed: number,
  options: NemesisOptions,
): Promise<NemesisResult> {
  const random = randomOf(seed);
  const ring = [4, 4, 8, 16][random(4)] ?? 4;
  // Slow enough for something to happen in the middle of it.
  const resyncrate = [0, 6, 20][random(3)] ?? 0;
  const ack = random(4) === 0 ? 'strict' : 'fsync';
  const duo = await Duo.start(ground, {
    disksMib: [256, 256],
    distant: options.distant ?? seed % 2,
    distantMib: 256,
    open: { ring: ring << 20, resyncrate: resyncrate << 20, ack },
    ...(options.fault === undefined ? {} : { fault: options.fault }),
  });
  const nemesis = new Nemesis(duo, random);
  try {
    await nemesis.begin();
    for (let i = 0; i < options.steps; i++) await nemesis.step();
    await nemesis.finish();
    await closedAndEqual(duo);
    return { seed, steps: nemesis.steps, problem: null };
  } catch (error) {
    const problem = `seed ${seed}: ${nemesis.steps.join('; ')}: ${String(error)}`;
    if (options.fault !== undefined) return { seed, steps: nemesis.steps, problem };
    const kept = await keep(duo, seed);
    return { seed, steps: nemesis.steps, problem: `${problem} (kept in ${kept})` };
  } finally {
    await duo.end();
  }
}

/** Copies what is left of a run to a place where it stays. */
async function keep(duo: Duo, seed: number): Promise<string> {
  const folder = `/tmp/holdfast-nemesis-${seed}`;
  await run('rm', ['-rf', folder]);
  await run('mkdir', ['-p', folder]);
  await run('sh', ['-c', `cp -a ${duo.pair.folder}/*.log ${duo.pair.folder}/copy* ${folder}`]);
  for (const side of duo.pair.sides) {
    await run('cp', ['-a', side.space.seen(side.state), `${folder}/${side.name}.state`]);
    await run('cp', ['-a', side.seen, `${folder}/${side.name}`]);
    const said = side.events.map(({ name, values }) => `${name} ${JSON.stringify(values)}\n`);
    await writeFile(`${folder}/${side.name}.events`, said.join(''));
  }
  return folder;
}
