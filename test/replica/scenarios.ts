/** What happens in a row, for the test of the row and for those of planted bugs. */
import { randomBytes } from 'node:crypto';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Duo } from './duo.ts';
import { until } from './pair.ts';
import { fill, mib } from './rows.ts';

/** The primary has what the secondary has not: a file, a folder with one, and other bytes in one. */
export async function tailOfItsOwn(duo: Duo): Promise<void> {
  await duo.prim.request('cut', { ms: 600_000 });
  const bytes = 'printf XYZ | dd of=shared bs=1 seek=5000 conv=notrunc status=none';
  await duo.sh(duo.prim, `echo own >only; mkdir sub; echo own >sub/only; ${bytes}`);
}

/**
 * The primary dies with writes in flight and changes that only it has, the secondary takes over
 * and goes on, the old one returns. Wants disks.
 */
export async function primDiesAndReturns(
  duo: Duo,
  how: 'kill' | 'pull',
  seed: number,
): Promise<void> {
  await duo.sh(duo.prim, 'head -c 9000 /dev/zero >shared; sync shared');
  await duo.primAgain();
  await duo.begin(seed);
  await delay(400);
  await tailOfItsOwn(duo);
  // So that a loss of power leaves of it what the engine must know of.
  await duo.disk(duo.prim).sync();
  await duo.crash(duo.prim, how);
  await duo.takeOver();
  await duo.check(duo.prim, 'fsync');
  await duo.begin(seed + 1);
  await delay(300);
  await duo.secondReturns();
  await duo.inSync();
  await delay(200);
  await duo.finish();
}

/**
 * Both acknowledge alone, the first is stopped in order. What was said of it, and copies of both as
 * they were when they met.
 */
export async function fork(duo: Duo) {
  await duo.sh(duo.prim, 'echo both >both; sync -f .');
  await duo.primAgain();
  await duo.crash(duo.second);
  await duo.alone();
  await duo.sh(duo.prim, 'echo a >own-a; echo a >>both; sync own-a both');
  await duo.prim.request('close');
  await duo.secondReturns();
  await duo.takeOver();
  await duo.sh(duo.prim, 'echo b >own-b; echo bb >>both; sync own-b both');
  const copies = { prim: await duo.copy(duo.prim), second: await duo.copy(duo.second) };
  await duo.openSecond();
  await delay(1500); // it tries again, and must not take it then either
  await duo.assertEqual(copies.prim, duo.prim.seen);
  await duo.assertEqual(copies.second, duo.second.seen);
  const said = await duo.heard(duo.prim, 'peer', { state: 'refused', reason: 'fork' });
  return { said, copies };
}

export const resyncRing = 4 * mib;
export const resyncTree = 16;
/** So slow that something can happen in the middle of it. */
export const slowly = { ring: resyncRing, resyncrate: 4 * mib };

/**
 * The secondary is away, all of a tree is written anew, it is back, and this share of it was sent.
 * A copy of the secondary as it was.
 */
export async function inTheMiddle(duo: Duo, share: number): Promise<string> {
  const tree = join(duo.prim.seen, 'tree');
  await fill(tree, resyncTree);
  await duo.sh(duo.prim, 'mkdir old; echo old >old/file; ln old/file old/link; sync -f .');
  await duo.settled();
  await duo.second.request('close');
  const before = await duo.copy(duo.second);
  await duo.alone();
  await fill(tree, resyncTree);
  await duo.sh(duo.prim, 'mv old new; echo new >new/file; rm new/link; rm tree/f1; sync -f .');
  await duo.openSecond();
  const sent = await duo.figure(duo.prim, 'bytes_sent');
  await until('a part is sent', async () => {
    return (await duo.figure(duo.prim, 'bytes_sent')) - sent >= share * resyncTree * mib;
  });
  await until('it is being applied', async () => {
    const { state, applied_bytes: applied = '0' } = (await duo.second.status()).all;
    return state === 'inconsistent' && Number(applied) > mib;
  });
  return before;
}

/** The source dies in the middle, the target is to go on: it is what it was before. */
export async function sourceDies(duo: Duo): Promise<void> {
  const old = await inTheMiddle(duo, 0.4);
  await duo.crash(duo.prim);
  await duo.takeOver({ force: 1 });
  await duo.assertEqual(old, duo.prim.seen);
}

/** The target dies in the middle and returns: bytes that were sent after that. */
export async function targetDies(duo: Duo, how: 'kill' | 'pull'): Promise<number> {
  await inTheMiddle(duo, 0.6);
  await duo.crash(duo.second, how);
  const sent = await duo.figure(duo.prim, 'bytes_sent');
  await duo.secondReturns();
  await duo.inSync();
  await duo.settled();
  await duo.assertEqual();
  return (await duo.figure(duo.prim, 'bytes_sent')) - sent;
}

/**
 * In the middle the target's disk is full: it goes back to what it was. When there is room again
 * the resync begins anew. Wants a disk for the second.
 */
export async function diskFills(duo: Duo): Promise<void> {
  const old = await inTheMiddle(duo, 0.4);
  const ballast = `${duo.disk(duo.second).path}/ballast`;
  await duo.sh(duo.second, `dd if=/dev/zero of=${ballast} bs=64k status=none 2>/dev/null || true`);
  await duo.heard(duo.second, 'took_back');
  await duo.assertEqual(old, duo.second.seen);
  await duo.sh(duo.prim, 'echo goes on >on; sync on');
  await duo.second.request('close').catch(() => undefined);
  await duo.sh(duo.second, `rm ${ballast}`);
  await duo.openSecond();
  await duo.inSync();
  await duo.settled();
  await duo.assertEqual();
}

/** While a resync reads a tree, each of its blocks is written to, once. */
export async function writtenInAResync(duo: Duo, seed: number): Promise<void> {
  const tree = join(duo.prim.seen, 'tree');
  const files = 8;
  await fill(tree, files);
  await duo.settled();
  await duo.second.request('close');
  await duo.alone();
  await fill(tree, files);
  // What leaves the ring is dirty.
  await writeFile(join(tree, 'last'), randomBytes(2 * resyncRing));
  await duo.begin(seed);
  await duo.openSecond();
  await until('the resync has begun', async () => {
    return (await duo.second.status()).all['state'] === 'inconsistent';
  });
  const open8 = Array.from({ length: files }, (_, i) => open(join(tree, `f${i}`), 'r+'));
  const handles = await Promise.all(open8);
  const blocks = (files * mib) / 4096;
  // 1021 is no divisor of it: all of them, far apart.
  for (let i = 0; i < blocks; i++) {
    const at = ((i * 1021) % blocks) * 4096;
    await handles[Math.floor(at / mib)]?.write(randomBytes(512), 0, 512, (at % mib) + 100);
    await delay(1);
  }
  for (const handle of handles) await handle.close();
  await duo.inSync();
  await duo.finish();
}
