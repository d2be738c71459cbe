/** The program itself, as a process, against the API of agents on loopback. */
import assert from 'node:assert/strict';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { HoldfastError } from '../../src/errors.ts';
import { TestCluster, type TestNode } from '../api/fixture.ts';
import { root } from '../house/source.ts';

type Child = ChildProcessByStdio<null, Readable, Readable>;

describe('bin/holdfast', () => {
  let cluster: TestCluster;
  let here: TestNode;
  let there: TestNode;

  before(async () => {
    cluster = await TestCluster.make(['n1', 'n2']);
    here = cluster.node(0);
    there = cluster.node(1);
  });
  after(() => cluster.close());

  function start(args: readonly string[], nodeRoot = join(here.paths.run, '../..')): Child {
    return spawn(join(root, 'bin/holdfast'), args, {
      env: { ...process.env, HOLDFAST_ROOT: nodeRoot },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  async function holdfast(args: readonly string[], nodeRoot?: string) {
    const child = start(args, nodeRoot);
    const [out, err, exit] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close'),
    ]);
    return { out, err, code: exit[0] as number | null };
  }

  /** What the child prints from now on, until it ends with this. */
  function printed(child: Child, end: string): Promise<string> {
    return new Promise((resolve, reject) => {
      let seen = '';
      child.once('close', () => reject(new Error(`ended after: ${seen}`)));
      child.stdout.on('data', function collect(chunk: Buffer) {
        seen += chunk.toString('utf8');
        if (!seen.endsWith(end)) return;
        child.stdout.off('data', collect);
        resolve(seen);
      });
    });
  }

  test('status of this node', async () => {
    const { out, err, code } = await holdfast(['status']);
    assert.match(out, /^n1 {2}holdfast .*\n\nMODULE .*\nweb +farm +UP \(Ready\)\n/);
    assert.equal(err, '');
    assert.equal(code, 0);
  });

  test('a command for another node goes through this one', async () => {
    const { out, code } = await holdfast(['stop', 'web', '-H', 'n2', '--json']);
    assert.equal((JSON.parse(out) as { name: string }).name, 'web');
    assert.equal(code, 0);
    assert.deepEqual(there.agent.calls.at(-1), ['command', 'web', 'stop']);
    assert.ok(!here.agent.calls.some(([name]) => name === 'command'));
  });

  test('all nodes', async () => {
    const { out, code } = await holdfast(['timing', '-H', '*']);
    assert.match(out, /^n1:\n {2}DEADLINE .*\n {2}lease .*\nn2:\n {2}DEADLINE .*\n {2}lease .*\n$/);
    assert.equal(code, 0);
  });

  test('a refusal of another node arrives with code and hint', async () => {
    there.agent.failure = new HoldfastError('HF-MODULE-002', { name: 'shop' });
    const { err, code } = await holdfast(['start', 'shop', '-H', 'n2']);
    there.agent.failure = null;
    assert.match(err, /^error\[HF-MODULE-002\] module shop is not installed on this node\nhint: /);
    assert.equal(code, 1);
  });

  test('all errors of a configuration arrive', async () => {
    const { err, code } = await holdfast(['config', 'web']);
    assert.equal(err, 'error[HF-CONFIG-999] u.xml:4: bad\nhint: good\n');
    assert.equal(code, 2);
  });

  test('status -q is the state', async () => {
    assert.deepEqual(await holdfast(['status', '-q', '-m', 'web']), { out: '', err: '', code: 2 });
  });

  test('a join line of `cluster token` names this server', async () => {
    const { out, code } = await holdfast(['cluster', 'token']);
    assert.match(out, /^holdfast cluster join 127\.0\.0\.1:\d+ --token hf1\.\S+\n/);
    assert.equal(code, 0);
  });

  test('events -f follows until interrupted', async () => {
    here.agent.emit('first', 'web');
    const child = start(['events', '-f', '-m', 'web']);
    assert.match(await printed(child, 'first\n'), / {2}n1\/web {2}transition {2}first\n$/);
    const more = printed(child, 'second\n');
    here.agent.emit('other', 'shop');
    here.agent.emit('second', 'web');
    assert.doesNotMatch(await more, /other/);
    const closed = once(child, 'close');
    child.kill('SIGINT');
    assert.deepEqual(await closed, [0, null]);
  });

  test('status --watch shows what has changed', async () => {
    const child = start(['status', '--watch', '--json', '-m', 'web']);
    assert.match(await printed(child, '}\n'), /"state":"UP"/);
    const more = printed(child, '}\n');
    const former = here.agent.modules;
    here.agent.modules = former.map((module) => ({ ...module, state: 'WAIT' }));
    here.agent.emit('UP -> WAIT', 'web');
    assert.match(await more, /"state":"WAIT"/);
    here.agent.modules = former;
    const closed = once(child, 'close');
    child.kill('SIGINT');
    assert.deepEqual(await closed, [0, null]);
  });

  test('no agent: what to do, and an exit code of its own', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-cli-'));
    const never = await holdfast(['status'], folder);
    assert.match(never.err, /^error\[HF-CLUSTER-002\] .*\nhint: .*cluster init/);
    assert.equal(never.code, 69);
    await mkdir(join(folder, 'etc/holdfast'), { recursive: true });
    await writeFile(join(folder, 'etc/holdfast/cluster.xml'), '<cluster/>');
    const down = await holdfast(['status'], folder);
    assert.match(down.err, /^error\[HF-API-010\] the agent does not answer .*\nhint: .*holdfastd/);
    assert.equal(down.out, '');
    assert.equal(down.code, 69);
    await rm(folder, { recursive: true });
  });

  test('a reader that leaves early is no error', async () => {
    const child = start(['--help']);
    child.stdout.destroy();
    const [err, exit] = await Promise.all([text(child.stderr), once(child, 'close')]);
    assert.equal(err, '');
    assert.deepEqual(exit, [0, null]);
  });
});
