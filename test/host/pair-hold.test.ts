/** Two that hold a mirror back do not lift each other's hold. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PairHold } from '../../src/host/pair-hold.ts';

function make(now: string | null = null): { hold: PairHold; told: (string | null)[] } {
  const told: (string | null)[] = [];
  const hold = new PairHold(
    () => now,
    (why) => {
      now = why;
      told.push(why);
    },
  );
  return { hold, told };
}

describe('why a mirror is held back', () => {
  test('each word is told once', () => {
    const { hold, told } = make();
    for (const why of [null, 'disk', 'disk', null, null]) hold.tell('data', why);
    assert.deepEqual(told, ['disk', null]);
  });

  test('one goes on where the other has nothing against it', () => {
    const { hold, told } = make();
    hold.tell('checks', 'rule');
    hold.tell('data', 'disk');
    hold.tell('checks', null);
    hold.tell('checks', 'rule');
    hold.tell('data', null);
    hold.tell('checks', null);
    assert.deepEqual(told, ['rule', 'disk', 'rule', null]);
  });

  test('what a former agent was held by stays until both spoke', () => {
    for (const order of [
      ['data', 'checks'],
      ['checks', 'data'],
    ] as const) {
      const { hold, told } = make('disk');
      hold.assume('disk');
      hold.tell(order[0], null);
      assert.deepEqual(told, []);
      hold.tell(order[1], null);
      assert.deepEqual(told, [null]);
    }
  });
});
