import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { DurableFile, type StoreKind } from '../../src/host/store.ts';
import { temporaryPaths } from '../module/helpers.ts';

interface View {
  readonly epoch: number;
}

const kind: StoreKind<View> = {
  kind: 'view',
  version: 2,
  parse(content, version) {
    const { epoch } = content as { epoch?: unknown };
    if (typeof epoch !== 'number') throw new Error('no epoch');
    return { epoch: version === 1 ? epoch + 100 : epoch };
  },
};

test('a value comes back, also the one before it when the file is damaged', async (t) => {
  const path = join(temporaryPaths(t).state, 'deep/view.json');
  const first = await DurableFile.open(path, kind);
  assert.deepEqual(first.stored, { value: null, from: 'nothing', damage: null });
  for (const epoch of [1, 2]) assert.deepEqual(await first.file.write({ epoch }), { ok: true });
  assert.deepEqual((await DurableFile.open(path, kind)).stored, {
    value: { epoch: 2 },
    from: 'current',
    damage: null,
  });
  const whole = readFileSync(path, 'utf8');
  for (const [bad, reason] of [
    [whole.replace('2}', '3}'), /wrong checksum/],
    [whole.slice(0, -4), /wrong checksum/],
    ['', /./],
    ['\0'.repeat(whole.length), /./],
    [whole.replace('view', 'visa'), /not of kind view/],
  ] as const) {
    rmSync(`${path}.damaged`, { force: true });
    writeFileSync(path, bad);
    const { stored } = await DurableFile.open(path, kind);
    assert.equal(stored.from, 'previous');
    assert.deepEqual(stored.value, { epoch: 1 });
    assert.equal(stored.damage?.code, 'HF-AGENT-101');
    assert.match(stored.damage?.message ?? '', reason);
    assert.equal(readFileSync(`${path}.damaged`, 'utf8'), bad);
  }
});

test('a write after damage keeps the good previous copy', async (t) => {
  const path = join(temporaryPaths(t).state, 'view.json');
  const { file } = await DurableFile.open(path, kind);
  await file.write({ epoch: 1 });
  await file.write({ epoch: 2 });
  writeFileSync(path, 'rotten');
  const again = await DurableFile.open(path, kind);
  await again.file.write({ epoch: 3 });
  writeFileSync(path, 'rotten again');
  const last = await DurableFile.open(path, kind);
  assert.deepEqual(last.stored.value, { epoch: 1 });
  writeFileSync(`${path}.previous`, 'rotten too');
  const none = await DurableFile.open(path, kind);
  assert.deepEqual([none.stored.value, none.stored.from], [null, 'nothing']);
  assert.equal(none.stored.damage?.code, 'HF-AGENT-101');
});

test('a lower version is read, a higher one is refused and left in place', async (t) => {
  const path = join(temporaryPaths(t).state, 'view.json');
  const old: StoreKind<View> = { ...kind, version: 1 };
  await (await DurableFile.open(path, old)).file.write({ epoch: 5 });
  assert.deepEqual((await DurableFile.open(path, kind)).stored.value, { epoch: 105 });
  await (await DurableFile.open(path, kind)).file.write({ epoch: 6 });
  const { stored } = await DurableFile.open(path, old);
  assert.deepEqual([stored.value, stored.damage?.code], [null, 'HF-AGENT-102']);
  assert.deepEqual((await DurableFile.open(path, kind)).stored.value, { epoch: 6 });
});

test('writes given at once end with the last value, and each caller learns the outcome', async (t) => {
  const path = join(temporaryPaths(t).state, 'view.json');
  const { file } = await DurableFile.open(path, kind);
  const outcomes = await Promise.all([1, 2, 3, 4, 5].map((epoch) => file.write({ epoch })));
  assert.ok(outcomes.every((outcome) => outcome.ok));
  assert.deepEqual((await DurableFile.open(path, kind)).stored.value, { epoch: 5 });
  await file.write({ epoch: 6 });
  assert.deepEqual((await DurableFile.open(path, kind)).stored.value, { epoch: 6 });
  assert.deepEqual(await file.remove(), { ok: true });
  assert.deepEqual(readdirSync(dirname(path)), []);
});

test('a crash between the steps of a write leaves the former value', async (t) => {
  const path = join(temporaryPaths(t).state, 'view.json');
  const { file } = await DurableFile.open(path, kind);
  await file.write({ epoch: 1 });
  // Died while the new file was written.
  writeFileSync(`${path}.new`, '{"kind":"vi');
  const { file: again, stored } = await DurableFile.open(path, kind);
  assert.deepEqual(stored.value, { epoch: 1 });
  assert.deepEqual(await again.write({ epoch: 2 }), { ok: true });
  assert.equal(existsSync(`${path}.new`), false);
  // Died after the current file was moved away by someone: the previous one is used, and said.
  rmSync(path);
  const rest = await DurableFile.open(path, kind);
  assert.deepEqual([rest.stored.value, rest.stored.from], [{ epoch: 1 }, 'previous']);
  assert.match(rest.stored.damage?.message ?? '', /missing/);
});

test('a full disk is a result, the former value stays, and writes go on when there is room', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('mounting a small tmpfs needs root');
  const { state } = temporaryPaths(t, '64k');
  mkdirSync(state, { recursive: true });
  const path = join(state, 'view.json');
  const { file } = await DurableFile.open(path, kind);
  await file.write({ epoch: 1 });
  const filler = join(state, 'filler');
  fill(filler);
  const outcome = await file.write({ epoch: 2 });
  assert.ok(!outcome.ok && outcome.noSpace);
  assert.equal(outcome.error.code, 'HF-AGENT-100');
  assert.match(outcome.error.message, /ENOSPC/);
  assert.deepEqual((await DurableFile.open(path, kind)).stored.value, { epoch: 1 });
  assert.equal(existsSync(`${path}.new`), false);
  rmSync(filler);
  assert.deepEqual(await file.write({ epoch: 3 }), { ok: true });
  assert.deepEqual((await DurableFile.open(path, kind)).stored.value, { epoch: 3 });
});

test('a folder that is a file is a result too', async (t) => {
  const { state } = temporaryPaths(t);
  mkdirSync(state, { recursive: true });
  writeFileSync(join(state, 'x'), '');
  const { file, stored } = await DurableFile.open(join(state, 'x/view.json'), kind);
  assert.equal(stored.value, null);
  const outcome = await file.write({ epoch: 1 });
  assert.ok(!outcome.ok && !outcome.noSpace);
});

/** Writes until the file system is full. */
function fill(path: string): void {
  assert.throws(() => writeFileSync(path, Buffer.alloc(1024 * 1024)), /ENOSPC/);
}
