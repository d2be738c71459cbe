/** The tools that run before anything is installed, with stand-ins for dpkg and apt. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { numbered, root, sources } from './source.ts';

describe('packages of the machine', () => {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-tools-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  const script = (name: string, text: string): Promise<void> =>
    writeFile(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });

  /** dpkg-query that knows these lines, and an apt-get that notes what it is asked. */
  async function machine(installed: readonly string[], aptExit = 0): Promise<void> {
    await script('dpkg-query', `printf '%s\\n' ${installed.map((line) => `'${line}'`).join(' ')}`);
    await script('apt-get', `echo "$@" >>'${join(folder, 'asked')}'; echo noise; exit ${aptExit}`);
  }

  /** Runs code with the tools' functions in reach; a StepError is exit code 1. */
  function tool(code: string) {
    const text = `
      import { needNode, needPackages, packagesOf } from '${root}tools/lib/machine.mjs';
      import { runMain } from '${root}tools/lib/step.mjs';
      await runMain(() => { ${code} });`;
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', text], {
      encoding: 'utf8',
      env: { PATH: folder },
    });
    return { out: run.stdout, err: run.stderr, code: run.status };
  }

  /** What tools/packages.json lists for these purposes. */
  async function packagesOf(...groups: string[]): Promise<string[]> {
    const text = await readFile(`${root}tools/packages.json`, 'utf8');
    const table = JSON.parse(text) as Record<string, { apt: string[] }>;
    return [...new Set(groups.flatMap((group) => table[group]?.apt ?? []))].sort();
  }

  const asked = (): Promise<string> => readFile(join(folder, 'asked'), 'utf8');

  test('all there: nothing is said or done', async () => {
    await machine([]);
    await script('dpkg-query', 'shift 3; for name in "$@"; do echo "$name:amd64 installed"; done');
    assert.deepEqual(tool("needPackages(['build', 'lab', 'test'], true);"), {
      out: '',
      err: '',
      code: 0,
    });
    assert.ok(!existsSync(join(folder, 'asked')));
  });

  test('root: what is missing is installed, with one line', async () => {
    const there = await packagesOf('bench', 'test');
    const lines = there.filter((name) => name !== 'keepalived').map((name) => `${name} installed`);
    await machine(['keepalived config-files', ...lines]);
    const { out, err, code } = tool("needPackages(['bench', 'test'], true);");
    assert.equal(out, 'holdfast: apt-get install --no-install-recommends keepalived\n');
    assert.equal(err, '');
    assert.equal(code, 0);
    assert.equal(await asked(), 'update -qq\ninstall -y -qq --no-install-recommends keepalived\n');
  });

  test('not root: the exact line, and exit code 1', async () => {
    await machine([]);
    const { out, err, code } = tool("needPackages(['bench', 'test'], false);");
    assert.equal(out, '');
    assert.match(err, /only root can install them/);
    const all = (await packagesOf('bench', 'test')).join(' ');
    const line = `  sudo apt-get update && sudo apt-get install --no-install-recommends ${all}`;
    assert.ok(err.split('\n').includes(line), err);
    assert.equal(code, 1);
    assert.ok(!existsSync(join(folder, 'asked')));
  });

  test('apt fails: its output and what to run', async () => {
    await machine([], 100);
    const { err, code } = tool("needPackages(['bench'], true);");
    assert.match(err, /^noise\nholdfast: apt-get update failed; .* keepalived [a-z0-9 ]*\n$/);
    assert.equal(code, 1);
  });

  test('another distribution: the names, and on', () => {
    const { out, code } = tool("needPackages(['bench'], true);");
    assert.match(out, /not a Debian or Ubuntu machine; needed are: [a-z0-9 -]*keepalived/);
    assert.equal(code, 0);
  });

  test('Node: older ones are told which is needed', () => {
    for (const version of ['18.20.0', '20.16.9', '4.0.0']) {
      const { err, code } = tool(`needNode('${version}');`);
      assert.match(
        err,
        new RegExp(`^holdfast: Node 20\\.17 or newer is needed, this is ${version}`),
      );
      assert.equal(code, 1);
    }
    for (const version of ['20.17.0', '22.1.0', '26.10.0']) {
      assert.equal(tool(`needNode('${version}');`).code, 0);
    }
  });
});

test('the tools import nothing that is not there before npm ci', () => {
  const tools = sources(['tools'], ['.mjs']).filter(({ path }) => !path.startsWith('tools/docs'));
  assert.ok(tools.length > 5);
  for (const { path, text } of tools) {
    for (const [line, code] of numbered(text)) {
      const target = /\bfrom '([^']+)'|\bimport\('([^']+)'\)/.exec(code);
      const name = target?.[1] ?? target?.[2];
      if (name !== undefined) assert.match(name, /^(node:|\.\/)/, `${path}:${line}`);
    }
  }
});
