import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { DirectoryStore } from '../../src/arbiter/directory-store.ts';
import { checks, first, next } from './contract.ts';
import { clusterId, DirectoryWorld } from './directory-world.ts';

const none = { outcome: 'record', record: null } as const;

describe('a register in a directory', () => {
  for (const { name, run } of checks) {
    it(name, async (t) => await run(new DirectoryWorld(t)));
  }

  it('is never what lies below a mount point', async (t) => {
    const world = new DirectoryWorld(t);
    await world.down();
    const answer = await world.open(0).read('db');
    assert.ok(answer.outcome === 'unreachable');
    assert.match(answer.why, /has no file holdfast-register: is it mounted\?/);
    assert.deepEqual(readdirSync(world.path), ['away'], 'nothing was made there');
  });

  it('keeps the newest records and removes what is left of dead servers', (t) => {
    const world = new DirectoryWorld(t);
    const store = new DirectoryStore(world.path, clusterId, false);
    const folder = join(world.path, clusterId, 'db');
    mkdirSync(folder, { recursive: true });
    const old = new Date(Date.now() - 1000);
    writeFileSync(join(folder, '.left.tmp'), 'half');
    utimesSync(join(folder, '.left.tmp'), old, old);
    let held = first;
    assert.equal(store.answer({ kind: 'swap', module: 'db', from: null, to: held }).outcome, 'won');
    for (let round = 0; round < 40; round += 1) {
      const to = next(held);
      const swap = { kind: 'swap', module: 'db', from: held, to } as const;
      assert.equal(store.answer(swap).outcome, 'won');
      held = to;
    }
    const names = readdirSync(folder).filter((name) => !name.endsWith('.tmp'));
    assert.equal(names.length, 16);
    assert.equal(names.toSorted().at(-1), '000000000041');
    assert.ok(readdirSync(folder).includes('.left.tmp'), 'its server may only have paused');
    assert.deepEqual(store.answer({ kind: 'read', module: 'db' }), { ...none, record: held });
  });

  it('does not guess when the newest record is damaged', (t) => {
    const world = new DirectoryWorld(t);
    const store = new DirectoryStore(world.path, clusterId, false);
    const swap = { kind: 'swap', module: 'db', from: null, to: first } as const;
    assert.equal(store.answer(swap).outcome, 'won');
    const second = { ...swap, from: first, to: next(first) };
    assert.equal(store.answer(second).outcome, 'won');
    const file = join(world.path, clusterId, 'db/000000000002');
    const text = readFileSync(file, 'utf8');
    const damages: readonly (readonly [string, RegExp])[] = [
      ['', /no record of version 1|cannot be read/],
      [text.slice(0, -9), /wrong checksum/],
      [text.replace('"primary":0', '"primary":1'), /wrong checksum/],
      [text.replace('"version":1', '"version":2'), /version 1/],
      [readFileSync(join(world.path, clusterId, 'db/000000000001'), 'utf8'), /it is number 1/],
      ['x'.repeat(9000), /cannot be read/],
    ];
    for (const [damaged, why] of damages) {
      writeFileSync(file, damaged);
      for (const question of [{ kind: 'read', module: 'db' } as const, second]) {
        const answer = store.answer(question);
        assert.ok(answer.outcome === 'unreachable', JSON.stringify(answer));
        assert.match(answer.why, why);
      }
    }
    writeFileSync(file, text);
    assert.deepEqual(store.answer({ kind: 'read', module: 'db' }), {
      ...none,
      record: next(first),
    });
  });
});
