/**
 * The secondary was away while the primary went on: what is sent when it comes back. HOLDFAST_TREE_MIB:
 * the size of the tree of the first row; HOLDFAST_FLAP_SECONDS: how long the link flaps.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { cannotRun, Ground } from './pair.ts';
import { bytesRead, change, closedAndEqual, fill, mib, withDuo } from './rows.ts';

const treeMib = Number(process.env['HOLDFAST_TREE_MIB'] ?? 64);
const flapSeconds = Number(process.env['HOLDFAST_FLAP_SECONDS'] ?? 8);
const ring = 4 * mib;

describe('a secondary that was away', { skip: cannotRun, timeout: 1_200_000 }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('an outage with 1 % changed sends 1 %, and reads nothing else', async (t) => {
    await withDuo(ground, { open: { ring, journal: 64 * mib } }, async (duo) => {
      const tree = join(duo.prim.seen, 'tree');
      await fill(tree, treeMib);
      await duo.settled();
      await duo.crash(duo.second);
      await duo.alone();
      const blocks = Math.ceil((treeMib * mib) / 100 / 4096);
      // As often as it takes for the first changes to leave the ring.
      let changed = 0;
      for (let bytes = 0; bytes < 3 * ring; bytes += changed) {
        changed = await change(tree, treeMib, blocks, 1);
      }
      await duo.sh(duo.prim, 'sync -f .');
      const { worker } = await duo.prim.status();
      const [sent, read] = [await duo.figure(duo.prim, 'bytes_sent'), bytesRead(worker)];
      await duo.secondReturns();
      await duo.inSync();
      const wire = (await duo.figure(duo.prim, 'bytes_sent')) - sent;
      const looked = bytesRead(worker) - read;
      const { kind } = await duo.heard(duo.prim, 'resync', { state: 'done' });
      t.diagnostic(`${kind}: ${changed} bytes changed, ${wire} sent, ${looked} read`);
      assert.equal(kind, 'dirty');
      assert.ok(wire <= 1.1 * changed, `${wire} bytes sent for ${changed}`);
      assert.ok(looked <= 1.1 * changed, `${looked} bytes read for ${changed}`);
      await duo.settled();
      await duo.assertEqual();
      await closedAndEqual(duo);
    });
  });

  test('stopped in order, the primary writes, it rejoins', async () => {
    await withDuo(ground, {}, async (duo) => {
      await duo.begin(11);
      await delay(300);
      await duo.second.request('close');
      await duo.alone();
      await delay(600);
      await duo.openSecond();
      await duo.inSync();
      await delay(200);
      await duo.finish();
      await closedAndEqual(duo);
    });
  });

  test('stopped in order, nothing written, it rejoins', async () => {
    await withDuo(ground, {}, async (duo) => {
      await duo.begin(12);
      await delay(200);
      await duo.finish();
      await duo.second.request('close');
      await duo.alone();
      await duo.openSecond();
      await duo.inSync();
      await duo.assertEqual();
      await closedAndEqual(duo);
    });
  });

  test('killed again and again while the application writes', async () => {
    await withDuo(ground, { open: { ring } }, async (duo) => {
      await duo.begin(13);
      for (let i = 0; i < 4; i++) {
        await delay(200);
        await duo.crash(duo.second);
        await duo.alone();
        await delay(400);
        await duo.secondReturns();
        await duo.inSync();
      }
      await duo.finish();
      await closedAndEqual(duo);
    });
  });

  test('the link flaps each second, in a resync and after it', async (t) => {
    await withDuo(ground, { open: { ring, resyncrate: 2 * mib } }, async (duo) => {
      const tree = join(duo.prim.seen, 'tree');
      await duo.begin(14);
      await duo.second.request('close');
      await duo.alone();
      await fill(tree, 12);
      await duo.openSecond();
      for (let i = 0; i < flapSeconds; i++) {
        await delay(500);
        await (i % 2 === 0 ? duo.prim : duo.second).request('cut', { ms: 500 });
        await delay(500);
      }
      await duo.inSync();
      t.diagnostic(`${await duo.figure(duo.prim, 'connects')} connections`);
      await duo.finish();
      await closedAndEqual(duo);
    });
  });
});
