/** What a swap in a directory does, call by call, and what follows when one fails or comes late. */
import assert from 'node:assert/strict';
import { fstatSync, fsyncSync, linkSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, it } from 'node:test';
import { DirectoryStore, type StoreCalls } from '../../src/arbiter/directory-store.ts';
import type { ArbiterRecord } from '../../src/arbiter/register.ts';
import { first, next } from './contract.ts';
import { clusterId, DirectoryWorld } from './directory-world.ts';

const swap = (from: ArbiterRecord | null, to: ArbiterRecord) =>
  ({ kind: 'swap', module: 'db', from, to }) as const;
const read = { kind: 'read', module: 'db' } as const;
const nameOfFd = (fd: number): string => basename(readlinkSync(`/proc/self/fd/${fd}`));
const errno = (code: string): Error => Object.assign(new Error(code), { code });

/** Another server, which changes the register so many times. */
function changedBy(
  store: DirectoryStore,
  from: ArbiterRecord | null,
  times: number,
): ArbiterRecord {
  let held = from;
  for (let round = 0; round < times; round += 1) {
    const to: ArbiterRecord = held === null ? { ...first, primary: 1 } : next(held, { primary: 1 });
    assert.equal(store.answer(swap(held, to)).outcome, 'won');
    held = to;
  }
  return held ?? first;
}

describe('a swap in a directory', () => {
  it('writes, syncs, links and syncs, before it is won', (t) => {
    const { path } = new DirectoryWorld(t);
    const seen: string[] = [];
    const calls: StoreCalls = {
      fsync: (fd) => {
        seen.push(fstatSync(fd).isDirectory() ? `folder ${nameOfFd(fd)}` : 'file');
        fsyncSync(fd);
      },
      link: (from, to) => {
        seen.push(`link ${basename(to)}`);
        linkSync(from, to);
      },
    };
    const store = new DirectoryStore(path, clusterId, false, calls);
    assert.equal(store.answer(swap(null, first)).outcome, 'won');
    const linked = seen.indexOf('link 000000000001');
    assert.equal(seen[linked - 1], 'file');
    const after = seen.slice(linked + 1);
    assert.deepEqual(after.slice(0, 3), [
      'folder db',
      `folder ${clusterId}`,
      `folder ${basename(path)}`,
    ]);
    seen.length = 0;
    assert.equal(store.answer(swap(first, next(first))).outcome, 'won');
    assert.deepEqual(seen, ['folder db', 'file', 'link 000000000002', 'folder db', 'folder db']);
    seen.length = 0;
    store.answer(read);
    assert.deepEqual(seen, ['folder db'], 'what a dead server linked is durable before it is told');
    assert.ok(readdirSync(join(path, clusterId, 'db')).every((name) => !name.endsWith('.tmp')));
  });

  it('that fails before link was never done; after it, or in it, that is not known', (t) => {
    const { path } = new DirectoryWorld(t);
    const good = new DirectoryStore(path, clusterId, false);
    assert.equal(good.answer(swap(null, first)).outcome, 'won');
    const failing = (calls: Partial<StoreCalls>) => {
      const store = new DirectoryStore(path, clusterId, false, {
        fsync: fsyncSync,
        link: linkSync,
        ...calls,
      });
      return store.answer(swap(first, next(first))).outcome;
    };
    const onFile = (fd: number) => {
      if (fstatSync(fd).isFile()) throw errno('EIO');
      fsyncSync(fd);
    };
    assert.equal(failing({ fsync: onFile }), 'unreachable');
    for (const code of ['ENOSPC', 'EPERM', 'EROFS', 'EOPNOTSUPP', 'ENOENT']) {
      const link = () => {
        throw errno(code);
      };
      assert.equal(failing({ link }), 'unreachable', code);
    }
    assert.deepEqual(good.answer(read), { outcome: 'record', record: first });
    for (const code of ['EIO', 'ESTALE', 'ETIMEDOUT', 'EINTR']) {
      const link = () => {
        throw errno(code);
      };
      assert.equal(failing({ link }), 'unknown', code);
    }
    let isLinked = false;
    const outcome = failing({
      link: (from, to) => {
        linkSync(from, to);
        isLinked = true;
      },
      fsync: (fd) => {
        if (isLinked) throw errno('EIO');
        fsyncSync(fd);
      },
    });
    assert.equal(outcome, 'unknown');
    assert.deepEqual(good.answer(read), { outcome: 'record', record: next(first) });
  });

  it('is found done where the file system asked twice', (t) => {
    const { path } = new DirectoryWorld(t);
    const calls: StoreCalls = {
      fsync: fsyncSync,
      link: (from, to) => {
        linkSync(from, to);
        throw errno('EEXIST');
      },
    };
    const store = new DirectoryStore(path, clusterId, false, calls);
    assert.deepEqual(store.answer(swap(null, first)), { outcome: 'won' });
    assert.deepEqual(store.answer(read), { outcome: 'record', record: first });
  });

  it('that pauses before link has lost, however long', (t) => {
    for (const changes of [1, 2, 15, 16, 17, 18, 40]) {
      const world = new DirectoryWorld(t);
      const other = new DirectoryStore(world.path, clusterId, false);
      const held = changedBy(other, null, 3);
      let newest = held;
      const paused = new DirectoryStore(world.path, clusterId, false, {
        fsync: fsyncSync,
        link: (from, to) => {
          newest = changedBy(other, held, changes);
          linkSync(from, to);
        },
      });
      const answer = paused.answer(swap(held, next(held, { primary: 0 })));
      assert.deepEqual(answer, { outcome: 'lost', record: newest }, `${changes} changes`);
      assert.deepEqual(other.answer(read), { outcome: 'record', record: newest });
      assert.equal(other.answer(swap(newest, next(newest))).outcome, 'won');
    }
  });

  it('whose file was taken for a leftover meanwhile was not done', (t) => {
    const { path } = new DirectoryWorld(t);
    const store = new DirectoryStore(path, clusterId, false, {
      fsync: fsyncSync,
      link: (from, to) => {
        rmSync(from);
        linkSync(from, to);
      },
    });
    assert.equal(store.answer(swap(null, first)).outcome, 'unreachable');
    assert.deepEqual(store.answer(read), { outcome: 'record', record: null });
  });
});
