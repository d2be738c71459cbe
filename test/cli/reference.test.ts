import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { buildProgram } from '../../src/cli/program.ts';
import { root } from '../house/source.ts';
import { fakeIo, FakeNode } from './fake.ts';
import { cliReference } from './reference.ts';

const page = `${root}docs/reference/cli.md`;

test('docs/reference/cli.md tells the commands as they are', async () => {
  const { io } = fakeIo(new FakeNode('n1'));
  const wanted = cliReference(await buildProgram({ io, exitCode: 0 }, true));
  if (process.env['UPDATE'] === '1') await writeFile(page, wanted);
  assert.equal(await readFile(page, 'utf8'), wanted, 'run UPDATE=1 npm test -- cli/reference');
});
