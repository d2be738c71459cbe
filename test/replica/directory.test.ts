/**
 * A directory whose file system is not mounted, or another one, is not taken for the copy. State folders lie
 * elsewhere, so they are there.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { lookAtDirectories } from '../../src/native/replica.ts';
import { Disk, runIn } from './disk.ts';
import { Duo } from './duo.ts';
import { cannotRun, Ground, type Side } from './pair.ts';
import { closedAndEqual } from './rows.ts';

/** Without what the file system puts there itself: trees are compared. */
async function emptyDisk(path: string, side: Side): Promise<Disk> {
  const disk = await Disk.make(path, side.space, 64);
  await runIn(side.space, 'rmdir', [join(path, 'lost+found')]);
  return disk;
}

const notMounted = { code: 'HF-MIRROR-029' };

describe('the directory of a copy', { skip: cannotRun, timeout: 240_000 }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  /** Both directories are mount points of disks; `one` is in both. */
  async function withDisks(body: (duo: Duo, disks: Map<Side, Disk>) => Promise<void>) {
    const duo = await Duo.make(ground);
    try {
      const disks = new Map<Side, Disk>();
      for (const side of [duo.prim, duo.second]) disks.set(side, await emptyDisk(side.dir, side));
      await Promise.all([duo.prim.launch(), duo.second.launch()]);
      await duo.openSecond();
      await duo.openPrim();
      await duo.inSync();
      await duo.sh(duo.prim, 'mkdir in; echo one >in/one; sync in/one');
      await duo.settled();
      await body(duo, disks);
    } finally {
      await duo.end();
    }
  }

  const names = (duo: Duo, side: Side): Promise<string> => duo.sh(side, 'ls -A');
  const diskOf = (disks: Map<Side, Disk>, side: Side): Disk => {
    const disk = disks.get(side);
    assert.ok(disk);
    return disk;
  };

  test('a secondary whose disk is not mounted is refused; mounted, it goes on', async () => {
    await withDisks(async (duo, disks) => {
      const { second } = duo;
      assert.doesNotMatch(await names(duo, duo.prim), /holdfast/);
      await second.request('close');
      assert.match(await names(duo, second), /^\.holdfast-copy$/m);
      await diskOf(disks, second).unmount();
      await duo.alone();
      await duo.sh(duo.prim, 'echo two >two; sync two');
      await assert.rejects(duo.openSecond(), notMounted);
      assert.equal(await names(duo, second), '', 'nothing is made below the mount point');
      await diskOf(disks, second).mount();
      await duo.openSecond();
      await duo.inSync();
      await closedAndEqual(duo);
      assert.equal(await duo.sh(second, 'cat in/one two'), 'one\ntwo\n');
    });
  });

  test('a primary whose disk is not mounted is refused, by force too', async () => {
    await withDisks(async (duo, disks) => {
      const { prim } = duo;
      await prim.request('close');
      await diskOf(disks, prim).unmount();
      duo.epoch += 1;
      await assert.rejects(duo.openPrim(), notMounted);
      await assert.rejects(duo.openPrim({ force: 1 }), notMounted);
      assert.equal(await names(duo, prim), '');
      await diskOf(disks, prim).mount();
      await duo.openPrim();
      await duo.inSync();
      assert.equal(await duo.sh(prim, 'cat in/one'), 'one\n');
      await closedAndEqual(duo);
    });
  });

  /** The same files on a new disk, copied one by one with all that they have. */
  async function moved(duo: Duo, disks: Map<Side, Disk>, side: Side): Promise<void> {
    const to = join(duo.pair.folder, `new-${side.name}`);
    const disk = await emptyDisk(to, side);
    await runIn(side.space, 'cp', ['-a', `${side.dir}/.`, to]);
    await diskOf(disks, side).unmount();
    await disk.unmount();
    await runIn(side.space, 'mount', ['-o', 'loop', `${to}.image`, side.dir]);
  }

  test('a copy of the files on another disk is compared as a whole, by order', async () => {
    await withDisks(async (duo, disks) => {
      const { second } = duo;
      await second.request('close');
      await moved(duo, disks, second);
      await duo.alone();
      await assert.rejects(duo.openSecond(), notMounted);
      await duo.openSecond({ fullsync: 1 });
      await duo.inSync();
      await closedAndEqual(duo);
      assert.equal(await duo.sh(second, 'cat in/one'), 'one\n');
    });
  });

  test('a primary by force takes what is there, and its history begins anew', async () => {
    await withDisks(async (duo, disks) => {
      const { prim, second } = duo;
      await prim.request('close');
      await moved(duo, disks, prim);
      duo.epoch += 1;
      await assert.rejects(duo.openPrim(), notMounted);
      await duo.openPrim({ force: 1 });
      await duo.alone();
      assert.equal(await duo.sh(prim, 'cat in/one'), 'one\n');
      await duo.sh(prim, 'echo more >>in/one; sync in/one');
      await duo.heard(prim, 'peer', { state: 'refused', reason: 'unrelated' });
      await second.request('close');
      await duo.openSecond({ fullsync: 1 });
      await duo.inSync();
      await closedAndEqual(duo);
      assert.equal(await duo.sh(second, 'cat in/one'), 'one\nmore\n');
    });
  });

  test('it is said beforehand, and nothing is changed by that', async () => {
    await withDisks(async (duo) => {
      const { second } = duo;
      await second.request('close');
      const look = (dir: string, force = false) =>
        lookAtDirectories(second.state, [second.space.seen(dir)], force);
      assert.equal(await look(second.dir), null);
      const other = join(duo.pair.folder, 'other');
      assert.equal((await look(other))?.code, 'ENOENT');
      await duo.sh(second, `mkdir ${other}`);
      assert.equal((await look(other))?.code, 'VOLUME');
      assert.equal((await look(other, true))?.code, 'VOLUME', 'there is nothing in it');
      await duo.sh(second, `echo restored >${other}/one`);
      assert.equal(await look(other, true), null);
      assert.equal(await duo.sh(second, `ls -A ${other}`), 'one\n');
    });
  });
});
