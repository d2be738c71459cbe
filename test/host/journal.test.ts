import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Journal, type JournalOptions } from '../../src/host/journal.ts';
import { eventually, temporaryPaths } from '../module/helpers.ts';

interface Setup {
  readonly options: JournalOptions;
  readonly troubles: (string | null)[];
}

function setup(
  t: TestContext,
  change: Partial<JournalOptions> = {},
  tmpfs: string | null = null,
): Setup {
  const troubles: (string | null)[] = [];
  let ms = 1000;
  const folder = join(temporaryPaths(t, tmpfs).state, 'journal');
  const options: JournalOptions = {
    folder,
    node: 'n1',
    wallMs: () => 1_700_000_000_000 + ms,
    bootMs: () => ms++,
    onTrouble: (message) => troubles.push(message),
    retryMs: 20,
    ...change,
  };
  return { options, troubles };
}

const all = { after: 0, limit: 100_000, module: null };

function segments(folder: string): string[] {
  return readdirSync(folder).sort();
}

test('numbers go on without gaps across restarts, and queries see what was before', async (t) => {
  const { options, troubles } = setup(t);
  const first = await Journal.open(options);
  const seen: number[] = [];
  const end = first.onEvent((event) => seen.push(event.seq));
  first.append({
    kind: 'transition',
    module: 'web',
    text: 'STOP -> WAIT',
    data: { cause: 'start' },
  });
  first.append({ kind: 'peer', text: 'node n2 is heard' });
  end();
  first.append({ kind: 'transition', module: 'web', text: 'WAIT -> UP\nüber' });
  assert.deepEqual(seen, [1, 2]);
  await first.close();

  const second = await Journal.open(options);
  assert.equal(second.lastSeq, 3);
  const added = second.append({ kind: 'command', module: 'db', text: 'stop' });
  assert.deepEqual(added, {
    seq: 4,
    wallMs: added.wallMs,
    bootMs: added.bootMs,
    node: 'n1',
    module: 'db',
    kind: 'command',
    text: 'stop',
    data: {},
  });
  assert.deepEqual(
    second.query(all).map((event) => event.seq),
    [1, 2, 3, 4],
  );
  assert.deepEqual(
    second.query({ ...all, module: 'web' }).map((e) => e.text),
    ['STOP -> WAIT', 'WAIT -> UP\nüber'],
  );
  assert.deepEqual(
    second.query({ ...all, after: 2, limit: 1 }).map((e) => e.seq),
    [4],
  );
  assert.deepEqual(second.query({ ...all, after: 4 }), []);
  assert.deepEqual(second.query(all)[0]?.data, { cause: 'start' });
  assert.ok(await second.flush());
  assert.equal(segments(options.folder).length, 1);
  assert.deepEqual(troubles, []);
  await second.close();
});

test('a torn tail is dropped and the next record follows the last whole one', async (t) => {
  const { options } = setup(t);
  const first = await Journal.open(options);
  for (let i = 0; i < 5; i++) first.append({ kind: 'check', text: `event ${i}` });
  await first.close();
  const path = join(options.folder, segments(options.folder)[0] ?? '');
  const whole = readFileSync(path);
  const lastLine = whole.lastIndexOf(0x0a, whole.length - 2) + 1;
  for (let size = lastLine; size < whole.length; size += 7) {
    writeFileSync(path, whole.subarray(0, size));
    const journal = await Journal.open(options);
    assert.equal(journal.lastSeq, 4, `cut at ${size}`);
    assert.deepEqual(journal.stats(), { lost: 0, damaged: 0, tornBytes: size - lastLine });
    assert.equal(journal.append({ kind: 'check', text: 'event 4 again' }).seq, 5);
    await journal.close();
    const again = await Journal.open(options);
    assert.deepEqual(
      again.query(all).map((e) => e.seq),
      [1, 2, 3, 4, 5],
    );
    assert.equal(again.query(all)[4]?.text, 'event 4 again');
    assert.deepEqual(again.stats(), { lost: 0, damaged: 0, tornBytes: 0 });
    await again.close();
  }
});

test('a damaged line in the middle is counted and left out', async (t) => {
  const { options } = setup(t);
  const first = await Journal.open(options);
  for (let i = 0; i < 3; i++) first.append({ kind: 'check', text: `event ${i}` });
  await first.close();
  const path = join(options.folder, segments(options.folder)[0] ?? '');
  writeFileSync(path, readFileSync(path, 'utf8').replace('event 1', 'event 7'));
  appendFileSync(path, Buffer.alloc(100));
  const journal = await Journal.open(options);
  assert.deepEqual(
    journal.query(all).map((e) => e.seq),
    [1, 3],
  );
  assert.deepEqual(journal.stats(), { lost: 1, damaged: 1, tornBytes: 100 });
  await journal.close();
});

test('segments and memory are bounded, the newest records stay', async (t) => {
  const { options } = setup(t, { segmentBytes: 2000, segments: 3, ringRecords: 8 });
  const journal = await Journal.open(options);
  for (let i = 0; i < 100; i++) {
    journal.append({ kind: 'check', text: `event ${i}` });
    if (i % 5 === 0) await journal.flush();
  }
  await journal.close();
  const names = segments(options.folder);
  assert.equal(names.length, 3);
  for (const name of names) assert.ok(statSync(join(options.folder, name)).size < 4000);
  const records = journal.query(all);
  assert.ok(records.length >= 8 && records.length < 16);
  assert.equal(records.at(-1)?.seq, 100);
  const again = await Journal.open(options);
  assert.deepEqual(
    again.query(all).map((e) => e.seq),
    [93, 94, 95, 96, 97, 98, 99, 100],
  );
  assert.equal(again.append({ kind: 'check', text: 'next' }).seq, 101);
  await again.close();
});

test('what is too large or cannot be said in JSON is cut, not thrown', async (t) => {
  const { options } = setup(t);
  const journal = await Journal.open(options);
  const huge = journal.append({
    kind: 'script',
    text: 'x'.repeat(5000),
    data: { y: 'y'.repeat(5000) },
  });
  assert.equal(huge.text.length, 1000);
  assert.deepEqual(huge.data, { left_out: 'too large' });
  const odd = journal.append({ kind: 'script', text: 'odd', data: { big: 1n } });
  assert.deepEqual(odd.data, { left_out: 'not expressible in JSON' });
  await journal.close();
});

test('a full disk costs no record while memory lasts, and is said once', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('mounting a small tmpfs needs root');
  const { options, troubles } = setup(t, {}, '64k');
  const journal = await Journal.open(options);
  journal.append({ kind: 'check', text: 'before' });
  assert.ok(await journal.flush());
  const filler = join(options.folder, '../filler');
  assert.throws(() => writeFileSync(filler, Buffer.alloc(1024 * 1024)), /ENOSPC/);
  for (let i = 0; i < 100; i++)
    journal.append({ kind: 'check', text: `during ${i} ${'x'.repeat(80)}` });
  assert.equal(await journal.flush(), false);
  assert.equal(await journal.flush(), false);
  assert.equal(troubles.length, 1);
  assert.match(troubles[0] ?? '', /ENOSPC/);
  assert.equal(journal.query(all).length, 101);
  rmSync(filler);
  await eventually(() => troubles.length === 2, 'trouble ends by itself');
  assert.equal(troubles[1], null);
  await journal.close();
  const again = await Journal.open(options);
  assert.deepEqual(
    again.query(all).map((e) => e.seq),
    Array.from({ length: 101 }, (_, i) => i + 1),
  );
  assert.deepEqual(again.stats(), { lost: 0, damaged: 0, tornBytes: 0 });
  await again.close();
});

test('records beyond what memory holds for a full disk are counted as lost', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('mounting a small tmpfs needs root');
  const { options } = setup(t, { segmentBytes: 8000 }, '64k');
  mkdirSync(options.folder, { recursive: true });
  const filler = join(options.folder, '../filler');
  assert.throws(() => writeFileSync(filler, Buffer.alloc(1024 * 1024)), /ENOSPC/);
  const journal = await Journal.open(options);
  for (let i = 0; i < 500; i++) journal.append({ kind: 'check', text: `event ${i}` });
  await journal.flush();
  const { lost } = journal.stats();
  assert.ok(lost > 0 && lost < 500);
  assert.equal(journal.query(all).length, 500);
  rmSync(filler);
  await eventually(
    () => journal.stats().lost === lost && statSync(options.folder).size > 0,
    'space',
  );
  assert.ok(await journal.flush());
  await journal.close();
  const again = await Journal.open(options);
  assert.equal(again.lastSeq, 500);
  assert.equal(again.query(all)[0]?.seq, lost + 1);
  await again.close();
});

test('segments that cannot be read are not written over', async (t) => {
  const { options, troubles } = setup(t);
  mkdirSync(join(options.folder, 'events-000000000001.log'), { recursive: true });
  const journal = await Journal.open(options);
  assert.match(troubles[0] ?? '', /cannot be read \(EISDIR\)/);
  assert.equal(journal.append({ kind: 'check', text: 'kept in memory' }).seq, 1);
  assert.equal(journal.query(all).length, 1);
  await journal.close();
  assert.deepEqual(segments(options.folder), ['events-000000000001.log']);
});
