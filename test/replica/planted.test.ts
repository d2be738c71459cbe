/**
 * Bugs planted in the engine: the check of the prefix property must see each of them. The runs are
 * those of prefix.test.ts, with the disturbance and the ending at which the bug does its harm.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cannotRun, Ground } from './pair.ts';
import { type PrefixOptions, prefixRun } from './prefix.ts';

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
});
