import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { root } from '../house/source.ts';

/** `holdfast witness run` as a process of its own; resolves with its port once it listens. */
async function run(t: TestContext, listen: string) {
  const state = mkdtempSync(join(tmpdir(), 'holdfast-cli-witness-'));
  const words = ['dist/src/cli/main.js', 'witness', 'run', '--state', state, '--listen', listen];
  const child = spawn(process.execPath, words, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => {
    child.kill('SIGTERM');
    rmSync(state, { recursive: true, force: true });
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const ended = once(child, 'close');
  const first = await Promise.race([once(child.stdout.setEncoding('utf8'), 'data'), ended]);
  const port = Number(/^listening on port (\d+)\n/.exec(String(first[0]))?.[1] ?? 0);
  return { child, port, ended, said: () => said };
}

describe('holdfast witness run', () => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test(`serves until ${signal}, and leaves nothing behind`, async (t) => {
      const { child, port, ended } = await run(t, '127.0.0.1:0');
      const socket = connect({ host: '127.0.0.1', port });
      await once(socket, 'connect');
      socket.destroy();
      child.kill(signal);
      assert.deepEqual(await ended, [0, null]);
      const late = connect({ host: '127.0.0.1', port });
      const [error] = (await once(late, 'error')) as [NodeJS.ErrnoException];
      assert.equal(error.code, 'ECONNREFUSED');
    });
  }

  test('ends with 1 and a sentence where it cannot listen', async (t) => {
    const { ended, said } = await run(t, 'localhost:x');
    assert.deepEqual(await ended, [1, null]);
    assert.equal(said(), 'holdfast-witness: --listen: Invalid argument\n');
  });
});
