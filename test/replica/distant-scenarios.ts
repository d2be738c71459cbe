/** What happens to a distant copy, for the test of the row and for those of planted bugs. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Distant } from './distant.ts';
import type { Duo, DuoOptions } from './duo.ts';
import { type Ground, until } from './pair.ts';
import { bytesRead, change, fill, mib, withDuo } from './rows.ts';

export const distantRing = 4 * mib;
const small = { ring: distantRing, journal: 64 * mib };

/** Runs `body` with a duo that has a distant copy. */
export function withDistant(
  ground: Ground,
  options: DuoOptions,
  body: (duo: Duo, copy: Distant) => Promise<void>,
): Promise<void> {
  const open = { ...small, ...options.open };
  return withDuo(ground, { distant: 1, ...options, open }, async (duo) => {
    const [copy] = duo.distant;
    assert.ok(copy !== undefined);
    await body(duo, copy);
  });
}

/** How a copy is away. */
export type Away = 'closed' | 'stands still' | 'cut off';

export async function leave(copy: Distant, how: Away): Promise<void> {
  if (how === 'closed') await copy.close();
  else if (how === 'stands still') await copy.side.pause();
  else copy.relay?.cut();
}

export async function comeBack(copy: Distant, how: Away): Promise<void> {
  if (how === 'closed') await copy.open();
  else if (how === 'stands still') copy.side.goOn();
  else copy.relay?.mend();
}

/** What it took to bring a copy back. */
export interface Cost {
  readonly changed: number;
  readonly sent: number;
  readonly read: number;
  readonly diverted: number;
}

/** Bytes that it takes from what brings a copy back until it is in sync; then it is equal. */
async function costOf(
  duo: Duo,
  copy: Distant,
  returns: () => Promise<void>,
): Promise<{ readonly sent: number; readonly read: number }> {
  const { worker } = await duo.prim.status();
  const [sent, read] = [await copy.figure('sent'), bytesRead(worker)];
  await returns();
  await copy.inSync();
  const cost = { sent: (await copy.figure('sent')) - sent, read: bytesRead(worker) - read };
  await copy.isEqual();
  return cost;
}

/**
 * While it is away a few blocks of a large tree are changed, so often that the ring cannot hold
 * it; the application ends before the copy is back.
 */
export async function awayForLong(
  duo: Duo,
  copy: Distant,
  how: Away,
  files: number,
): Promise<Cost> {
  const tree = join(duo.prim.seen, 'tree');
  await fill(tree, files);
  await duo.settled();
  await copy.inSync();
  const before = await copy.figure('diverted');
  await leave(copy, how);
  const blocks = Math.ceil((files * mib) / 100 / 4096);
  let changed = 0;
  // What lies in the buffers of the sockets is not in the ring any more.
  for (let bytes = 0; bytes < 5 * distantRing; bytes += changed) {
    changed = await change(tree, files, blocks, 1);
  }
  await duo.sh(duo.prim, 'sync tree/* .');
  assert.equal(copy.side.standsStill, how === 'stands still');
  const { all } = await duo.prim.status();
  assert.equal(all['insync'], '1', 'the synchronous copy is not in sync');
  assert.equal(all['waiters'], '0');
  assert.ok((await copy.figure('lag_bytes')) > 0);
  assert.ok((await copy.figure('lag_ms')) > 0);
  const diverted = (await copy.figure('diverted')) - before;
  return { changed, diverted, ...(await costOf(duo, copy, () => comeBack(copy, how))) };
}

/**
 * The primary stops in order while the copy lacks more than the ring has, and is opened again, two
 * times; `dies`: and then its worker is killed. How many bytes were changed, and sent then.
 */
export async function stoppedMeanwhile(
  duo: Duo,
  copy: Distant,
  files: number,
  dies = false,
): Promise<Cost> {
  const tree = join(duo.prim.seen, 'tree');
  await fill(tree, files);
  await copy.inSync();
  await duo.primAgain();
  await copy.inSync();
  await copy.close();
  const blocks = Math.ceil((files * mib) / 50 / 4096);
  let changed = 0;
  for (let bytes = 0; bytes < 2 * distantRing; bytes += changed) {
    changed = await change(tree, files, blocks, 2);
  }
  await duo.sh(duo.prim, 'mkdir made; echo made >made/it; mv tree/f1 made/f1; rm tree/f2');
  const diverted = await copy.figure('diverted');
  for (const name of ['one', 'two']) {
    await duo.prim.request('close');
    await duo.openPrim();
    await duo.inSync();
    await duo.sh(duo.prim, `echo ${name} >${name}; rm tree/f3 2>/dev/null || true`);
  }
  if (dies) {
    await duo.prim.kill('worker');
    await duo.inSync();
  }
  return { changed, diverted, ...(await costOf(duo, copy, () => copy.open())) };
}

/**
 * The copy is away while the primary makes so many changes that generations of marks go, which the
 * other server has; then the primary's worker dies, and with it what it knew. Wants few `marks`.
 */
export async function marksAreAllThatIsLeft(duo: Duo, copy: Distant): Promise<void> {
  await duo.sh(duo.prim, 'mkdir d; for i in $(seq 400); do echo old >d/f$i; done');
  await duo.primAgain();
  await copy.inSync();
  await copy.close();
  await duo.sh(duo.prim, 'for i in $(seq 400); do echo newer >d/f$i; done; sync -f .');
  await duo.settled();
  // Whether a generation of marks may go is looked at once a second.
  await delay(2200);
  await duo.prim.kill('worker');
  await duo.inSync();
  await delay(1200);
  await duo.prim.kill('worker');
  await duo.inSync();
  await copy.open();
  await copy.isEqual();
}

export const copyTree = 16;
/** So slow that something can happen in the middle of it. */
export const slowly = { ring: distantRing, resyncrate: 4 * mib };

/**
 * The copy is away, all of a tree is written anew, it is back, and this share of it was sent. What it
 * had before, in a folder.
 */
export async function copyInTheMiddle(duo: Duo, copy: Distant, share: number): Promise<string> {
  const tree = join(duo.prim.seen, 'tree');
  await fill(tree, copyTree);
  await duo.sh(duo.prim, 'mkdir old; echo old >old/file; ln old/file old/link; sync -f .');
  await duo.settled();
  await copy.inSync();
  await copy.close();
  const before = await duo.copy(copy.side);
  await fill(tree, copyTree);
  await duo.sh(duo.prim, 'mv old new; echo new >new/file; rm new/link; rm tree/f1; sync -f .');
  const sent = await copy.figure('sent');
  await copy.open();
  await until('a part is sent', async () => {
    return (await copy.figure('sent')) - sent >= share * copyTree * mib;
  });
  await until('it is being applied', async () => {
    const { state, applied_bytes: applied = '0' } = (await copy.side.status()).all;
    return state === 'inconsistent' && Number(applied) > mib;
  });
  return before;
}

/** While it is away nearly all of a tree is overwritten, each block once. */
export async function overwritten(duo: Duo, copy: Distant): Promise<void> {
  const tree = join(duo.prim.seen, 'tree');
  await fill(tree, 16);
  await copy.inSync();
  await copy.close();
  await change(tree, 16, 3900, 3);
  assert.ok((await copy.figure('diverted')) > 0);
  await copy.open();
  await copy.isEqual();
}

/**
 * All that was dirty has been stated, over a slow line, and what came meanwhile is on its way; then
 * comes more than the ring has room for. Wants a relay.
 */
export async function burstAtTheEnd(duo: Duo, copy: Distant): Promise<void> {
  const files = 8;
  const blocks = 1200; // more than the ring holds
  const tree = join(duo.prim.seen, 'tree');
  await fill(tree, files);
  await copy.inSync();
  await copy.close();
  await change(tree, files, blocks, 4);
  const { relay } = copy;
  assert.ok(relay !== null);
  relay.rate = mib;
  await copy.open();
  await until('a resync is under way', async () => (await copy.figure('resync')) !== 0);
  await until('all is stated', async () => (await copy.figure('dirty_bytes')) === 0);
  // Not so much that it has no room, and too much for the resync to end.
  relay.rate = mib / 2;
  await duo.sh(duo.prim, 'head -c 850k /dev/urandom >behind; sync behind');
  const before = await copy.figure('diverted');
  await until('the statements are there', async () => (await copy.figure('lag_bytes')) < 0.8 * mib);
  await change(tree, files, blocks, 5);
  assert.equal(await copy.figure('insync'), 0);
  assert.ok((await copy.figure('diverted')) > before, 'there was room for everything');
  relay.rate = 0;
  await copy.isEqual();
}

/** A line that is slower than what the application writes, for `ms`; then the application stops. */
export async function overloaded(duo: Duo, copy: Distant, seed: number, ms: number): Promise<void> {
  const tree = join(duo.prim.seen, 'tree');
  await fill(tree, 4);
  await copy.inSync();
  await duo.begin(seed);
  if (copy.relay !== null) copy.relay.rate = 2 * mib;
  const end = performance.now() + ms;
  const pace = async (): Promise<void> => {
    while (copy.relay === null && performance.now() < end) {
      await copy.side.pause();
      await delay(150);
      copy.side.goOn();
      await delay(50);
    }
  };
  const write = async (): Promise<void> => {
    while (performance.now() < end) await fill(tree, 4);
  };
  await Promise.all([pace(), write()]);
  await duo.finish();
}
