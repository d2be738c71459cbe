/** Where an operator's word is needed, or there was nothing before: forks, first copies, transport. */
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Duo } from './duo.ts';
import { cannotRun, Ground, run, tool } from './pair.ts';
import { closedAndEqual, fill, mib, quarantined, withDuo } from './rows.ts';
import { fork } from './scenarios.ts';

const ring = 4 * mib;
const treeMib = 24;

describe('a copy that does not simply follow', { skip: cannotRun, timeout: 600_000 }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('a fork is refused with figures, both stay as they are, one is discarded', async () => {
    await withDuo(ground, {}, async (duo) => {
      const { said, copies } = await fork(duo);
      for (const key of ['common', 'source_more', 'target_more']) {
        assert.ok(Number(said[key]) > 0, `${key} in ${JSON.stringify(said)}`);
      }
      await duo.second.request('close');
      await duo.openSecond({ discard: 1 });
      await duo.inSync();
      await duo.settled();
      await duo.assertEqual();
      await duo.assertEqual(copies.prim);
      const paths = (await quarantined(duo.second)).map(({ path }) => path.replace(/^\//, ''));
      assert.ok(paths.includes('own-a') && paths.includes('both'), paths.join());
      await closedAndEqual(duo);
    });
  });

  /** A primary alone, with a tree from before its time, under operations. */
  async function grown(duo: Duo): Promise<void> {
    await mkdir(duo.prim.seen, { recursive: true });
    const made = await run(tool, ['tree', duo.prim.seen, '--files', '1500', '--seed', '3']);
    assert.equal(made.code, 0, made.out);
    await fill(join(duo.prim.seen, 'tree'), treeMib);
  }

  test('an empty secondary gets a first copy while the application writes', async () => {
    const duo = await Duo.make(ground, { open: { ring } });
    try {
      await grown(duo);
      await duo.prim.launch();
      await duo.openPrim();
      await duo.alone();
      await duo.begin(41);
      await duo.secondReturns();
      await duo.inSync();
      const { kind } = await duo.heard(duo.prim, 'resync', { state: 'done' });
      assert.equal(kind, 'first_copy');
      await duo.finish();
      await closedAndEqual(duo);
    } finally {
      await duo.end();
    }
  });

  test('a transported copy: only differences are sent', async (t) => {
    const duo = await Duo.make(ground, { open: { ring } });
    try {
      await grown(duo);
      await run('cp', ['-a', duo.prim.seen, duo.second.seen]);
      await run('sh', ['-c', `echo foreign >'${duo.second.seen}/foreign'`]);
      await run('sh', ['-c', `echo changed >'${duo.prim.seen}/tree/f2'`]);
      await duo.prim.launch();
      await duo.openPrim();
      await duo.alone();
      await duo.secondReturns({ fullsync: 1 });
      await duo.inSync();
      const sent = await duo.figure(duo.prim, 'bytes_sent');
      t.diagnostic(`${sent} bytes sent`);
      assert.ok(sent < (treeMib / 2) * mib, `${sent} bytes sent`);
      await duo.settled();
      await duo.assertEqual();
      const kept = await quarantined(duo.second);
      assert.ok(
        kept.some(({ path, reason }) => path.endsWith('foreign') && reason === 'foreign'),
        JSON.stringify(kept),
      );
      await closedAndEqual(duo);
    } finally {
      await duo.end();
    }
  });

  test('fullsync: a copy that follows is made anew from what it has', async () => {
    await withDuo(ground, { open: { ring } }, async (duo) => {
      await fill(join(duo.prim.seen, 'tree'), treeMib);
      await duo.settled();
      await duo.second.request('close');
      await duo.alone();
      await duo.begin(42);
      const sent = await duo.figure(duo.prim, 'bytes_sent');
      await duo.openSecond({ fullsync: 1 });
      await duo.inSync();
      await duo.finish();
      const more = (await duo.figure(duo.prim, 'bytes_sent')) - sent;
      assert.ok(more < (treeMib / 2) * mib, `${more} bytes sent`);
      await closedAndEqual(duo);
    });
  });
});
