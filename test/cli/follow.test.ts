import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { newLines } from '../../src/cli/follow.ts';
import { duration, microseconds, table } from '../../src/cli/format.ts';
import { fc } from '../support/random.ts';

describe('newLines', () => {
  test('examples', () => {
    assert.deepEqual(newLines([], ['a', 'b']), ['a', 'b']);
    assert.deepEqual(newLines(['a', 'b'], ['a', 'b']), []);
    assert.deepEqual(newLines(['a', 'b'], ['b', 'c']), ['c']);
    assert.deepEqual(newLines(['a', 'b'], ['x', 'y']), ['x', 'y']);
    assert.deepEqual(newLines(['a', 'a'], ['a', 'a', 'b', 'a', 'a']), ['b', 'a', 'a']);
  });

  test('a log of distinct lines, seen through windows, comes out whole and once', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 20 }),
        fc.integer({ min: 10, max: 30 }),
        (growths, window) => {
          const log: string[] = [];
          const printed: string[] = [];
          let seen: readonly string[] = [];
          for (const growth of growths) {
            for (let i = 0; i < growth; i += 1) log.push(`line ${log.length}`);
            const now = log.slice(-window);
            printed.push(...newLines(seen, now));
            seen = now;
          }
          assert.deepEqual(printed, log);
        },
      ),
    );
  });
});

describe('format', () => {
  test('durations', () => {
    const cases = [
      [0, '0 ms'],
      [-5, '0 ms'],
      [999, '999 ms'],
      [1000, '1 s'],
      [60_000, '1 min'],
      [200_000, '3 min 20 s'],
      [3_600_000 + 59_000, '1 h'],
      [86_400_000 * 12 + 3_600_000 * 4, '12 d 4 h'],
    ] as const;
    for (const [ms, text] of cases) assert.equal(duration(ms), text);
    assert.equal(microseconds(85.4), '85 us');
    assert.equal(microseconds(1234), '1.2 ms');
  });

  test('a table without rows is nothing', () => {
    assert.equal(table(['A'], [], false), '');
  });

  test('colour does not shift columns', () => {
    const cell = { text: 'UP', readiness: 'Ready' } as const;
    const text = table(
      ['S', 'X'],
      [
        [cell, '1'],
        ['longer', '2'],
      ],
      true,
    );
    assert.equal(text, 'S       X\n\u001b[32mUP\u001b[39m      1\nlonger  2\n');
  });
});
