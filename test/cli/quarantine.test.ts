import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { ModuleState } from '../../src/host/face.ts';
import { cli, FakeNode, moduleStatus, replicaStatus } from './fake.ts';

const folder = '20260131-120000-epoch5';

/** A mirror whose engine is this process: it has the directory open. */
function mirror(t: TestContext, state: ModuleState = 'PRIM'): { n1: FakeNode; directory: string } {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-quarantine-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const place = join(directory, '.holdfast-quarantine', folder);
  mkdirSync(join(place, 'files'), { recursive: true });
  writeFileSync(join(place, 'files/own'), 'mine');
  const line = {
    path: 'own',
    stored: 'files/own',
    type: 'file',
    size: 2048,
    mtime: '1700000000.5',
  };
  const text = `${JSON.stringify({ ...line, reason: 'rolled_back' })}\n`;
  writeFileSync(join(place, 'manifest.jsonl'), text);
  const fd = openSync(directory, 'r');
  t.after(() => closeSync(fd));
  const n1 = new FakeNode('n1');
  const engine = { worker: String(process.pid) };
  const replica = replicaStatus({ directories: [directory], engine });
  n1.modulesHere = [moduleStatus({ name: 'db', mode: 'mirror', state, farm: null, replica })];
  return { n1, directory };
}

test('list shows the folders, and the files of one', async (t) => {
  const { n1, directory } = mirror(t, 'SECOND');
  const all = await cli(n1, ['quarantine', 'list']);
  assert.match(all.out, /^FOLDER .*\n20260131-120000-epoch5 +\S+ +1 +2\.0 KiB +0\n$/);
  const one = await cli(n1, ['quarantine', 'list', folder, '-m', 'db']);
  assert.match(one.out, /rolled_back +file +2\.0 KiB +2023-11-1\d .*\/own\n/);
  const json = await cli(n1, ['quarantine', 'list', '--json']);
  const [found] = JSON.parse(json.out) as { directory: string; files: unknown[] }[];
  assert.equal(found?.directory, directory);
  assert.equal(found?.files.length, 1);
});

test('restore is for the primary, or to another folder', async (t) => {
  const second = mirror(t, 'SECOND');
  const refused = await cli(second.n1, ['quarantine', 'restore', folder, 'own']);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /HF-MIRROR-023.*it is SECOND here/);
  assert.ok(!existsSync(join(second.directory, 'own')));
  const to = join(second.directory, 'elsewhere');
  const copied = await cli(second.n1, ['quarantine', 'restore', folder, 'own', '--to', to]);
  assert.equal(copied.out, 'own\n');
  assert.equal(readFileSync(join(to, 'own'), 'utf8'), 'mine');
  const prim = mirror(t);
  assert.equal((await cli(prim.n1, ['quarantine', 'restore', folder])).out, 'own\n');
  assert.equal(readFileSync(join(prim.directory, 'own'), 'utf8'), 'mine');
});

test('purge removes a folder', async (t) => {
  const { n1 } = mirror(t);
  const { out } = await cli(n1, ['quarantine', 'purge', folder]);
  assert.equal(out, `${folder}: 1 file removed\n`);
  const { out: none } = await cli(n1, ['quarantine', 'list']);
  assert.equal(none, 'nothing is in the quarantine\n');
  assert.match((await cli(n1, ['quarantine', 'purge', folder])).err, /HF-MIRROR-021/);
});

test('the quarantine is for mirrors', async () => {
  const { err } = await cli(new FakeNode('n1'), ['quarantine', 'list']);
  assert.match(err, /HF-MIRROR-004/);
});
