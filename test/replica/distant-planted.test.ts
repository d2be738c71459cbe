/** Bugs planted in what the engine does for distant copies: the rows must see each of them. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Distant } from './distant.ts';
import {
  burstAtTheEnd,
  marksAreAllThatIsLeft,
  overwritten,
  withDistant,
} from './distant-scenarios.ts';
import type { Duo, DuoOptions } from './duo.ts';
import { cannotRun, Ground } from './pair.ts';

interface Bug {
  readonly fault: string;
  readonly scenario: (duo: Duo, copy: Distant) => Promise<unknown>;
  readonly options: DuoOptions;
  readonly seen: RegExp;
  readonly runs: number;
}

const differ = /the trees differ/;

const bugs: readonly Bug[] = [
  {
    fault: 'divert_forgets',
    scenario: overwritten,
    options: {},
    seen: differ,
    runs: 3,
  },
  {
    fault: 'marks_forget_distant',
    scenario: marksAreAllThatIsLeft,
    options: { open: { marks: 64 } },
    seen: differ,
    runs: 1,
  },
  {
    fault: 'distant_ends_early',
    scenario: burstAtTheEnd,
    options: { relayed: true },
    seen: differ,
    runs: 3,
  },
];

describe('planted bugs of distant copies', { skip: cannotRun, timeout: 600_000 }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  for (const bug of bugs) {
    test(`${bug.fault} is seen`, async (t) => {
      let problem = 'nothing was seen';
      let runs = 0;
      for (; runs < bug.runs && problem === 'nothing was seen'; runs++) {
        await withDistant(ground, { ...bug.options, fault: bug.fault }, async (duo, copy) => {
          await bug.scenario(duo, copy).catch((error: unknown) => (problem = String(error)));
        });
      }
      t.diagnostic(`after ${runs} runs: ${problem.slice(0, 200)}`);
      assert.match(problem, bug.seen);
    });
  }
});
