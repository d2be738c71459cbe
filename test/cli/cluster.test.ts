import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cli, FakeNode } from './fake.ts';

describe('cluster init', () => {
  let root = '';
  const init = [
    'cluster',
    'init',
    '--node',
    'n1',
    '--lan',
    'blue=10.0.0.1',
    '--lan',
    'red=10.1.0.1',
  ];
  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'holdfast-init-'));
  });
  after(() => rm(root, { recursive: true }));

  test('makes keys and cluster.xml and prints the join line', async () => {
    const { code, out, err } = await cli(new FakeNode('n1'), init, { root });
    assert.equal(code, 0, err);
    assert.match(out, /^ {2}holdfast cluster join 10\.0\.0\.1(:\d+)? --token hf1\.\S+$/m);
    const xml = await readFile(join(root, 'etc/holdfast/cluster.xml'), 'utf8');
    assert.match(xml, /<lan name="blue".*>\s*<node name="n1" addr="10\.0\.0\.1"/);
    assert.match(xml, /<lan name="red"/);
    const key = await stat(join(root, 'etc/holdfast/pki/node.key'));
    assert.equal(key.mode & 0o777, 0o600);
    const check = await cli(new FakeNode('n1'), ['confcheck'], { root });
    assert.equal(check.code, 0, check.err);
  });

  test('a second time it is refused and changes nothing', async () => {
    const file = join(root, 'etc/holdfast/cluster.xml');
    const former = await readFile(file, 'utf8');
    const { code, err } = await cli(new FakeNode('n1'), init, { root });
    assert.match(err, /^error\[HF-CLUSTER-001\]/);
    assert.equal(code, 1);
    assert.equal(await readFile(file, 'utf8'), former);
  });

  test('--json has the token and the join line', async () => {
    const other = await mkdtemp(join(tmpdir(), 'holdfast-init-'));
    const { out } = await cli(new FakeNode('n1'), [...init, '--json'], { root: other });
    await rm(other, { recursive: true });
    const result = JSON.parse(out) as Record<string, string>;
    assert.equal(result['node'], 'n1');
    assert.ok(result['joinLine']?.endsWith(result['token'] ?? 'no token'));
  });

  test('a wrong --lan', async () => {
    const { code, err } = await cli(new FakeNode('n1'), ['cluster', 'init', '--lan', 'blue'], {
      root,
    });
    assert.match(err, /NAME=ADDR/);
    assert.equal(code, 64);
  });
});

describe('cluster join', () => {
  test('needs a token', async () => {
    const { code, err } = await cli(new FakeNode('n1'), ['cluster', 'join', '10.0.0.1']);
    assert.match(err, /required option '--token/);
    assert.equal(code, 64);
  });

  test('a token that is not one', async () => {
    const args = ['cluster', 'join', '10.0.0.1', '--token', 'abc'];
    const { code, err } = await cli(new FakeNode('n1'), args);
    assert.match(err, /^error\[HF-CLUSTER-003\]/);
    assert.equal(code, 1);
  });
});

describe('cluster status, token, config', () => {
  test('status', async () => {
    const node = new FakeNode('n1');
    new FakeNode('n2', node.cluster);
    const { out } = await cli(node, ['cluster', 'status']);
    assert.equal(
      out,
      '2 nodes, configuration 01234567, CA ff00\n\n' +
        'NODE  ID  ADDRESSES      HEARTBEATS  CHANNEL  CONFIGURATION  ADMITS\n' +
        'n1    0   blue=10.0.0.1  this node                           yes\n' +
        'n2    1   blue=10.0.0.2  ok          open     same\n',
    );
    const json = await cli(node, ['cluster', 'status', '--json']);
    assert.deepEqual(JSON.parse(json.out), await node.clusterStatus());
  });

  test('token, with its time and the node it replaces', async () => {
    const node = new FakeNode('n1');
    const { out } = await cli(node, ['cluster', 'token', '--ttl', '10m', '--replace', 'n2']);
    assert.equal(out, 'holdfast cluster join …\n(valid for one server and 30 min)\n');
    assert.deepEqual(node.asked.at(-1), ['token', { ttlMs: 600_000, replaces: 'n2' }]);
    assert.equal((await cli(node, ['cluster', 'token', '--ttl', 'long'])).code, 64);
  });

  test('config prints, or applies a file', async () => {
    const node = new FakeNode('n1');
    assert.equal((await cli(node, ['cluster', 'config'])).out, '<cluster/>\n');
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-cluster-'));
    const file = join(folder, 'cluster.xml');
    assert.match((await cli(node, ['cluster', 'config', file])).err, /^error\[HF-CLI-003\]/);
    await rm(folder, { recursive: true });
    assert.equal(node.asked.filter(([what]) => what === 'applyCluster').length, 0);
  });
});
