import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { crc32, deflateRawSync } from 'node:zlib';
import { HoldfastError } from '../../src/errors.ts';
import { isModuleName, moduleDirs } from '../../src/module/name.ts';
import {
  configHistory,
  installPackage,
  listModules,
  maxEntries,
  packagedConfig,
  packageModule,
  readPackage,
  readUserconfig,
  recoverModules,
  uninstallModule,
  writeUserconfig,
} from '../../src/module/package.ts';
import { readZip, writeZip, type ZipEntry } from '../../src/module/zip.ts';
import { handMade, temporaryPaths } from './helpers.ts';

const limits = { entries: 100, bytes: 1_000_000 };

function file(name: string, text: string | Uint8Array = 'x', mode = 0o644): ZipEntry {
  return { name, directory: false, mode, data: Buffer.from(text) };
}

function archive(...more: ZipEntry[]): Uint8Array {
  return writeZip([file('conf/userconfig.xml', '<safe/>'), ...more]);
}

function code(expected: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof HoldfastError, String(error));
    assert.equal(error.code, expected, error.message);
    return true;
  };
}

/** Changes the central directory's (and, where it lies there too, the local) bytes of entry `name`. */
function patched(bytes: Uint8Array, name: string, change: (central: Buffer) => void): Buffer {
  const copy = Buffer.from(bytes);
  const at = copy.lastIndexOf(name) - 46;
  assert.equal(copy.readUInt32LE(at), 0x02014b50);
  change(copy.subarray(at));
  return copy;
}

test('a module comes back from its archive with content and executable bits', async (t) => {
  const paths = temporaryPaths(t);
  const big = Buffer.alloc(300_000, 'holdfast ');
  await installPackage(
    paths,
    'web',
    archive(
      file('bin/start_both', '#!/bin/sh\n', 0),
      file('bin/stop_both', '#!/bin/sh\n', 0o6755),
      file('conf/big', big, 0o600),
      file('conf/empty', ''),
      file('web/déjà vu.html', 'ü'),
    ),
    false,
  );
  const { root } = moduleDirs(paths, 'web');
  assert.equal(readFileSync(join(root, 'conf/userconfig.xml'), 'utf8'), '<safe/>');
  assert.deepEqual(readFileSync(join(root, 'conf/big')), big);
  assert.equal(readFileSync(join(root, 'web/déjà vu.html'), 'utf8'), 'ü');
  const mode = (name: string): number => statSync(join(root, name)).mode & 0o7777;
  assert.equal(mode('bin/start_both'), 0o755);
  assert.equal(mode('bin/stop_both'), 0o755);
  assert.equal(mode('conf/big'), 0o600);
  assert.deepEqual(await listModules(paths), ['web']);
  assert.deepEqual(readdirSync(paths.modules), ['web']);

  const packed = await packageModule(paths, 'web');
  assert.deepEqual(await packageModule(paths, 'web'), packed);
  await installPackage(paths, 'copy', packed, false);
  assert.deepEqual(readFileSync(join(moduleDirs(paths, 'copy').root, 'conf/big')), big);
  assert.equal(packagedConfig('web', packed), '<safe/>');
});

test('archives of other tools are read, and ours by them', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', { start_both: 'true', stop_both: 'true' });
  const { root } = moduleDirs(paths, 'web');
  writeFileSync(join(root, 'conf/long'), 'abc'.repeat(50_000));
  const script = `
import sys, zipfile, io
data = sys.stdin.buffer.read()
z = zipfile.ZipFile(io.BytesIO(data)); assert z.testzip() is None
assert z.read('conf/long') == b'abc' * 50000
assert z.getinfo('bin/start_both').external_attr >> 16 == 0o100755
out = io.BytesIO(); w = zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED)
for i in z.infolist(): w.writestr(i, z.read(i.filename), zipfile.ZIP_DEFLATED)
w.close(); sys.stdout.buffer.write(out.getvalue())`;
  const packed = await packageModule(paths, 'web');
  const python = spawnSync('python3', ['-c', script], { input: packed });
  if (python.error === undefined) {
    assert.equal(python.status, 0, String(python.stderr));
    await installPackage(paths, 'again', python.stdout, false);
    assert.equal(readFileSync(join(moduleDirs(paths, 'again').conf, 'long')).length, 150_000);
  }
  // A zip that was written to a pipe has data descriptors and no sizes in its local headers.
  if (existsSync('/usr/bin/zip')) {
    const piped = execFileSync('/usr/bin/zip', ['-qr', '-', 'conf', 'bin'], { cwd: root });
    await installPackage(paths, 'piped', piped, false);
    assert.equal(readFileSync(join(moduleDirs(paths, 'piped').conf, 'long')).length, 150_000);
  }
});

test('unsafe names are refused and nothing is written', async (t) => {
  const paths = temporaryPaths(t);
  for (const name of [
    '../evil',
    'bin/../../evil',
    '/etc/evil',
    'bin//evil',
    './evil',
    'bin/./evil',
    'bin\\evil',
    'C:\\evil',
    'bin/a\nb',
    'bin/a\0b',
    '..',
    '/',
    `bin/${'a'.repeat(256)}`,
    `${'b/'.repeat(300)}a`,
  ]) {
    await assert.rejects(
      installPackage(paths, 'web', archive(file(name)), false),
      code('HF-MODULE-011'),
      name,
    );
  }
  const notUtf8 = Buffer.from(archive(file('bin/QQ')));
  for (let at = notUtf8.indexOf('QQ'); at >= 0; at = notUtf8.indexOf('QQ', at)) notUtf8[at] = 0xff;
  assert.throws(() => readZip(notUtf8, limits), code('HF-MODULE-011'));
  assert.throws(() => readZip(archive(file('a'), file('a/b')), limits), code('HF-MODULE-011'));
  assert.equal(existsSync(paths.modules), false);
});

test('links, devices and double names are refused', () => {
  const plain = archive(file('bin/odd', '/etc/shadow'));
  for (const [type, text] of [
    [0o120777, /symbolic link/],
    [0o060644, /block device/],
    [0o020644, /character device/],
    [0o010644, /named pipe/],
    [0o140644, /socket/],
  ] as const) {
    const odd = patched(plain, 'bin/odd', (c) => c.writeUInt16LE(type, 40));
    assert.throws(
      () => readZip(odd, limits),
      (error) => {
        assert.match(String(error), text);
        return code('HF-MODULE-012')(error);
      },
    );
  }
  assert.throws(() => readZip(archive(file('a'), file('a')), limits), code('HF-MODULE-013'));
  const folder = { ...file('a'), directory: true, data: Buffer.alloc(0) };
  assert.throws(() => readZip(archive(file('a'), folder), limits), code('HF-MODULE-013'));
});

test('too many entries and too many bytes are refused before they are unpacked', () => {
  const many = Array.from({ length: maxEntries }, (_, i) => file(`bin/${i}`));
  assert.throws(() => readPackage('web', archive(...many)), code('HF-MODULE-014'));
  assert.throws(
    () => readZip(archive(file('a', Buffer.alloc(limits.bytes))), limits),
    code('HF-MODULE-015'),
  );
  assert.equal(readZip(archive(file('a', Buffer.alloc(999_000))), limits).length, 2);
});

test('a bomb that announces less than it holds stops at what it announced', () => {
  const bomb = Buffer.from(archive(file('bomb', Buffer.alloc(900_000))));
  const small = patched(bomb, 'bomb', (c) => c.writeUInt32LE(10, 24));
  assert.throws(() => readZip(small, limits), code('HF-MODULE-016'));
  // Many entries that share the same compressed bytes: each alone is within the limit.
  const packed = deflateRawSync(Buffer.alloc(400_000));
  const two = patched(archive(file('a1', Buffer.alloc(400_000)), file('a2', 'x')), 'a2', (c) => {
    const first = Buffer.from(archive(file('a1', Buffer.alloc(400_000)))).indexOf('a1') - 30;
    c.writeUInt32LE(first, 42);
    c.writeUInt32LE(packed.length, 20);
  });
  assert.throws(() => readZip(two, limits), code('HF-MODULE-016'));
});

test('each damaged byte range is noticed', () => {
  const good = archive(file('bin/a', 'some content that is stored'));
  const data = Buffer.from(good);
  data[data.indexOf('some content')] = 0x53;
  assert.throws(() => readZip(data, limits), code('HF-MODULE-016'));
  const other = Buffer.from(good);
  other[other.indexOf('bin/a')] = 0x63;
  assert.throws(() => readZip(other, limits), code('HF-MODULE-016'));
  for (const [offset, value] of [
    [8, 1],
    [10, 99],
    [16, 7],
    [24, 3],
    [42, 1],
    [42, 1_000_000],
  ] as const) {
    const bad = patched(good, 'bin/a', (c) => c.writeUInt16LE(value & 0xffff, offset));
    assert.throws(() => readZip(bad, limits), code('HF-MODULE-016'), `offset ${offset}`);
  }
});

test('what is no archive is refused, whatever its length', () => {
  const good = Buffer.from(archive(file('bin/a', 'content')));
  assert.throws(() => readZip(Buffer.alloc(0), limits), code('HF-MODULE-010'));
  assert.throws(
    () => readZip(Buffer.from('PK nothing of the kind'), limits),
    code('HF-MODULE-010'),
  );
  for (let size = 0; size < good.length; size++) {
    assert.throws(() => readZip(good.subarray(0, size), limits), code('HF-MODULE-010'));
  }
  assert.throws(() => readZip(good.subarray(1), limits), code('HF-MODULE-010'));
  assert.throws(
    () => readZip(Buffer.concat([good, Buffer.from('x')]), limits),
    code('HF-MODULE-010'),
  );
});

test('random changes of an archive never do worse than an error with a code', () => {
  const good = Buffer.from(
    archive(file('bin/start', 'abcabcabcabcabcabcabc'.repeat(20)), file('bin/b')),
  );
  let seed = 7;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed % below;
  };
  let refused = 0;
  for (let i = 0; i < 5000; i++) {
    const bad = Buffer.from(good);
    for (let n = random(4); n >= 0; n--) bad[random(bad.length)] = random(256);
    try {
      for (const entry of readZip(bad, limits)) assert.doesNotMatch(entry.name, /\.\.\//);
    } catch (error) {
      assert.ok(error instanceof HoldfastError, String(error));
      refused++;
    }
  }
  assert.ok(refused > 3000);
});

test('an archive without configuration or without the stop script is refused', () => {
  assert.throws(
    () => readPackage('web', writeZip([file('web/conf/userconfig.xml')])),
    code('HF-MODULE-017'),
  );
  assert.throws(() => readPackage('web', archive(file('bin/start_both'))), code('HF-MODULE-018'));
});

test('module names are checked before they become a path', async (t) => {
  const paths = temporaryPaths(t);
  for (const name of ['', '.', '..', '.hidden', '-x', 'a/b', 'a b', 'ä', 'x'.repeat(33), 'a\n']) {
    assert.equal(isModuleName(name), false, name);
    await assert.rejects(installPackage(paths, name, archive(), false), code('HF-MODULE-001'));
  }
  for (const name of ['a', 'Web-1.2_x', '9', 'x'.repeat(32)]) assert.ok(isModuleName(name), name);
  await assert.rejects(packageModule(paths, 'none'), code('HF-MODULE-002'));
  await assert.rejects(uninstallModule(paths, 'none'), code('HF-MODULE-002'));
  await assert.rejects(readUserconfig(paths, 'none'), code('HF-MODULE-002'));
});

test('a module is replaced only on request, and its former configurations are kept', async (t) => {
  const paths = temporaryPaths(t);
  await installPackage(paths, 'web', archive(file('bin/old')), false);
  await assert.rejects(installPackage(paths, 'web', archive(), false), code('HF-MODULE-003'));
  const fresh = writeZip([file('conf/userconfig.xml', '<safe>1</safe>'), file('bin/new')]);
  await installPackage(paths, 'web', fresh, true);
  assert.deepEqual(readdirSync(moduleDirs(paths, 'web').bin), ['new']);
  assert.deepEqual(await configHistory(paths, 'web'), ['<safe/>']);
  for (const n of [2, 3, 4, 4]) await writeUserconfig(paths, 'web', `<safe>${n}</safe>`);
  assert.equal(await readUserconfig(paths, 'web'), '<safe>4</safe>');
  assert.deepEqual(
    await configHistory(paths, 'web'),
    [3, 2, 1].map((n) => `<safe>${n}</safe>`),
  );
  await uninstallModule(paths, 'web');
  assert.deepEqual(await listModules(paths), []);
  assert.deepEqual(await configHistory(paths, 'web'), []);
});

test('an interrupted installation is ended at the next start', async (t) => {
  const paths = temporaryPaths(t);
  await installPackage(paths, 'web', archive(file('bin/old')), false);
  await installPackage(paths, 'other', archive(), false);
  const at = (name: string): string => join(paths.modules, name);
  // Died between the two renames; and after them, before the tidying up.
  renameSync(at('web'), at('.web.0123456789ab.old'));
  mkdirSync(at('.web.0123456789ab.new/bin'), { recursive: true });
  mkdirSync(at('.other.0123456789ab.old/bin'), { recursive: true });
  mkdirSync(at('.x.y.0123456789ab.gone'), { recursive: true });
  assert.equal((await recoverModules(paths)).length, 4);
  assert.deepEqual(readdirSync(paths.modules).sort(), ['other', 'web']);
  assert.deepEqual(readdirSync(at('web/bin')), ['old']);
  assert.deepEqual(await recoverModules(paths), []);
});

test('packaging refuses what an archive must not hold', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', {});
  symlinkSync('/etc/passwd', join(moduleDirs(paths, 'web').conf, 'link'));
  await assert.rejects(packageModule(paths, 'web'), code('HF-MODULE-012'));
});

test('an installation on a full disk leaves the former module as it was', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('mounting a small tmpfs needs root');
  const paths = temporaryPaths(t, '256k');
  await installPackage(paths, 'web', archive(file('bin/old', 'old')), false);
  const random = Buffer.alloc(600_000);
  for (let i = 0; i < random.length; i += 4) random.writeUInt32LE(crc32(String(i)), i);
  const big = writeZip([file('conf/userconfig.xml', 'new'), file('conf/big', random)]);
  await assert.rejects(installPackage(paths, 'web', big, true), (error) => {
    assert.match(String(error), /ENOSPC/);
    return code('HF-MODULE-020')(error);
  });
  assert.deepEqual(readdirSync(paths.modules), ['web']);
  assert.equal(readFileSync(join(moduleDirs(paths, 'web').bin, 'old'), 'utf8'), 'old');
  assert.equal(await readUserconfig(paths, 'web'), '<safe/>');
});
