import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { repoRoot } from '../../src/lab/tool.ts';

/** Each script runs in a process of its own: a crash at its end would show as a signal. */
function run(body: string): { code: number | null; signal: string | null; out: string } {
  const from = join(repoRoot, 'dist/src/native/link.js');
  const script = `import { openLink } from ${JSON.stringify(from)};\n${body}`;
  const args = ['--expose-gc', '--input-type=module', '-e', script];
  const result = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 });
  return { code: result.status, signal: result.signal, out: result.stdout + result.stderr };
}

const fine = (out: string) => ({ code: 0, signal: null, out });

test('a watching link does not keep the process alive', () => {
  assert.deepEqual(run('openLink().onEvents(() => {});'), fine(''));
});

test('process.exit while the monitor runs', () => {
  assert.deepEqual(run('openLink().onEvents(() => {}); process.exit(0);'), fine(''));
});

test('an exception while the monitor runs', () => {
  const result = run("openLink().onEvents(() => {}); throw new Error('as planned');");
  assert.equal(result.signal, null);
  assert.match(result.out, /as planned/);
});

test('garbage collected without close', () => {
  const body = `for (let i = 0; i < 20; i++) openLink().onEvents(() => {});
    for (let i = 0; i < 5; i++) { gc(); await new Promise((r) => setImmediate(r)); }
    console.log('end');`;
  assert.deepEqual(run(body), fine('end\n'));
});

test('workers that are terminated while they watch', () => {
  const from = JSON.stringify(join(repoRoot, 'dist/src/native/link.js'));
  const inner = `import(${from}).then(({ openLink }) => {
    globalThis.link = openLink(); globalThis.link.onEvents(() => {});
    require('node:worker_threads').parentPort.postMessage('up'); setInterval(() => {}, 1000); });`;
  const body = `import { Worker } from 'node:worker_threads';
    for (let i = 0; i < 10; i++) {
      const worker = new Worker(${JSON.stringify(inner)}, { eval: true, execArgv: [] });
      await new Promise((r) => worker.once('message', r));
      await worker.terminate();
    }
    console.log('end');`;
  assert.deepEqual(run(body), fine('end\n'));
});

test('wrong arguments are refused before the kernel is asked', () => {
  const body = `const link = openLink();
    for (const act of [() => link.addAddress('lo', 'nonsense', 32),
      () => link.addAddress('lo', '10.0.0.1', 33), () => link.announce('lo', '10.0.0.1', 'aa:bb')]) {
      try { act(); console.log('accepted'); } catch (e) { console.log(e.code); }
    }`;
  assert.deepEqual(run(body), fine('ERR_ASSERTION\nERR_ASSERTION\nHF-NATIVE-020\n'));
});
