/**
 * A primary dies with writes in flight, the secondary takes over, the old one returns: what only it
 * had is taken back and kept. Killed: both processes; pulled: its disk also loses what was not on it.
 */
import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { cannotRun, Ground } from './pair.ts';
import { closedAndEqual, fill, mib, quarantined, withDuo } from './rows.ts';
import { primDiesAndReturns, tailOfItsOwn } from './scenarios.ts';

const disksMib = [256, 256] as const;

describe('a primary that died', { skip: cannotRun, timeout: 600_000 }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  for (const how of ['kill', 'pull'] as const) {
    test(`${how}: it returns, and its tail is rolled back and kept`, async () => {
      await withDuo(ground, { disksMib }, async (duo) => {
        await primDiesAndReturns(duo, how, 21);
        const { kind } = await duo.heard(duo.prim, 'resync', { state: 'done' });
        assert.equal(kind, 'roll_back');
        const kept = await quarantined(duo.second);
        const why = new Map(kept.map(({ path, reason }) => [path.replace(/^\//, ''), reason]));
        assert.equal(why.get('only'), 'rolled_back', JSON.stringify(kept));
        assert.equal(why.get('sub/only'), 'rolled_back', JSON.stringify(kept));
        assert.equal(why.get('shared'), 'overwritten', JSON.stringify(kept));
        await closedAndEqual(duo);
        // And back again, in order.
        await duo.openSecond();
        duo.epoch += 1;
        await duo.openPrim();
        await duo.inSync();
        await closedAndEqual(duo);
      });
    });

    test(`${how} of both: the secondary takes over, the old one returns`, async () => {
      await withDuo(ground, { disksMib }, async (duo) => {
        await duo.begin(23);
        await delay(500);
        await Promise.all([duo.crash(duo.prim, how), duo.crash(duo.second, how)]);
        await duo.secondReturns();
        await duo.takeOver();
        await duo.check(duo.prim, 'fsync');
        await duo.begin(24);
        await delay(300);
        await duo.secondReturns();
        await duo.inSync();
        await duo.finish();
        await closedAndEqual(duo);
      });
    });
  }

  test('both killed, both back as they were', async () => {
    await withDuo(ground, {}, async (duo) => {
      await duo.begin(25);
      await delay(500);
      await Promise.all([duo.crash(duo.prim), duo.crash(duo.second)]);
      await Promise.all([duo.primReturns(), duo.secondReturns()]);
      await duo.inSync();
      await duo.settled();
      await duo.check(duo.prim, 'fsync');
      await duo.assertEqual();
      await duo.begin(26);
      await delay(300);
      await duo.finish();
      await closedAndEqual(duo);
    });
  });

  test('both pulled, both back as they were: what was synced is there', async () => {
    await withDuo(ground, { disksMib }, async (duo) => {
      const lines = Array.from({ length: 40 }, (_, i) => `echo text${i} >f${i}; sync f${i} .`);
      await duo.sh(duo.prim, lines.join('\n'));
      await duo.sh(duo.prim, 'for i in $(seq 200); do echo more >g$i; done; echo x >>f1');
      await Promise.all([duo.crash(duo.prim, 'pull'), duo.crash(duo.second, 'pull')]);
      await Promise.all([duo.primReturns(), duo.secondReturns()]);
      await duo.inSync();
      await duo.settled();
      await duo.assertEqual();
      for (const side of [duo.prim, duo.second]) {
        const all = await duo.sh(side, 'for i in $(seq 0 39); do head -n 1 f$i; done');
        const wanted = Array.from({ length: 40 }, (_, i) => `text${i}\n`);
        assert.equal(all, wanted.join(''));
      }
      await closedAndEqual(duo);
    });
  });

  test('its marks are damaged: all is compared, and that is said', async () => {
    await withDuo(ground, { disksMib }, async (duo) => {
      await fill(join(duo.prim.seen, 'tree'), 24);
      await duo.begin(27);
      await delay(400);
      await duo.sh(duo.prim, 'head -c 9000 /dev/zero >shared; sync shared');
      await tailOfItsOwn(duo);
      await duo.disk(duo.prim).sync();
      await duo.crash(duo.prim, 'pull');
      const folder = duo.prim.space.seen(duo.prim.state);
      const marks = (await readdir(folder)).filter((name) => name.startsWith('marks-'));
      assert.notEqual(marks.length, 0);
      for (const name of marks) await writeFile(join(folder, name), Buffer.alloc(8192, 0x5a));
      await duo.takeOver();
      await duo.begin(28);
      await delay(200);
      const sent = await duo.figure(duo.prim, 'bytes_sent');
      await duo.secondReturns();
      await duo.inSync();
      const { kind } = await duo.heard(duo.prim, 'resync', { state: 'done' });
      assert.equal(kind, 'compare');
      await duo.finish();
      const wire = (await duo.figure(duo.prim, 'bytes_sent')) - sent;
      assert.ok(wire < 12 * mib, `${wire} bytes were sent of 24 MiB that are equal`);
      await closedAndEqual(duo);
    });
  });
});
