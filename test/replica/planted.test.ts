/**
 * Bugs planted in the engine: the tests must see each of them. Those of a stream that goes on by the
 * check of the prefix property: the runs are those of prefix.test.ts, with the disturbance and the
 * ending at which the bug does its harm. Those of a return by the scenarios of the resync-*.test.ts.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cannotRun, Ground } from './pair.ts';
import type { Duo, DuoOptions } from './duo.ts';
import { type PrefixOptions, prefixRun } from './prefix.ts';
import { withDuo } from './rows.ts';
import {
  diskFills,
  fork,
  primDiesAndReturns,
  resyncRing,
  slowly,
  sourceDies,
  writtenInAResync,
} from './scenarios.ts';

interface Bug extends PrefixOptions {
  readonly fault: string;
  /** What is to be said of it. */
  readonly seen: RegExp;
  /** Runs until it must have been seen. */
  readonly runs: number;
}

const lost = /is missing, and an fsync that covers it has returned/;
const wrong = /is in no state that it had|are no record that comes next|refused close/;

const bugs: readonly Bug[] = [
  { fault: 'ack_without_peer', disturbance: 'cut by a', ending: 'a killed', seen: lost, runs: 40 },
  { fault: 'ack_before_durable', disturbance: 'none', ending: 'b killed', seen: lost, runs: 60 },
  {
    fault: 'skip_journal_check',
    disturbance: 'none',
    ending: 'a killed, then b',
    seen: /is in no state that it had|is missing|refused/,
    runs: 20,
  },
  { fault: 'reorder_apply', disturbance: 'none', ending: 'a killed', seen: wrong, runs: 20 },
  { fault: 'lose_append_offset', disturbance: 'none', ending: 'in order', seen: wrong, runs: 10 },
  { fault: 'lose_mtime', disturbance: 'none', ending: 'in order', seen: wrong, runs: 10 },
  { fault: 'skip_displacement', ending: 'b killed', seen: wrong, runs: 40 },
];

interface ResyncBug {
  readonly fault: string;
  readonly scenario: (duo: Duo, run: number) => Promise<unknown>;
  readonly options: DuoOptions;
  readonly seen: RegExp;
  readonly runs: number;
}

const differ = /the trees differ/;
const disksMib = [256, 256] as const;

const resyncBugs: readonly ResyncBug[] = [
  {
    fault: 'mark_after_write',
    scenario: (duo, run) => primDiesAndReturns(duo, 'kill', 100 + run),
    options: { disksMib },
    seen: differ,
    runs: 3,
  },
  { fault: 'source_by_mtime', scenario: fork, options: {}, seen: differ, runs: 1 },
  {
    fault: 'old_over_new',
    scenario: (duo, run) => writtenInAResync(duo, 200 + run),
    options: { open: { ring: resyncRing, resyncrate: 4 << 20 } },
    seen: differ,
    runs: 5,
  },
  {
    fault: 'bitmap_cleared_early',
    scenario: diskFills,
    options: { open: slowly, disksMib: [256, 128] },
    seen: differ,
    runs: 1,
  },
  {
    fault: 'undo_skipped',
    scenario: sourceDies,
    options: { open: slowly },
    seen: /the trees differ|taking the resync back: undo/,
    runs: 1,
  },
];

describe('planted bugs', { skip: cannotRun }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  for (const bug of bugs) {
    test(`${bug.fault} is seen`, async (t) => {
      let problem: string | null = null;
      let seed = 1;
      for (; seed <= bug.runs && problem === null; seed++) {
        problem = (await prefixRun(ground, seed, bug)).problem;
      }
      t.diagnostic(`after ${seed - 1} runs: ${(problem ?? '').slice(0, 200)}`);
      assert.match(problem ?? 'nothing was seen', bug.seen);
    });
  }

  for (const bug of resyncBugs) {
    test(`${bug.fault} is seen`, async (t) => {
      let problem = 'nothing was seen';
      let runs = 0;
      for (; runs < bug.runs && problem === 'nothing was seen'; runs++) {
        await withDuo(ground, { ...bug.options, fault: bug.fault }, async (duo) => {
          await bug.scenario(duo, runs).catch((error: unknown) => (problem = String(error)));
        });
      }
      t.diagnostic(`after ${runs} runs: ${problem.slice(0, 200)}`);
      assert.match(problem, bug.seen);
    });
  }
});
