/**
 * Random reads, writes, truncations, holes, stores to mappings, direct I/O and copies on a replicated
 * directory, beside a model in memory (native/lab/replica/fsx.cc); the other server has the same
 * bytes at the end. HOLDFAST_FSX_SECONDS: how long, instead of 50 s in all.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cannotRun, Ground, run, tool } from './pair.ts';

const seconds = Number(process.env['HOLDFAST_FSX_SECONDS'] ?? 50);
const first = Number(process.env['HOLDFAST_SEED'] ?? Date.now() % 1_000_000_000);

describe('fsx', { skip: cannotRun }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('the content is what the model says, on both servers', async (t) => {
    const pair = await ground.pair();
    try {
      await pair.start();
      const [file = '', ...args] = pair.a.space.enter;
      const part = String(Math.ceil(seconds / 2));
      // Two at once: the server's threads are to meet.
      const fsx = [tool, 'fsx', pair.a.dir, '--seconds', part, '--keep', '1', '--seed'];
      for (const round of [0, 2]) {
        const both = [first + round, first + round + 1].map((seed) =>
          run(file, [...args, ...fsx, String(seed)]),
        );
        for (const { code, out } of await Promise.all(both)) {
          t.diagnostic(out.trim().split('\n').at(-1) ?? '');
          assert.equal(code, 0, out);
        }
      }
      await pair.a.request('close');
      await pair.b.request('close');
      const compared = await run(tool, ['compare', pair.a.dir, pair.b.dir]);
      assert.equal(compared.code, 0, compared.out);
      assert.match(compared.out, /12 names/);
    } finally {
      await pair.end();
    }
  });
});
