/** The check of the nemesis itself: each harm is found, and nothing else. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Answer, parseAnswer, twoAnswerers, wrongRecords } from './set-check.ts';

const answer = (id: string, run: string, ms: number, lateMs = 1): Answer => ({
  kind: 'w',
  id,
  run,
  sentNs: ms * 1e6,
  seenNs: (ms + lateMs) * 1e6,
});

describe('the check of a set', () => {
  const turns = [answer('1', 'a', 10), answer('2', 'a', 20), answer('3', 'b', 30)];

  test('one after the other is well', () => {
    assert.deepEqual(twoAnswerers([...turns, answer('4', 'c', 40)]), []);
    assert.deepEqual(wrongRecords(turns, ['1 a', '2 a', '9 a', '3 b']), []);
  });

  test('answers of two at the same time', () => {
    const [found] = twoAnswerers([...turns, answer('4', 'a', 35)]);
    assert.equal(found, 'a and b answered at the same time, for 5 ms');
  });

  test('an answer that was on its way for too long', () => {
    const [found] = twoAnswerers([answer('1', 'a', 10, 2000), answer('2', 'b', 20)]);
    assert.equal(found, 'an answer of a came 1990 ms after the first of b');
  });

  test('a datagram that two answered', () => {
    const [found] = twoAnswerers([answer('1', 'a', 10), answer('1', 'b', 20)]);
    assert.equal(found, 'w 1 was answered by a and by b');
  });

  test('records that are lost, doubled, of another, or written by one whose turn is over', () => {
    assert.deepEqual(wrongRecords(turns, ['1 a', '3 b']), ['2 is lost: a acknowledged it']);
    assert.deepEqual(wrongRecords(turns, ['1 a', '2 a', '2 a', '3 b']), [
      '2 is there twice: of a and of a',
    ]);
    assert.deepEqual(wrongRecords(turns, ['1 a', '2 b', '3 b']), [
      '2 was acknowledged by a and is of b',
    ]);
    assert.deepEqual(wrongRecords(turns, ['1 a', '3 b', '2 a']), ['a wrote 2 after b had begun']);
  });

  test('a line that says nothing is none', () => {
    assert.equal(parseAnswer('w 1.1'), null);
    assert.deepEqual(parseAnswer('u 7 a@1 5 6'), {
      kind: 'u',
      id: '7',
      run: 'a@1',
      sentNs: 5,
      seenNs: 6,
    });
  });
});
