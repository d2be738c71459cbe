/**
 * The mirror under faults. MIRROR_SEED=n replays one seed with its last transitions, MIRROR_STORM=1 with
 * many faults at once. Seeds are run from MIRROR_FIRST (1) on, MIRROR_SEEDS of them. A seed that ever
 * failed goes into mirror-regressions.json with what it found.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { mirrorRules } from '../../src/core/mirror.ts';
import type { MirrorFault } from '../../src/sim/mirror-faults.ts';
import { mirrorMutants, seedOptions } from '../../src/sim/mirror-mutants.ts';
import {
  type MirrorResult,
  type MirrorSimOptions,
  runMirrorSeed,
} from '../../src/sim/mirror-run.ts';

const replay = process.env['MIRROR_SEED'];
/** Replayed as a storm. */
const storm = process.env['MIRROR_STORM'] === '1';
const chunk = 1000;
const first = Number(process.env['MIRROR_FIRST'] ?? 1);
const seeds = Number(process.env['MIRROR_SEEDS'] ?? 16_000);
const regressions = JSON.parse(
  readFileSync(new URL('../../../test/sim/mirror-regressions.json', import.meta.url), 'utf8'),
) as readonly { readonly seed: number; readonly found: string; readonly storm?: boolean }[];

function report(result: MirrorResult): string {
  return [`MIRROR_SEED=${result.seed}: ${result.text}`, ...result.trace].join('\n');
}

function mustHold(seed: number, options: MirrorSimOptions = {}): MirrorResult {
  const result = runMirrorSeed(seed, options);
  assert.ok(result.ok, report(result));
  return result;
}

if (replay !== undefined) {
  it(`replays seed ${replay}`, (t) => {
    t.diagnostic(report(mustHold(Number(replay), { storm })));
  });
} else {
  describe('mirror under faults', () => {
    for (let from = first; from < first + seeds; from += chunk) {
      const to = Math.min(from + chunk, first + seeds) - 1;
      it(`seeds ${from} to ${to}: nothing lost, one answer, whole again`, (t) => {
        let [events, acknowledged, epochs] = [0, 0, 0];
        for (let seed = from; seed <= to; seed++) {
          const result = mustHold(seed);
          events += result.events;
          acknowledged += result.acknowledged;
          epochs += result.epoch;
        }
        t.diagnostic(`${events} events, ${acknowledged} acknowledged changes, ${epochs} epochs`);
      });
    }

    it('4000 storms, the application writes by itself: nothing lost, one answer, whole again', () => {
      for (let seed = 1; seed <= 4000; seed++) mustHold(seed, { storm: true, ownWrites: true });
    });

    it('a mirror without replicated directories', () => {
      for (let seed = 1; seed <= 500; seed++) mustHold(seed, { noData: true });
    });

    for (const { seed, found, storm = false } of regressions) {
      it(`once failed: ${found} (${storm ? 'storm' : 'seed'} ${seed})`, () => {
        mustHold(seed, { storm });
      });
    }

    it('two runs of a seed are the same', () => {
      for (const seed of [3, 14, 159]) assert.deepEqual(runMirrorSeed(seed), runMirrorSeed(seed));
      assert.notEqual(runMirrorSeed(3).hash, runMirrorSeed(14).hash);
    });

    const lost: readonly MirrorFault[] = ['wipe', 'power', 'keeperKill', 'pairCut', 'arbiterDown'];
    const old: readonly MirrorFault[] = ['restore', 'swap', 'order', 'agentKill', 'agentPause'];
    const moved: readonly MirrorFault[] = [
      'move',
      'power',
      'isolate',
      'pairCut',
      'arbiterCut',
      'swap',
    ];
    for (const [name, faults] of [
      ['an arbiter in the place of another, of which one server learns first', moved],
      ['an arbiter that forgot everything', lost],
      ['an arbiter with a backup, and somebody there who knows more', old],
    ] as const) {
      it(`${name}: nothing lost, one answer`, () => {
        // A claim by a register that was promised away once won in the former one.
        const once = faults === moved ? [1492] : [];
        for (const seed of [...once, ...Array.from({ length: 150 }, (_, at) => at + 1)]) {
          const result = runMirrorSeed(seed, { faults, liveness: false });
          assert.ok(result.ok, report(result));
        }
      });
    }
  });

  describe('planted bugs are found by seeds', () => {
    for (const mutant of mirrorMutants.filter(({ by }) => by === 'seeds')) {
      it(mutant.name, (t) => {
        assert.equal(mirrorRules[mutant.rule], true);
        for (let seed = 1; seed <= 3000; seed++) {
          const result = runMirrorSeed(seed, seedOptions(mutant));
          if (result.rule === null) continue;
          t.diagnostic(`seed ${seed}: ${result.text}`);
          return;
        }
        assert.fail('not found by 3000 seeds');
      });
    }
  });
}
