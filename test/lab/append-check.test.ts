/** The check of appended values itself: each harm is found, and nothing else. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AppendHistory, wrongNow, wrongReads } from './append-check.ts';
import { twoAnswerers } from './set-check.ts';

/** 1.1 is committed from 10 to 20, 1.2 is undone, of 1.3 nobody knows, 1.4 has no end. */
const told = [
  'invoked 1.1 10',
  'ok 1.1 20 s1@5 1000 1',
  'invoked 1.2 30',
  'fail 1.2 35',
  'invoked 1.3 40',
  'unknown 1.3 50',
  'invoked 1.4 60',
];

function history(...more: readonly string[]): AppendHistory {
  const found = new AppendHistory();
  for (const line of [...told, ...more]) found.add(line);
  return found;
}

const read = (began: number, ended: number, ids: string, run = 's1@5'): string =>
  `read ${began} ${ended} ${run} ${1000 + began} 1 ${ids}`;

describe('the check of appended values', () => {
  test('what may be is well', () => {
    const well = history(
      read(5, 30, '1.1'),
      // Began before the acknowledgement: both are true.
      read(19, 22, ''),
      read(45, 55, '1.1,1.3'),
      read(61, 70, '1.3,1.1,1.4'),
    );
    assert.deepEqual(wrongReads(well), []);
    assert.deepEqual(wrongNow(well, ['1.1', '1.3', '1.4'], 100), []);
    assert.equal(well.acknowledged, 1);
    assert.deepEqual(wrongReads(history(read(5, 8, ''), read(70, 80, '1.1'))), []);
  });

  const wrong: readonly (readonly [harm: string, found: RegExp, ...reads: readonly string[]])[] = [
    ['lost', /^1\.1 was acknowledged before and is not in read 1$/, read(21, 25, '')],
    ['doubled', /^1\.1 is twice in read 1$/, read(21, 25, '1.1,1.1')],
    ['of the future', /^1\.3 is in read 1 and was not appended yet$/, read(21, 25, '1.1,1.3')],
    ['invented', /^7\.7 is in read 1 and was not appended yet$/, read(21, 25, '1.1,7.7')],
    ['undone', /^1\.2 is in read 1 and was undone$/, read(36, 38, '1.1,1.2')],
    [
      'gone again',
      /^1\.3 was read before and is not in read 2$/,
      read(51, 55, '1.1,1.3'),
      read(56, 58, '1.1'),
    ],
  ];
  for (const [harm, found, ...reads] of wrong) {
    test(`a value that is ${harm}`, () => {
      const [problem = '', ...more] = wrongReads(history(...reads));
      assert.match(problem, found);
      assert.deepEqual(more, []);
    });
  }

  test('two reads at the same time may differ', () => {
    assert.deepEqual(wrongReads(history(read(51, 60, '1.1,1.3'), read(52, 55, '1.1'))), []);
  });

  test('what is lost in the end', () => {
    assert.deepEqual(wrongNow(history(), ['1.3'], 100), [
      '1.1 was acknowledged before and is not in what the primary has',
    ]);
    assert.deepEqual(wrongNow(history(read(51, 55, '1.1,1.3')), ['1.1'], 100), [
      '1.3 was read before and is not in what the primary has',
    ]);
  });

  test('an answer of a former server is an answer of two', () => {
    const both = history(read(70, 80, '1.1', 's2@6'), read(90, 95, '1.1', 's1@5'));
    assert.match(twoAnswerers(both.answers).join(), /^s1@5 and s2@6 answered at the same time/);
    const probed = history('probe s2@6 2000 1', 'probe s1@5 3000 1');
    assert.match(twoAnswerers(probed.answers).join(), /^s1@5 and s2@6 answered at the same time/);
  });
});
