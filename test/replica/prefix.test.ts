/**
 * The prefix property: whatever dies, the other server holds a prefix of the history of changes,
 * with everything whose fsync returned. HOLDFAST_RUNS: how many runs instead of two minutes of
 * them; HOLDFAST_SEED: the first seed.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cannotRun, Ground } from './pair.ts';
import { prefixRun } from './prefix.ts';
import { firstSeed } from '../support/random.ts';

const runs = Number(process.env['HOLDFAST_RUNS'] ?? 0);
const minutes = 2;

describe('prefix', { skip: cannotRun }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('what the secondary holds is a prefix of the history', async (t) => {
    t.diagnostic(`first seed ${firstSeed}`);
    const started = performance.now();
    const goesOn = (done: number): boolean =>
      runs > 0 ? done < runs : performance.now() - started < minutes * 60_000;
    let done = 0;
    const problems: string[] = [];
    for (; goesOn(done) && problems.length < 5; done++) {
      const { problem } = await prefixRun(ground, firstSeed + done);
      if (problem !== null) problems.push(problem);
    }
    t.diagnostic(`${done} runs in ${((performance.now() - started) / 1000).toFixed(0)} s`);
    assert.deepEqual(problems, []);
  });
});
