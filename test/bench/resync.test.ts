/** What the resync bench changes, and what it makes of what it saw. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  blockBytes,
  chosenBlocks,
  p99,
  type Pass,
  rowOf,
  runsOf,
  verdictsOf,
  type Waits,
  waitsWithin,
  wireBytes,
} from '../../bench/resync/figures.ts';
import { script } from '../../bench/resync/script.ts';
import type { Changed, Task, Touched } from '../../bench/resync/writer.ts';
import { fc } from '../support/random.ts';

const mib = 1 << 20;

describe('which blocks change', () => {
  test('as many as were asked for, each once, the same for a seed', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5000 }),
        fc.double({ min: 0.001, max: 1, noNaN: true }),
        fc.integer({ min: 0, max: 1000 }),
        (blocks, part, seed) => {
          const chosen = chosenBlocks(blocks, part, seed);
          assert.equal(chosen.length, Math.max(1, Math.round(blocks * part)));
          assert.ok(chosen.every((block, at) => block > (chosen[at - 1] ?? -1) && block < blocks));
          assert.deepEqual(chosenBlocks(blocks, part, seed), chosen);
        },
      ),
    );
  });

  test('another seed chooses others, all over the tree', () => {
    const [one, two] = [chosenBlocks(10_000, 0.1, 1), chosenBlocks(10_000, 0.1, 2)];
    assert.notDeepEqual(one, two);
    for (const quarter of [0, 1, 2, 3]) {
      const here = one.filter((block) => Math.floor(block / 2500) === quarter).length;
      assert.ok(here > 200 && here < 300, `${here} of about 250`);
    }
  });

  test('their ranges are those blocks and no more, and end with their file', () => {
    const runs = runsOf([0, 1, 255, 256, 257, 300], mib);
    assert.deepEqual(runs, [
      { file: 0, offset: 0, bytes: 2 * blockBytes },
      { file: 0, offset: 255 * blockBytes, bytes: blockBytes },
      { file: 1, offset: 0, bytes: 2 * blockBytes },
      { file: 1, offset: 44 * blockBytes, bytes: blockBytes },
    ]);
  });
});

describe('the writer', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'holdfast-resync-'));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const tree = () => ({ dir, files: 4, fileBytes: mib });
  function carryOut<T>(task: Task): T {
    const [file = '', ...args] = script('writer');
    const { status, stdout, stderr } = spawnSync(file, args, {
      input: JSON.stringify(task),
      encoding: 'utf8',
      maxBuffer: 64 * mib,
    });
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout) as T;
  }
  const content = () =>
    Array.from({ length: 4 }, (_, at) => readFileSync(join(dir, '0000', `00000${at}`)));

  /** Bytes of the blocks that differ. */
  function differing(one: readonly Buffer[], two: readonly Buffer[]): number {
    let bytes = 0;
    for (const [at, file] of one.entries()) {
      assert.equal(file.length, mib);
      for (let block = 0; block < mib; block += blockBytes) {
        const end = block + blockBytes;
        if (!file.subarray(block, end).equals(two[at]?.subarray(block, end) ?? Buffer.of())) {
          bytes += blockBytes;
        }
      }
    }
    return bytes;
  }

  test('changes as many bytes as it says, however often it writes them', () => {
    carryOut({ task: 'fill', ...tree() });
    for (const [part, atLeast] of [
      [0.01, 0],
      [0.1, 5 * mib],
      [1, 0],
    ] as const) {
      const old = content();
      const said = carryOut<Changed>({ task: 'change', ...tree(), part, seed: 7, atLeast });
      assert.equal(differing(old, content()), said.changedBytes);
      assert.equal(said.changedBytes, Math.round(1024 * part) * blockBytes);
      assert.ok(said.writtenBytes >= Math.max(atLeast, said.changedBytes));
    }
  });

  test('touches each file once a pass', () => {
    carryOut({ task: 'fill', ...tree() });
    const old = content();
    const waits = carryOut<Touched>({ task: 'touch', ...tree(), passes: 3, sync: true });
    assert.deepEqual(
      waits.map((pass) => pass.length),
      [4, 4, 4],
    );
    assert.ok(waits.flat().every((us) => us > 0));
    assert.equal(differing(old, content()), 3 * 4 * blockBytes);
  });
});

describe('what is counted', () => {
  const head = 'Inter-|   Receive  |  Transmit\n face |bytes    packets\n';

  test('bytes of the device in both directions, of no other', () => {
    const fields = (bytes: number) => `${bytes} 1 0 0 0 0 0 0`;
    const text = `${head}    lo: ${fields(9)} ${fields(9)}\n  eth0: ${fields(1000)} ${fields(20)}\n`;
    assert.equal(wireBytes(text, 'eth0'), 1020);
    // Large figures take the space behind the colon.
    assert.equal(wireBytes(`${head}eth0:${fields(5)} ${fields(6)}\n`, 'eth0'), 11);
    assert.throws(() => wireBytes(text, 'eth1'), /no device/);
  });

  test('a write that was under way when the resync began or ended is one of its writes', () => {
    const operations = [
      { atMs: 10, us: 1000 },
      { atMs: 19, us: 2000 },
      { atMs: 21, us: 100 },
      { atMs: 30, us: 50_000 },
      { atMs: 81, us: 100 },
    ];
    assert.deepEqual(waitsWithin(operations, 20, 40), [2000, 100, 50_000]);
    assert.deepEqual(waitsWithin(operations, 0, 12), [1000]);
  });

  test('of few writes there is no p99', () => {
    assert.ok(Number.isNaN(p99(Array.from({ length: 99 }, () => 1))));
    assert.equal(p99(Array.from({ length: 200 }, (_, at) => at + 1)), 198);
  });
});

describe('a row', () => {
  const pass: Pass = {
    changedBytes: 10 * mib,
    kind: 'dirty',
    wireBytes: 10.5 * mib,
    readBytes: 10 * mib,
    backMs: 700,
    resyncMs: 500,
  };
  const many = (us: number) => Array.from({ length: 200 }, () => us);
  const waits: Waits = { alone: many(400), during: many(500), after: many(450) };

  test('shares, rates and ratios', () => {
    const row = rowOf(0.01, [pass], [{ ...pass, resyncMs: 1000 }], waits, 80 * mib);
    assert.equal(row.sentShare, 1.05);
    assert.equal(row.readShare, 1);
    assert.equal(row.bytesPerS, 20 * mib);
    assert.equal(row.ofLink, 0.25);
    assert.equal(row.loadedBytesPerS, 10 * mib);
    assert.deepEqual([row.p99Ratio, row.writes], [1.25, 200]);
  });

  test('medians over rounds', () => {
    const others = [pass, { ...pass, wireBytes: 30 * mib }, { ...pass, kind: 'compare' }];
    const row = rowOf(0.01, others, [pass], waits, mib);
    assert.deepEqual([row.sentShare, row.kind], [1.05, 'dirty, compare']);
  });

  test('each figure beyond its target is MISSED, and what was not measured is neither', () => {
    const of = (change: Partial<Pass>, during = 500) =>
      verdictsOf([
        rowOf(0.1, [{ ...pass, ...change }], [pass], { ...waits, during: many(during) }, mib),
      ]).map(({ isMet }) => isMet);
    assert.deepEqual(of({}), [true, true, true]);
    assert.deepEqual(of({ wireBytes: 11.1 * mib }), [false, true, true]);
    assert.deepEqual(of({ readBytes: 12 * mib }), [true, false, true]);
    assert.deepEqual(of({}, 601), [true, true, false]);
    const few = rowOf(0.001, [pass], [pass], { ...waits, during: [1, 2] }, mib);
    assert.deepEqual(
      verdictsOf([few]).map(({ isMet }) => isMet),
      [true, true, null],
    );
  });
});
