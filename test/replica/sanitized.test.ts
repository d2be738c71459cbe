/**
 * The engine built with sanitizers, under the same random operations, cuts and kills: what ASan, UBSan
 * or TSan say ends a run (pair.ts). HOLDFAST_FSX_SECONDS and HOLDFAST_RUNS: more than the few here.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from '../house/source.ts';
import { cannotRun } from './pair.ts';

/** Runs a test file in a process of its own, with another build of the engine. */
async function runWith(program: string, file: string): Promise<void> {
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  // TSan needs the address space as it expects it; the engine inherits that.
  const child = spawn('setarch', ['-R', process.execPath, '--enable-source-maps', '--test', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      HOLDFAST_FSX_SECONDS: '25',
      HOLDFAST_RUNS: '25',
      ...env,
      HOLDFAST_REPLICA_PROGRAM: program,
    },
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (said += text));
  }
  const code = await new Promise((done) => child.once('close', done));
  assert.equal(code, 0, said);
  assert.match(said, /# pass 1\b/, said);
}

for (const variant of ['asan', 'tsan']) {
  const program = join(root, 'build/native-tests', variant, 'holdfast-replica');
  const skip =
    cannotRun ||
    (!existsSync(program) &&
      `${program} is not built: node tools/native-tests.mjs holdfast-replica`);
  describe(`the engine with ${variant}`, { skip, timeout: 600_000 }, () => {
    for (const name of ['fsx', 'prefix']) {
      test(name, () =>
        runWith(program, fileURLToPath(new URL(`./${name}.test.js`, import.meta.url))),
      );
    }
  });
}
