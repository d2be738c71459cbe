/**
 * Random long runs: whatever happens to either server, they come back to one state, and nothing that
 * was promised is lost. HOLDFAST_SOAK_MINUTES: how long, instead of two (`npm run soak`);
 * HOLDFAST_SEED: the first seed.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { nemesisRun } from './nemesis.ts';
import { cannotRun, Ground } from './pair.ts';
import { firstSeed } from '../support/random.ts';

const minutes = Number(process.env['HOLDFAST_SOAK_MINUTES'] ?? 2);
const mostProblems = 3;

describe('nemesis', { skip: cannotRun }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('whatever happens, both come back to one state and nothing is lost', async (t) => {
    t.diagnostic(`first seed ${firstSeed}`);
    const started = performance.now();
    const problems: string[] = [];
    let runs = 0;
    let steps = 0;
    while (performance.now() - started < minutes * 60_000 && problems.length < mostProblems) {
      const result = await nemesisRun(ground, firstSeed + runs, { steps: 8 });
      runs += 1;
      steps += result.steps.length;
      if (result.problem !== null) {
        problems.push(result.problem);
        t.diagnostic(result.problem);
      }
    }
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    t.diagnostic(`${runs} runs, ${steps} steps in ${seconds} s`);
    assert.deepEqual(problems, []);
  });
});
