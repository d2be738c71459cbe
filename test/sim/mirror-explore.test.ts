/**
 * All states of two servers with the real machine, within bounds, and the abstract protocol beside
 * it. MIRROR_BOUNDS=writes,epochs,crashes,troubles,states explores as far as that.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mirrorRules, type MirrorRules, without } from '../../src/core/mirror.ts';
import { explore, type Exploration, follow, walk } from '../../src/sim/explore.ts';
import { Chance } from '../../src/sim/kit.ts';
import { PairWorld } from '../../src/sim/mirror-explore.ts';
import {
  type ModelBounds,
  modelHarm,
  type ModelMutant,
  modelMoves,
  modelMutants,
  modelStart,
  type ModelState,
  modelText,
} from '../../src/sim/mirror-model.ts';
import { mirrorMutants } from '../../src/sim/mirror-mutants.ts';
import { type PairBounds, type PairState, pairWeights } from '../../src/sim/mirror-pair.ts';

const wanted = (process.env['MIRROR_BOUNDS'] ?? '').split(',').map(Number);
const statesMax = 400_000;

/** A mirror that has just become whole: server 0 is primary, both are in sync, nothing under way. */
function wholePair(world: PairWorld): PairState {
  const isWhole = ({ nodes, record, connected }: PairState): boolean => {
    const idle = nodes.every(({ asked, reach }) => asked === null && reach === 'both');
    const epochs = nodes.map(({ state }) => world.local.get(state).durable.record?.epoch);
    const [a, b] = nodes;
    const know = [...epochs, a.engine.epoch].every((epoch) => epoch === record?.epoch);
    const both = record?.inSync.length === 2 && record.primary === 0 && connected;
    return idle && know && both && a.engine.told === 'inSync' && b.engine.role === 'second';
  };
  const way = {
    start: world.blank(),
    moves: (state: PairState) => world.moves(state),
    harm: (state: PairState) => (isWhole(state) ? 'whole' : null),
  };
  const found = walk(way, new Chance(1), { walks: 200, depth: 300 });
  assert.equal(found.harm, 'whole', 'the pair never becomes whole');
  const [a, b] = found.state.nodes;
  const nodes = [
    { ...a, fresh: false },
    { ...b, fresh: false },
  ] as const;
  return { ...found.state, nodes, messages: new Map() };
}

interface Pair extends Exploration<PairState> {
  /** Epoch in which it begins. */
  readonly epoch: number;
}

/** Epochs of the bounds: how many more there may be. */
function pairOf(bounds: PairBounds, rules: MirrorRules = mirrorRules): Pair {
  const blank = { writes: 0, epochs: 9, crashes: 0, troubles: 0, prompt: false };
  const world = new PairWorld(blank, rules);
  const start = wholePair(world);
  const epoch = start.record?.epoch ?? 0;
  world.bounds = { ...bounds, epochs: epoch + bounds.epochs };
  return {
    start,
    epoch,
    moves: (state) => world.moves(state),
    text: (state) => world.text(state),
    harm: (state) => world.harm(state),
    statesMax,
  };
}

function modelOf(bounds: ModelBounds, mutant: ModelMutant | null = null): Exploration<ModelState> {
  return {
    start: modelStart,
    moves: (state) => modelMoves(state, bounds, mutant),
    text: modelText,
    harm: modelHarm,
    statesMax,
  };
}

/** What a state comes to: the record, what was acknowledged, and what each server holds. */
function outcome(
  record: { readonly epoch: number; readonly primary: number },
  inSync: readonly number[],
  acked: readonly number[],
  logs: readonly (readonly number[])[],
): string {
  return [record.epoch, record.primary, inSync.join(''), acked.join(), ...logs.map(String)].join(
    '/',
  );
}

function outcomesOfPair(pair: Pair): { readonly outcomes: Set<string>; readonly text: string } {
  const outcomes = new Set<string>();
  const result = explore({
    ...pair,
    visit: ({ record, acked, nodes }) => {
      if (record === null) return;
      const shifted = { ...record, epoch: record.epoch - pair.epoch };
      outcomes.add(
        outcome(
          shifted,
          record.inSync,
          acked,
          nodes.map(({ log }) => log),
        ),
      );
    },
  });
  assert.equal(result.harm, null, result.trace.join(' > '));
  assert.ok(result.exhausted, `more than ${statesMax} states`);
  const { states, steps, depth } = result;
  return { outcomes, text: `${states} states, ${steps} steps, depth ${depth}` };
}

function outcomesOfModel(bounds: ModelBounds): { outcomes: Set<string>; text: string } {
  const outcomes = new Set<string>();
  const result = explore({
    ...modelOf(bounds),
    visit: ({ register, acked, nodes }) => {
      const inSync = [0, 1].filter((i) => ((register.inSync >> i) & 1) === 1);
      const shifted = { ...register, epoch: register.epoch - modelStart.register.epoch };
      outcomes.add(
        outcome(
          shifted,
          inSync,
          acked,
          nodes.map(({ log }) => log),
        ),
      );
    },
  });
  assert.equal(result.harm, null, result.trace.join(' > '));
  assert.ok(result.exhausted);
  return { outcomes, text: `${result.states} states, depth ${result.depth}` };
}

const prompt = { prompt: true } as const;

describe('the abstract protocol', () => {
  it('loses nothing: 1 write, 3 epochs, 1 crash', (t) => {
    const result = explore(modelOf({ writes: 1, epochs: 3, crashes: 1 }));
    t.diagnostic(`${result.states} states, ${result.steps} steps, depth ${result.depth}`);
    assert.equal(result.harm, null, result.trace.join(' > '));
    assert.ok(result.exhausted);
    // As many as the first form of this model has, in another language.
    assert.equal(result.states, 171_988);
  });

  for (const mutant of modelMutants) {
    it(`without one rule it does: ${mutant}`, (t) => {
      const model = modelOf({ writes: 3, epochs: 6, crashes: 1 }, mutant);
      const result = walk(model, new Chance(1), { walks: 20_000, depth: 70 });
      assert.notEqual(result.harm, null);
      t.diagnostic(`walk ${result.walks}: ${result.harm}: ${result.trace.join(' > ')}`);
    });
  }
});

describe('the real machine', () => {
  it('comes to what the protocol comes to, and to all of it: 1 write, 1 more epoch, 1 crash', (t) => {
    const real = outcomesOfPair(
      pairOf({ writes: 1, epochs: 1, crashes: 1, troubles: 0, ...prompt }),
    );
    const model = outcomesOfModel({ writes: 1, epochs: 2, crashes: 1 });
    t.diagnostic(`${real.text}; the protocol: ${model.text}; ${real.outcomes.size} outcomes`);
    assert.deepEqual([...real.outcomes].toSorted(), [...model.outcomes].toSorted());
  });

  it('comes to nothing else: 1 write, 2 more epochs, 1 trouble', (t) => {
    const real = outcomesOfPair(
      pairOf({ writes: 1, epochs: 2, crashes: 0, troubles: 1, ...prompt }),
    );
    const model = outcomesOfModel({ writes: 1, epochs: 3, crashes: 0 });
    const others = [...real.outcomes].filter((one) => !model.outcomes.has(one));
    t.diagnostic(`${real.text}; ${real.outcomes.size} of ${model.outcomes.size} outcomes`);
    assert.deepEqual(others, []);
  });

  it('loses nothing on random ways that are longer', (t) => {
    const pair = pairOf({ writes: 4, epochs: 8, crashes: 2, troubles: 6, prompt: false });
    const result = walk(pair, new Chance(7), { walks: 400, depth: 120 }, pairWeights);
    t.diagnostic(`${result.walks} walks, ${result.steps} steps`);
    assert.equal(result.harm, null, result.trace.join(' > '));
  });

  for (const { name, rule, by } of mirrorMutants) {
    if (by === 'seeds') continue;
    const bounds = { writes: 4, epochs: 8, crashes: 2, troubles: 8, ...prompt };
    if (by === 'walks') {
      it(`planted bug: ${name}`, (t) => {
        const pair = pairOf(bounds, without(rule));
        const result = walk(pair, new Chance(1), { walks: 2000, depth: 100 }, pairWeights);
        assert.notEqual(result.harm, null);
        t.diagnostic(`walk ${result.walks}: ${result.harm}: ${result.trace.join(' > ')}`);
      });
      continue;
    }
    it(`planted bug: ${name}`, (t) => {
      const pair = pairOf(bounds, without(rule));
      const harm = pair.harm(follow(pair, by));
      assert.notEqual(harm, null);
      t.diagnostic(`${harm}: ${by.join(' > ')}`);
      assert.throws(() => follow(pairOf(bounds), by), /^Error: after \d+ moves no /);
    });
  }

  /** Ways that once led to harm; they need not be possible any more. */
  const once: readonly (readonly [string, readonly string[]])[] = [
    [
      'an agent died before its promise was on disk, and the next one served under it',
      [
        ...['write 0', 'silent 1', 'timer headStart 1', 'swap of 1', 'won 1, not kept, unheard'],
        ...['write 1', 'ack 1', 'crash 1', 'restart 1', 'up 1', 'link up'],
        ...['write 0', 'take write 3 at 1', 'have 0', 'ack 0'],
      ],
    ],
  ];
  for (const [found, names] of once) {
    it(`once failed: ${found}`, () => {
      const pair = pairOf({ writes: 4, epochs: 8, crashes: 2, troubles: 8, ...prompt });
      let state = pair.start;
      for (const name of names) {
        const move = pair.moves(state).find((one) => one.name === name);
        if (move === undefined) return;
        state = move.next;
        assert.equal(pair.harm(state), null);
      }
    });
  }

  if (wanted.length === 5) {
    it(`loses nothing within ${wanted.join()}`, (t) => {
      const [writes = 0, epochs = 0, crashes = 0, troubles = 0, states = 0] = wanted;
      const pair = pairOf({ writes, epochs, crashes, troubles, ...prompt });
      const result = explore({ ...pair, statesMax: states });
      const end = result.exhausted ? 'all of them' : 'not all of them';
      t.diagnostic(`${result.states} states, ${end}, depth ${result.depth}`);
      assert.equal(result.harm, null, result.trace.join(' > '));
    });
  }
});
