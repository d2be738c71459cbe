/**
 * What every register promises, as checks that run against any kind of it. A check throws when the
 * promise is broken; planted.test.ts shows that they find registers that break one.
 */
import assert from 'node:assert/strict';
import type { ArbiterAnswer, ArbiterRecord, Register } from '../../src/arbiter/register.ts';

/** One register and its clients, as a kind of register makes them. */
export interface World {
  /** A client on that node; with its own time limit if given. Closed with the world. */
  open(node: number, timeLimitMs?: number): Register;
  /** Kills what does the work (with SIGKILL, or a power cut) at any moment; resolves when it is back. */
  crash(): Promise<void>;
  /** Questions go out, or seem to, and nothing comes back. Null: this kind has no such state. */
  readonly hang: (() => Promise<void>) | null;
  /** Ends that. */
  resume(): Promise<void>;
  /** Surely no question gets there; and back. */
  down(): Promise<void>;
  up(): Promise<void>;
}

export interface Check {
  readonly name: string;
  readonly run: (world: World) => Promise<void>;
}

export const first: ArbiterRecord = {
  incarnation: 1,
  epoch: 1,
  primary: 0,
  inSync: [0],
  leaseMs: 1500,
};

export const next = (
  record: ArbiterRecord,
  change: Partial<ArbiterRecord> = {},
): ArbiterRecord => ({ ...record, epoch: record.epoch + 1, ...change });

const won: ArbiterAnswer = { outcome: 'won' };
const holds = (record: ArbiterRecord | null): ArbiterAnswer => ({ outcome: 'record', record });
const lost = (record: ArbiterRecord | null): ArbiterAnswer => ({ outcome: 'lost', record });

/** Waits through `unreachable` and `unknown`, for what is not the subject of a check. */
async function settled(ask: () => Promise<ArbiterAnswer>): Promise<ArbiterAnswer> {
  for (let tries = 0; tries < 200; tries += 1) {
    const answer = await ask();
    if (answer.outcome !== 'unreachable' && answer.outcome !== 'unknown') return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('the register does not answer');
}

async function keepsOneRecordForEachModule(world: World): Promise<void> {
  const a = world.open(0);
  const b = world.open(1);
  assert.deepEqual(await a.read('db'), holds(null));
  assert.deepEqual(await a.swap('db', null, first), won);
  assert.deepEqual(await b.read('db'), holds(first));
  assert.deepEqual(await b.read('web.2'), holds(null), 'another module has a record of its own');
  const full: ArbiterRecord = {
    incarnation: 7,
    epoch: 2 ** 40,
    primary: 63,
    inSync: [0, 5, 31, 32, 63],
    leaseMs: 86_400_000,
  };
  assert.deepEqual(await b.swap('web.2', null, full), won);
  assert.deepEqual(await a.read('web.2'), holds(full));
  assert.deepEqual(await a.read('db'), holds(first));
}

async function createsOnce(world: World): Promise<void> {
  const a = world.open(0);
  const b = world.open(1);
  const other = { ...first, primary: 1, inSync: [1] };
  assert.deepEqual(await a.swap('db', null, first), won);
  assert.deepEqual(await b.swap('db', null, other), lost(first));
  assert.deepEqual(await a.swap('db', null, first), won, 'heard twice: it was done the first time');
  assert.deepEqual(await b.read('db'), holds(first));
  assert.deepEqual(await b.swap('none', first, next(first)), lost(null), 'there is no such record');
  assert.deepEqual(await b.read('none'), holds(null));
}

async function comparesTheWholeRecord(world: World): Promise<void> {
  const a = world.open(0);
  const held: ArbiterRecord = {
    incarnation: 3,
    epoch: 9,
    primary: 0,
    inSync: [0, 1],
    leaseMs: 1500,
  };
  assert.deepEqual(await a.swap('db', null, held), won);
  const others: Partial<ArbiterRecord>[] = [
    { incarnation: 2 },
    { epoch: 8 },
    { primary: 1 },
    { inSync: [0] },
    { inSync: [0, 1, 2] },
    { inSync: [1] },
    { leaseMs: 1499 },
  ];
  for (const change of others) {
    const from = { ...held, ...change };
    const to = next(held, { primary: 1, inSync: [1] });
    assert.deepEqual(await a.swap('db', from, to), lost(held), JSON.stringify(change));
  }
  assert.deepEqual(await a.read('db'), holds(held));
  assert.deepEqual(await a.swap('db', held, next(held)), won);
}

async function goesForwardOnly(world: World): Promise<void> {
  const a = world.open(0);
  assert.deepEqual(await a.swap('db', null, next(first)), won);
  for (const to of [first, { ...first, epoch: 2, primary: 1 }, { ...first, incarnation: 0 }]) {
    assert.equal((await a.swap('db', next(first), to)).outcome, 'unreachable');
  }
  assert.deepEqual(await a.read('db'), holds(next(first)));
  const anew = { ...first, incarnation: 2 };
  assert.deepEqual(await a.swap('db', next(first), anew), won, 'a new incarnation is later');
  assert.deepEqual(await a.read('db'), holds(anew));
}

async function refusesWhatIsNone(world: World): Promise<void> {
  const a = world.open(0);
  for (const module of ['', '../x', 'a/b', '.hidden', 'x'.repeat(33), 'a b']) {
    assert.equal((await a.read(module)).outcome, 'unreachable', module);
    assert.equal((await a.swap(module, null, first)).outcome, 'unreachable', module);
  }
  const wrong: Partial<ArbiterRecord>[] = [
    { epoch: -1 },
    { epoch: 1.5 },
    { primary: 64 },
    { inSync: [] },
    { inSync: [1, 0] },
    { inSync: [0, 0] },
    { leaseMs: Number.NaN },
  ];
  for (const change of wrong) {
    const answer = await a.swap('db', null, { ...first, ...change });
    assert.equal(answer.outcome, 'unreachable', JSON.stringify(change));
  }
  assert.deepEqual(await a.read('db'), holds(null));
}

async function letsOneOfTwoWin(world: World): Promise<void> {
  const clients = [world.open(0), world.open(1)];
  let held: ArbiterRecord | null = null;
  const winners = new Set<number>();
  for (let round = 1; round <= 40; round += 1) {
    const from: ArbiterRecord | null = held;
    const wanted = clients.map((_, node) => ({
      ...first,
      epoch: round,
      primary: node,
      inSync: [node],
    }));
    const answers: ArbiterAnswer[] = await Promise.all(
      clients.map((client, node) => client.swap('db', from, wanted[node] ?? first)),
    );
    const winner = answers.findIndex(({ outcome }) => outcome === 'won');
    const record: ArbiterRecord | undefined = wanted[winner];
    assert.ok(record !== undefined, `round ${round}: nobody won: ${JSON.stringify(answers)}`);
    winners.add(winner);
    assert.deepEqual(answers[1 - winner], lost(record), `round ${round}`);
    held = record;
  }
  assert.ok(winners.size > 0);
}

async function survivesCrashes(world: World): Promise<void> {
  const history = new History();
  let isOver = false;
  const epochs = 30;
  const client = async (node: number): Promise<void> => {
    const register = world.open(node);
    let known: Asked = null;
    while (!isOver) {
      const read = await history.note(() => register.read('db'), null);
      if (read.outcome === 'record') known = read.record;
      const from: Asked = known;
      const to: ArbiterRecord = {
        ...first,
        epoch: (from?.epoch ?? 0) + 1,
        primary: node,
        inSync: [node],
      };
      const answer = await history.note(() => register.swap('db', from, to), to);
      if (answer.outcome === 'won') known = to;
      if (answer.outcome === 'lost') known = answer.record;
      if ((known?.epoch ?? 0) >= epochs) isOver = true;
    }
  };
  const killer = async (): Promise<void> => {
    for (let kills = 0; !isOver && kills < 1000; kills += 1) {
      await history.growth(5);
      if (!isOver) await world.crash();
    }
  };
  const killing = killer();
  await Promise.all([client(0), client(1)]);
  history.end();
  await killing;
  history.check();
  const last = await settled(() => world.open(0).read('db'));
  assert.ok(last.outcome === 'record' && (last.record?.epoch ?? 0) >= epochs);
}

async function losesNothingOnACrash(world: World): Promise<void> {
  const a = world.open(0);
  assert.deepEqual(await settled(() => a.swap('db', null, first)), won);
  let held = first;
  for (let round = 0; round < 5; round += 1) {
    await world.crash();
    assert.deepEqual(await settled(() => a.read('db')), holds(held), `crash ${round}`);
    const to: ArbiterRecord = next(held, { primary: round % 2 });
    assert.deepEqual(await settled(() => a.swap('db', held, to)), won);
    held = to;
  }
}

async function tellsWhenItIsNotThere(world: World): Promise<void> {
  const a = world.open(0);
  assert.deepEqual(await a.swap('db', null, first), won);
  await world.down();
  assert.equal((await a.read('db')).outcome, 'unreachable');
  const answer = await a.swap('db', first, next(first));
  assert.ok(['unreachable', 'unknown'].includes(answer.outcome), JSON.stringify(answer));
  assert.ok('why' in answer && answer.why.length > 0);
  const unsent = await world.open(1).swap('db', first, next(first, { primary: 1 }));
  assert.equal(unsent.outcome, 'unreachable', 'nothing can have left to a register that is away');
  await world.up();
  const after = await settled(() => a.read('db'));
  if (answer.outcome === 'unreachable') {
    assert.deepEqual(after, holds(first), 'what was unreachable is not done, and will not be');
  }
  const held = after.outcome === 'record' ? after.record : null;
  assert.deepEqual(await settled(() => a.swap('db', held, next(held ?? first))), won);
}

async function answersInTime(world: World): Promise<void> {
  if (world.hang === null) return;
  const a = world.open(0, 300);
  assert.deepEqual(await settled(() => a.swap('db', null, first)), won);
  await world.hang();
  const swap = await a.swap('db', first, next(first));
  assert.equal(swap.outcome, 'unknown', 'the question has left, and may be carried out');
  await world.hang();
  const read = await a.read('db');
  assert.equal(read.outcome, 'unreachable');
  await world.resume();
  const after = await settled(() => world.open(1).read('db'));
  assert.ok(after.outcome === 'record');
  assert.ok([1, 2].includes(after.record?.epoch ?? 0));
}

async function answersWhenItIsClosed(world: World): Promise<void> {
  const a = world.open(0);
  assert.deepEqual(await a.swap('db', null, first), won);
  const pending = a.swap('db', first, next(first));
  await a.close();
  assert.ok(['won', 'unknown', 'unreachable'].includes((await pending).outcome));
  assert.equal((await a.read('db')).outcome, 'unreachable');
  assert.equal((await a.swap('db', first, next(first))).outcome, 'unreachable');
  await a.close();
}

/** Everything that was asked and answered, in the order of this process. */
class History {
  readonly #events: { asked: number; answered: number; answer: ArbiterAnswer; to: Asked }[] = [];
  #now = 0;
  #wins = 0;
  readonly #waiters: { readonly size: number; readonly resolve: () => void }[] = [];

  async note(ask: () => Promise<ArbiterAnswer>, to: Asked): Promise<ArbiterAnswer> {
    const asked = (this.#now += 1);
    const answer = await ask();
    this.#events.push({ asked, answered: (this.#now += 1), answer, to });
    if (answer.outcome === 'won') this.#wins += 1;
    while ((this.#waiters[0]?.size ?? Number.MAX_VALUE) <= this.#wins) {
      this.#waiters.shift()?.resolve();
    }
    return answer;
  }

  /** Resolves when so many more swaps were won. */
  growth(count: number): Promise<void> {
    const size = this.#wins + count;
    return new Promise((resolve) => this.#waiters.push({ size, resolve }));
  }

  /** Nothing more grows. */
  end(): void {
    for (const { resolve } of this.#waiters.splice(0)) resolve();
  }

  /** Linearizable, as far as answers tell: one record of each epoch, and none is ever taken back. */
  check(): void {
    const byEpoch = new Map<number, string>();
    const ends = this.#events.map((event) => ({ ...event, epoch: epochOf(event) }));
    for (const { answer, to, epoch } of ends) {
      const record = answer.outcome === 'won' ? to : 'record' in answer ? answer.record : null;
      if (record === null || epoch === null) continue;
      const text = JSON.stringify(record);
      assert.equal(byEpoch.get(epoch) ?? text, text, `two records of epoch ${epoch}`);
      byEpoch.set(epoch, text);
    }
    assert.ok(this.#wins > 10, `only ${this.#wins} swaps were won: the test shows nothing`);
    // In order of the answers; what was asked after an answer knows all that it knew.
    const moments = ends.flatMap(({ asked, answered, epoch }) =>
      epoch === null
        ? []
        : [
            { at: asked, epoch, isEnd: false, answered },
            { at: answered, epoch, isEnd: true, answered },
          ],
    );
    moments.sort((a, b) => a.at - b.at);
    let known = 0;
    const floors = new Map<number, number>();
    for (const { at, epoch, isEnd, answered } of moments) {
      if (!isEnd) floors.set(answered, known);
      else {
        const floor = floors.get(at) ?? 0;
        assert.ok(epoch >= floor, `epoch ${epoch} was told after epoch ${floor}`);
        known = Math.max(known, epoch);
      }
    }
  }
}

type Asked = ArbiterRecord | null;

/** The epoch that an answer says the register had; null: it says nothing of it. */
function epochOf({
  answer,
  to,
}: {
  readonly answer: ArbiterAnswer;
  readonly to: Asked;
}): number | null {
  switch (answer.outcome) {
    case 'won':
      return to?.epoch ?? null;
    case 'lost':
    case 'record':
      return answer.record?.epoch ?? 0;
    default:
      return null;
  }
}

export const checks: readonly Check[] = [
  { name: 'keeps one record for each module', run: keepsOneRecordForEachModule },
  { name: 'makes the first record once', run: createsOnce },
  { name: 'compares the whole record', run: comparesTheWholeRecord },
  { name: 'goes forward only', run: goesForwardOnly },
  { name: 'refuses what is no module and no record', run: refusesWhatIsNone },
  { name: 'lets one of two win', run: letsOneOfTwoWin },
  { name: 'loses nothing that it answered when it is killed', run: losesNothingOnACrash },
  { name: 'is linearizable while it is killed again and again', run: survivesCrashes },
  { name: 'tells when it is not there', run: tellsWhenItIsNotThere },
  { name: 'answers within its time limit', run: answersInTime },
  { name: 'answers what is open when it is closed', run: answersWhenItIsClosed },
];
