/** One run of the prefix property: random operations, something dies, what is left is checked. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Ground, type Options, type Pair, run, type Side, tool, until } from './pair.ts';
import { putOlderLap } from './stale.ts';

/** mulberry32: what a run does depends on its seed alone; when, also on the machine. */
export function randomOf(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) % limit;
  };
}

/** What happens in the middle of a history. */
export type Disturbance =
  | 'none'
  | 'cut by a'
  | 'cut by b'
  | 'worker of a'
  | 'worker of b'
  | 'holder of a'
  | 'holder of b';
/** How it ends: in order, the secondary killed first, or the primary. */
export type Ending = 'in order' | 'b killed' | 'a killed' | 'a killed, then b';

const disturbances: readonly Disturbance[] = [
  'none',
  'cut by a',
  'cut by b',
  'worker of a',
  'worker of b',
  'worker of a',
  'worker of b',
  'holder of a',
  'holder of b',
];
const endings: readonly Ending[] = ['in order', 'b killed', 'a killed', 'a killed, then b'];

/** What `open` says, and what must then be there: with the secondary alive, or killed as well. */
interface Policy {
  readonly open: Options;
  readonly least: 'fsync' | 'all';
  readonly leastWhenKilled: 'fsync' | 'all' | 'none';
}
/** Where `replica_tool history` makes a file that it then moves over another one. */
const skip = '.*\\.new';
const usual: Policy = { open: {}, least: 'fsync', leastWhenKilled: 'fsync' };
/** A receipt is no promise for what a killed secondary had not yet written. */
const policies: readonly Policy[] = [
  usual,
  usual,
  { ...usual, open: { ring: 4 << 20, threads: 4 } },
  { open: { ack: 'strict' }, least: 'all', leastWhenKilled: 'fsync' },
  { open: { async: 'second' }, least: 'fsync', leastWhenKilled: 'none' },
];

export interface PrefixOptions {
  readonly disturbance?: Disturbance;
  readonly ending?: Ending;
  /** A bug to plant. */
  readonly fault?: string;
}

export interface PrefixResult {
  readonly seed: number;
  readonly what: string;
  /** Null: all is as it must be. */
  readonly problem: string | null;
}

class History {
  readonly log: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  out = '';

  constructor(pair: Pair, seed: number) {
    this.log = join(pair.folder, 'history.log');
    const [file = '', ...args] = pair.a.space.enter;
    const history = [tool, 'history', pair.a.dir, '--log', this.log, '--seed', String(seed)];
    const more = ['--seconds', '60', '--replaces', '1'];
    const child = spawn(file, [...args, ...history, ...more], { cwd: '/' });
    this.#child = child;
    child.stdout.setEncoding('utf8').on('data', (text: string) => (this.out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (this.out += text));
    this.#ended = new Promise((done) => child.once('close', done));
  }

  async ready(): Promise<void> {
    const ended = this.#ended.then(() => true);
    while (!this.out.includes('ready\n')) {
      const isOver = await Promise.race([ended, delay(2, false)]);
      if (isOver) throw new Error(`the history ended at once: ${this.out}`);
    }
  }

  /** Ends it in order, or waits until the loss of its directory has ended it. */
  async stop(): Promise<number | null> {
    this.#child.kill('SIGTERM');
    return await this.#ended;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

async function disturb(pair: Pair, what: Disturbance, ms: number): Promise<void> {
  if (what === 'none') return;
  const side: Side = what.endsWith('a') ? pair.a : pair.b;
  if (what.startsWith('cut')) await side.request('cut', { ms });
  else await side.kill(what.startsWith('worker') ? 'worker' : 'holder');
}

/** Closes the secondary in order; what it refuses is what is wrong with it. */
async function closed(side: Side): Promise<string | null> {
  try {
    await side.request('close');
    return null;
  } catch (error) {
    return String(error);
  }
}

/** b alone, after its journal was applied to the end, closed in order. */
async function replayed(pair: Pair, open: Options): Promise<string | null> {
  await pair.b.unmount();
  // Must change nothing: a record counts when it follows, not when it is one.
  await putOlderLap(join(pair.folder, 'b.state', 'journal'));
  await pair.b.launch();
  await pair.openSecond(open);
  for (;;) {
    const { all, applied, durable } = await pair.b.status();
    const isDone = all['replaying'] === '0' && applied === durable;
    if (isDone || all['failed'] !== '0') return await closed(pair.b);
    await delay(2);
  }
}

/** Everything is stopped as it should be: then nothing may be missing, and nothing have died. */
async function endInOrder(pair: Pair, history: History, plan: Plan): Promise<string | null> {
  const code = await history.stop();
  if (code !== 0) return `the application got an error: ${history.out}`;
  // A primary that is closed without a connection leaves its peer behind.
  await until('the secondary has everything', async () => {
    const { last, durable } = await pair.a.status();
    return durable === last;
  });
  for (const side of [pair.a, pair.b]) {
    const { restarts } = await side.status();
    const killed = plan.steps.filter(({ what }) => what === `worker of ${side.name}`).length;
    if (restarts > killed) return `${restarts} workers of ${side.name} have died`;
  }
  await pair.a.request('close');
  const refused = await closed(pair.b);
  if (refused !== null) return refused;
  const compared = await run(tool, ['compare', pair.a.dir, pair.b.dir]);
  return compared.code === 0 ? null : compared.out;
}

async function end(pair: Pair, history: History, plan: Plan): Promise<string | null> {
  const { ending, open } = plan;
  if (ending === 'in order') return await endInOrder(pair, history, plan);
  if (ending === 'b killed') {
    await pair.b.killAll();
    await pair.a.killAll();
    await history.stop();
    return await replayed(pair, open);
  }
  await pair.a.killAll();
  await history.stop();
  if (ending === 'a killed') return await closed(pair.b);
  await pair.b.killAll();
  return await replayed(pair, open);
}

/** Copies what is left of a run to a place where it stays. Names may be any bytes: not by Node. */
async function kept(pair: Pair, seed: number): Promise<string> {
  // Where it is also after a run whose temporary files were kept in memory.
  const folder = `/tmp/holdfast-prefix-${seed}`;
  await run('cp', ['-a', pair.folder, folder]);
  return folder;
}

interface Plan {
  readonly steps: readonly { readonly what: Disturbance; readonly afterMs: number }[];
  readonly cutMs: number;
  readonly restMs: number;
  readonly ending: Ending;
  readonly open: Options;
  readonly least: 'none' | 'fsync' | 'all';
}

/** What a run does: by its seed, but for what the options say. */
function planOf(seed: number, options: PrefixOptions): Plan {
  const random = randomOf(seed);
  const step = (mostMs: number) => ({
    what: options.disturbance ?? disturbances[random(disturbances.length)] ?? 'none',
    afterMs: 1 + random(mostMs),
  });
  const more = options.disturbance === undefined ? random(3) : 0;
  const steps = [step(80), ...Array.from({ length: more }, () => step(30))];
  const ending = options.ending ?? endings[random(endings.length)] ?? 'in order';
  const policy = (options.fault === undefined && policies[random(policies.length)]) || usual;
  const killed = /b killed|then b/.test(ending) || steps.some(({ what }) => what === 'worker of b');
  return {
    steps,
    cutMs: 1 + random(60),
    restMs: random(2) === 0 ? 0 : random(60),
    ending,
    open: { skip, ...policy.open },
    least: ending === 'in order' ? 'all' : killed ? policy.leastWhenKilled : policy.least,
  };
}

/** One run. Rejects only when something other than the property goes wrong. */
export async function prefixRun(
  ground: Ground,
  seed: number,
  options: PrefixOptions = {},
): Promise<PrefixResult> {
  const plan = planOf(seed, options);
  const what = JSON.stringify(plan);
  const pair = await ground.pair(options.fault ?? null);
  let history: History | null = null;
  try {
    await pair.start(plan.open);
    history = new History(pair, seed);
    await history.ready();
    for (const step of plan.steps) {
      await delay(step.afterMs);
      await disturb(pair, step.what, plan.cutMs);
    }
    await delay(plan.restMs);
    const error = await end(pair, history, plan);
    const check = ['check-prefix', history.log, pair.b.dir, '--least', plan.least];
    const { code, out } = await run(tool, check);
    if (error === null && code === 0) return { seed, what, problem: null };
    const problem = `seed ${seed}: ${what}: ${error ?? ''} ${out}`;
    if (options.fault !== undefined) return { seed, what, problem };
    return { seed, what, problem: `${problem} (kept in ${await kept(pair, seed)})` };
  } finally {
    history?.kill();
    await pair.end();
  }
}
