/** The fault table is whole, and what it says of tests and figures is so. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { rows, scenarios } from '../lab/rows/catalogue.ts';
import { nameOf } from '../lab/rows/scenario.ts';
import { read, root } from './source.ts';

describe('the fault table', () => {
  test('has each row once', () => {
    const numbers = rows.map(({ number }) => number);
    assert.deepEqual(
      numbers,
      Array.from({ length: 60 }, (_, at) => at + 1),
    );
  });

  test('each row is measured, held by a test, or said to be neither', () => {
    const measured = new Set(scenarios.map(({ row }) => row));
    const bare = rows.filter(
      ({ number, proofs, note }) =>
        !measured.has(number) && proofs === undefined && note === undefined,
    );
    assert.deepEqual(bare, []);
  });

  test('tests that it names exist', () => {
    const named = rows.flatMap(({ number, proofs = [] }) =>
      proofs.map(([file, title]) => ({ number, file, title })),
    );
    const missing = named.filter(
      ({ file, title }) => !existsSync(join(root, file)) || !read(file).includes(title),
    );
    assert.deepEqual(missing, []);
  });

  test('each measured fault has a name of its own, and a row', () => {
    const names = scenarios.map(nameOf);
    assert.equal(new Set(names).size, names.length);
    const known = new Set(rows.map(({ number }) => number));
    assert.deepEqual(
      scenarios.filter(({ row }) => !known.has(row)),
      [],
    );
  });

  test('figures are of faults that it has, and nothing was lost', () => {
    const { faults } = JSON.parse(read('docs/reference/faults.json')) as {
      faults: Record<string, { lost: number }>;
    };
    const names = new Set(scenarios.map(nameOf));
    const strange = Object.keys(faults).filter((name) => !names.has(name));
    assert.deepEqual(strange, []);
    assert.deepEqual(
      Object.entries(faults).filter(([, { lost }]) => lost > 0),
      [],
    );
  });
});
