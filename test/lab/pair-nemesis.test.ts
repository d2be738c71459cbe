/**
 * Random runs of a mirror that decides for itself (pair-nemesis.ts): whatever happens, it comes back, nothing
 * acknowledged is lost, one server answers. HOLDFAST_SOAK_MINUTES: how long, instead of one run
 * (`npm run soak -- MINUTES --mirror`); HOLDFAST_SEED: the first seed.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { pairNemesisRun } from './pair-nemesis.ts';
import { skip } from './support.ts';

const minutes = Number(process.env['HOLDFAST_SOAK_MINUTES'] ?? 0);
const first = Number(process.env['HOLDFAST_SEED'] ?? Date.now() % 1_000_000_000);
const steps = Number(process.env['HOLDFAST_STEPS'] ?? 4);
const mostProblems = 3;

describe('nemesis of a mirror that decides', { skip }, () => {
  test('whatever happens, service comes back and nothing acknowledged is lost', async (t) => {
    t.diagnostic(`first seed ${first}`);
    const startedMs = performance.now();
    const problems: string[] = [];
    let runs = 0;
    do {
      const result = await pairNemesisRun(first + runs, {
        steps,
        say: (text) => t.diagnostic(text),
      });
      runs += 1;
      t.diagnostic(`seed ${result.seed}: ${result.answers} answers`);
      if (result.problems.length === 0) continue;
      const told = [`seed ${result.seed}`, ...result.steps, ...result.problems];
      problems.push(told.join('\n').slice(0, 20_000));
    } while (performance.now() - startedMs < minutes * 60_000 && problems.length < mostProblems);
    t.diagnostic(`${runs} runs in ${Math.round((performance.now() - startedMs) / 1000)} s`);
    assert.deepEqual(problems, []);
  });
});
