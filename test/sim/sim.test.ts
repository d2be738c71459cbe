/**
 * The farm under faults. SIM_SEED=n replays one seed with its last transitions, SIM_SEEDS=n sets how
 * many are run (2,000). A seed that ever failed goes into regressions.json with what it found.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { mutants } from '../../src/sim/mutants.ts';
import { runSeed, type SimResult } from '../../src/sim/run.ts';

const replay = process.env['SIM_SEED'];
const seeds = Number(process.env['SIM_SEEDS'] ?? 2000);
const chunk = 250;
const regressions = JSON.parse(
  readFileSync(new URL('../../../test/sim/regressions.json', import.meta.url), 'utf8'),
) as readonly { readonly seed: number; readonly found: string }[];

function report(result: SimResult): string {
  return [`SIM_SEED=${result.seed}: ${result.text}`, ...result.trace].join('\n');
}

function mustHold(seed: number): SimResult {
  const result = runSeed(seed);
  assert.ok(result.ok, report(result));
  return result;
}

if (replay !== undefined) {
  it(`replays seed ${replay}`, (t) => {
    t.diagnostic(report(mustHold(Number(replay))));
  });
} else {
  describe('farm under faults', () => {
    for (let first = 1; first <= seeds; first += chunk) {
      const last = Math.min(first + chunk - 1, seeds);
      it(`seeds ${first} to ${last}: one answer at most, whole again after`, (t) => {
        let events = 0;
        let near = 0;
        let far = 0;
        for (let seed = first; seed <= last; seed++) {
          const result = mustHold(seed);
          events += result.events;
          near = Math.max(near, result.longestNearMs);
          far = Math.max(far, result.longestFarMs);
        }
        const both = `two answers for at most ${near.toFixed(0)} ms after a heal`;
        t.diagnostic(`${events} events; ${both}, ${far.toFixed(0)} ms where only others join them`);
      });
    }

    it('seeds that once failed', () => {
      for (const { seed } of regressions) mustHold(seed);
    });

    it('two runs of a seed are the same', () => {
      for (const seed of [3, 14, 159]) {
        const [a, b] = [runSeed(seed), runSeed(seed)];
        assert.deepEqual(a, b);
      }
      assert.notEqual(runSeed(3).hash, runSeed(14).hash);
    });
  });

  describe('planted bugs are found', () => {
    for (const mutant of mutants) {
      it(mutant.name, (t) => {
        for (let seed = 1; seed <= seeds; seed++) {
          const result = runSeed(seed, mutant);
          if (result.rule === null || !mutant.breaks.includes(result.rule)) continue;
          t.diagnostic(`seed ${seed}: ${result.text}`);
          return;
        }
        assert.fail(`not found by ${seeds} seeds`);
      });
    }
  });
}
