import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { main } from '../../src/cli/program.ts';
import { first } from '../arbiter/contract.ts';
import { clusterId, WitnessWorld } from '../arbiter/witness-world.ts';
import { root } from '../house/source.ts';
import { fakeIo, FakeNode } from './fake.ts';

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

describe('holdfast witness list', () => {
  const list = async (...words: string[]) => {
    const { io, text } = fakeIo(new FakeNode('n1'));
    const code = await main(['witness', 'list', ...words], io);
    return { code, ...text };
  };

  test('tells what the witness keeps, beside it', async (t) => {
    const world = await WitnessWorld.make(t);
    const { state } = world;
    assert.deepEqual(await list('--state', state), { code: 0, out: 'no records\n', err: '' });
    const held = { ...first, incarnation: 2, epoch: 41, primary: 1, inSync: [0, 1] };
    assert.equal((await world.open(0).swap('db', null, held)).outcome, 'won');
    assert.equal((await world.open(0).swap('web', null, first)).outcome, 'won');
    assert.equal(
      (await list('--state', state)).out,
      [
        'CLUSTER           MODULE  REGISTER  EPOCH  PRIMARY  UP TO DATE\n',
        '00112233aabbccdd  db      2         41     1        0, 1\n',
        '00112233aabbccdd  web     1         1      0        0\n',
      ].join(''),
    );
    const file = join(state, clusterId, 'records/db');
    writeFileSync(file, readFileSync(file).fill(1, 70, 71));
    assert.match((await list('--state', state)).out, /db +damaged\n/);
    const json: unknown = JSON.parse((await list('--state', state, '--json')).out);
    assert.deepEqual(json, [
      { clusterId, module: 'db', record: null },
      { clusterId, module: 'web', record: first },
    ]);
  });

  test('says where there is no witness', async () => {
    const { code, err } = await list('--state', '/nonexistent');
    assert.equal(code, 1);
    assert.match(err, /HF-ARBITER-002.*\/nonexistent.*ENOENT/);
  });
});
