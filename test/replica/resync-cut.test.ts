/** A resync that is cut short: by the source's death, by the target's, by a full disk. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cannotRun, Ground, until } from './pair.ts';
import { closedAndEqual, fill, mib, withDuo } from './rows.ts';
import {
  diskFills,
  inTheMiddle,
  resyncRing,
  resyncTree,
  slowly,
  sourceDies,
  targetDies,
  writtenInAResync,
} from './scenarios.ts';

describe('a resync that is cut short', { skip: cannotRun, timeout: 600_000 }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('the source dies: the target goes back to what it was, and says so', async () => {
    await withDuo(ground, { open: slowly }, async (duo) => {
      await sourceDies(duo);
      await duo.heard(duo.prim, 'took_back');
      // The other acknowledged alone what is taken back here: the operator has chosen.
      await duo.sh(duo.prim, 'echo forced >forced; sync forced');
      await duo.secondReturns({ discard: 1, resyncrate: 0 });
      await duo.inSync();
      await duo.settled();
      await duo.assertEqual();
      await closedAndEqual(duo);
    });
  });

  test('the source dies and comes back: the resync goes on', async () => {
    await withDuo(ground, { open: slowly }, async (duo) => {
      await inTheMiddle(duo, 0.4);
      await duo.crash(duo.prim);
      await duo.primReturns({ resyncrate: 0 });
      await duo.inSync();
      await duo.settled();
      await duo.assertEqual();
      await closedAndEqual(duo);
    });
  });

  test('the worker of the source dies: the resync goes on', async () => {
    await withDuo(ground, { open: slowly }, async (duo) => {
      await inTheMiddle(duo, 0.4);
      await duo.prim.kill('worker');
      await duo.inSync();
      await duo.settled();
      await duo.assertEqual();
      await closedAndEqual(duo);
    });
  });

  for (const how of ['kill', 'pull'] as const) {
    test(`the target dies (${how}): the resync goes on where it was`, async (t) => {
      await withDuo(ground, { open: slowly, disksMib: [256, 256] }, async (duo) => {
        const more = await targetDies(duo, how);
        t.diagnostic(`${more} bytes sent after it came back`);
        assert.ok(more < 0.8 * resyncTree * mib, `${more} bytes sent again`);
        await closedAndEqual(duo);
      });
    });
  }

  test('the worker of the target dies: the resync goes on where it was', async () => {
    await withDuo(ground, { open: slowly }, async (duo) => {
      await inTheMiddle(duo, 0.6);
      const sent = await duo.figure(duo.prim, 'bytes_sent');
      await duo.second.kill('worker');
      await duo.inSync();
      const more = (await duo.figure(duo.prim, 'bytes_sent')) - sent;
      assert.ok(more < 0.8 * resyncTree * mib, `${more} bytes sent again`);
      await duo.settled();
      await duo.assertEqual();
      await closedAndEqual(duo);
    });
  });

  test('what is written while it is read is not overwritten by what was read', async () => {
    await withDuo(ground, { open: { ring: resyncRing, resyncrate: 4 * mib } }, async (duo) => {
      await writtenInAResync(duo, 32);
      await closedAndEqual(duo);
    });
  });

  test('the disk of the target fills: it goes back, and is made equal when there is room', async () => {
    await withDuo(ground, { open: slowly, disksMib: [256, 128] }, async (duo) => {
      await diskFills(duo);
      await closedAndEqual(duo);
    });
  });

  test('the disk of the target is full: the application does not notice', async () => {
    await withDuo(ground, { open: { ring: resyncRing }, disksMib: [256, 160] }, async (duo) => {
      const ballast = `${duo.disk(duo.second).path}/ballast`;
      await duo.second.request('close');
      await duo.alone();
      await duo.sh(duo.second, `fallocate -l 90M ${ballast}`);
      await fill(join(duo.prim.seen, 'tree'), 64);
      await duo.begin(31);
      await duo.openSecond();
      await until('the target has stopped', async () => {
        const state = (await duo.second.status()).all['state'] ?? '';
        const { peer } = await duo.prim.status();
        return peer !== 'connected' && (state === 'failed' || state === 'inconsistent');
      });
      assert.equal((await duo.prim.status()).all['insync'], '0');
      await duo.sh(duo.prim, 'echo goes on >on; sync on');
      await duo.second.request('close').catch(() => undefined);
      await duo.sh(duo.second, `rm ${ballast}`);
      await duo.openSecond();
      await duo.inSync();
      await duo.finish();
      await closedAndEqual(duo);
    });
  });
});
