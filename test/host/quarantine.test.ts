/** The quarantine folders as the native engine writes them, in directories of a test. */
import assert from 'node:assert/strict';
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import {
  listQuarantine,
  pathBytes,
  purgeQuarantine,
  quarantineFolder,
  realDirectory,
  restoreQuarantine,
} from '../../src/host/quarantine.ts';

const folder = '20260131-120000-epoch5';

interface Line {
  readonly path: string;
  readonly stored?: string;
  readonly type?: string;
  readonly reason?: string;
}

interface World {
  readonly directory: string;
  readonly place: string;
  readonly directories: readonly { readonly directory: string; readonly real: string }[];
  line(line: Line): void;
}

/** `real` is where the files are, `directory` where the mount would show them. */
function world(t: TestContext): World {
  const base = mkdtempSync(join(tmpdir(), 'holdfast-quarantine-'));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const [directory, real] = [join(base, 'mounted'), join(base, 'real')];
  const place = join(real, '.holdfast-quarantine', folder);
  mkdirSync(join(place, 'files/d/e f'), { recursive: true });
  mkdirSync(directory);
  const line = ({ path, stored = `files/${path}`, type = 'file', reason = 'rolled_back' }: Line) =>
    appendFileSync(
      join(place, 'manifest.jsonl'),
      `${JSON.stringify({ path, stored, type, size: 4, mtime: '1700000000.000000005', reason })}\n`,
    );
  writeFileSync(join(place, 'files/own'), 'mine');
  utimesSync(join(place, 'files/own'), 1_700_000_000, 1_700_000_000);
  writeFileSync(pathBytes(`${place}/files/d/e%20f/new%0Aline%FF`), 'deep');
  line({ path: 'own' });
  line({ path: 'd/e%20f', type: 'folder', reason: 'foreign' });
  line({ path: 'd/e%20f/new%0Aline%FF', reason: 'foreign' });
  return { directory, place, directories: [{ directory, real }], line };
}

test('the folders, with what is in them; a line that was cut off counts for nothing', (t) => {
  const w = world(t);
  const over = {
    path: 'over',
    type: 'file',
    size: 9,
    mtime: '1.5',
    reason: 'overwritten',
    ranges: [[0, 4096]],
  };
  appendFileSync(join(w.place, 'manifest.jsonl'), `${JSON.stringify(over)}\n{"path":"cut`);
  mkdirSync(join(w.place, '../not-ours'));
  mkdirSync(join(w.place, '../20250101-000000-epoch2'));
  const found = listQuarantine(w.directories);
  assert.deepEqual(
    found.map((one) => [one.folder, one.directory, one.files.length]),
    [
      ['20250101-000000-epoch2', w.directory, 0],
      [folder, w.directory, 4],
    ],
  );
  assert.deepEqual(found[1]?.files[3], { ...over, stored: null });
  assert.throws(() => quarantineFolder('db', w.directories, '20250101-000000-epoch3'), {
    code: 'HF-MIRROR-021',
  });
});

test('all of a folder comes back where it was, and stays in the quarantine', async (t) => {
  const w = world(t);
  const done = await restoreQuarantine(w.directories, {
    module: 'db',
    folder,
    paths: [],
    to: null,
  });
  assert.deepEqual(done, ['own', 'd/e%20f']);
  assert.equal(readFileSync(join(w.directory, 'own'), 'utf8'), 'mine');
  assert.equal(statSync(join(w.directory, 'own')).mtimeMs, 1_700_000_000_000);
  assert.equal(readFileSync(pathBytes(`${w.directory}/d/e%20f/new%0Aline%FF`), 'utf8'), 'deep');
  assert.ok(existsSync(join(w.place, 'files/own')));
});

test('single files come back, elsewhere too', async (t) => {
  const w = world(t);
  const options = { module: 'db', folder, to: join(w.directory, '../elsewhere') };
  const paths = ['own', 'd/e%20f/new%0Aline%FF'];
  assert.deepEqual(await restoreQuarantine(w.directories, { ...options, paths }), paths);
  assert.equal(readFileSync(join(options.to, 'own'), 'utf8'), 'mine');
  await assert.rejects(restoreQuarantine(w.directories, { ...options, paths: ['nothing'] }), {
    code: 'HF-MIRROR-022',
  });
  // By its name as well as by what the list shows.
  const again = { ...options, to: null, paths: ['d/e f'] };
  assert.deepEqual(await restoreQuarantine(w.directories, again), ['d/e%20f']);
});

test('nothing is written over, and nothing is copied when one is in the way', async (t) => {
  const w = world(t);
  mkdirSync(join(w.directory, 'd'));
  writeFileSync(join(w.directory, 'd/e f'), 'newer');
  const all = { module: 'db', folder, paths: [], to: null };
  await assert.rejects(restoreQuarantine(w.directories, all), { code: 'HF-MIRROR-024' });
  assert.ok(!existsSync(join(w.directory, 'own')));
  assert.equal(readFileSync(join(w.directory, 'd/e f'), 'utf8'), 'newer');
});

test('a manifest cannot lead out of its folder', async (t) => {
  const w = world(t);
  w.line({ path: 'evil', stored: 'files/../../../secret' });
  w.line({ path: 'evil', stored: '/etc/passwd' });
  const all = { module: 'db', folder, paths: ['evil'], to: null };
  await assert.rejects(restoreQuarantine(w.directories, all), { code: 'HF-MIRROR-022' });
});

test('a folder is removed for good, with names of any bytes', async (t) => {
  const w = world(t);
  assert.equal(await purgeQuarantine('db', w.directories, folder), 3);
  assert.ok(!existsSync(w.place));
  await assert.rejects(purgeQuarantine('db', w.directories, folder), { code: 'HF-MIRROR-021' });
});

test('a directory is found below its mount by a descriptor of the engine', (t) => {
  const w = world(t);
  assert.equal(realDirectory('db', w.directory, null).real, w.directory);
  assert.throws(() => realDirectory('db', w.directory, process.pid), { code: 'HF-MIRROR-025' });
  const fd = openSync(w.directory, 'r');
  t.after(() => closeSync(fd));
  const { real } = realDirectory('db', w.directory, process.pid);
  assert.equal(statSync(real).ino, statSync(w.directory).ino);
  assert.match(real, /^\/proc\/\d+\/fd\/\d+$/);
});
