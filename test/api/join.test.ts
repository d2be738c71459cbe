import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { clusterInit, clusterJoin } from '../../src/api/join.ts';
import { clusterKeys, keyFiles, loadKeys } from '../../src/api/pki.ts';
import { parseToken } from '../../src/api/token.ts';
import { parseClusterConfig } from '../../src/config/cluster.ts';
import { pathsBelow } from '../../src/paths.ts';
import { coded, makeRoot, TestCluster } from './fixture.ts';

/** All files below a folder. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

describe('cluster init', () => {
  const { paths, remove } = makeRoot();
  after(remove);

  test('makes keys that only root reads, cluster.xml and a join line', async () => {
    const lans = [
      { name: 'front', addr: '10.9.0.1' },
      { name: 'back', addr: 'fd00::1' },
    ];
    const made = await clusterInit({ name: 'shop', node: 'web1', lans, paths });
    assert.match(made.joinLine, /^holdfast cluster join 10\.9\.0\.1:9453 --token hf1\.\S{86}$/);
    const keys = loadKeys(paths);
    assert.equal(keys.node, 'web1');
    const files = filesBelow(paths.pki);
    assert.equal(files.length, 6);
    for (const file of files) assert.equal(statSync(file).mode & 0o777, 0o600, file);
    assert.equal(statSync(paths.pki).mode & 0o777, 0o700);
    const cert = new X509Certificate(keys.cert);
    assert.match(cert.subjectAltName ?? '', /DNS:web1/);
    assert.match(cert.subjectAltName ?? '', /IP Address:10\.9\.0\.1/);
    assert.match(cert.subjectAltName ?? '', /IP Address:FD00:0:0:0:0:0:0:1/);
    const { config } = parseClusterConfig(readFileSync(paths.clusterXml, 'utf8'));
    assert.deepEqual(config?.nodes, [{ id: 0, name: 'web1' }]);
    assert.deepEqual(
      config?.lans.map((lan) => [lan.name, lan.command]),
      [
        ['front', true],
        ['back', false],
      ],
    );
  });

  test('keeps only the hash of the token', async () => {
    const [file = ''] = readdirSync(keyFiles(paths).tokens);
    const other = pathsBelow(join(paths.etc, 'other'));
    const made = await clusterInit({
      node: 'x',
      lans: [{ name: 'l', addr: '10.9.0.9' }],
      paths: other,
    });
    const { secret } = parseToken(made.token);
    const hash = createHash('sha256').update(secret).digest('hex');
    assert.deepEqual(readdirSync(keyFiles(other).tokens), [`${hash}.json`]);
    assert.notEqual(file, `${hash}.json`);
    for (const name of filesBelow(other.etc)) {
      assert.ok(!readFileSync(name).includes(secret.toString('base64url')), name);
      assert.ok(!readFileSync(name).includes(secret.toString('hex')), name);
    }
  });

  test('refuses where a cluster exists, and changes nothing', async () => {
    const before = filesBelow(paths.etc).map((file) => readFileSync(file, 'hex'));
    const again = clusterInit({ node: 'web9', lans: [{ name: 'l', addr: '10.9.0.9' }], paths });
    await assert.rejects(again, coded('HF-CLUSTER-001'));
    assert.deepEqual(
      filesBelow(paths.etc).map((file) => readFileSync(file, 'hex')),
      before,
    );
  });

  for (const node of ['', '-a', 'a b', 'a/b', 'ä', 'x'.repeat(64), 'a\nCN=b']) {
    test(`refuses the node name ${JSON.stringify(node)}`, async () => {
      const root = makeRoot();
      const lans = [{ name: 'l', addr: '10.9.0.9' }];
      await assert.rejects(clusterInit({ node, lans, paths: root.paths }), coded('HF-CLUSTER-008'));
      assert.ok(!existsSync(root.paths.etc));
      root.remove();
    });
  }
});

describe('cluster join', () => {
  let cluster: TestCluster;
  const now = { bootId: 'boot1', bootMs: 1000 };
  before(async () => {
    // The token of init was made under the real clock; tests issue their own.
    cluster = await TestCluster.make(['a'], () => now);
  });
  after(() => cluster.close());
  const target = (): string => `127.0.0.1:${cluster.port}`;

  test('gives key, certificate, secret and cluster.xml, and tells the others', async () => {
    const b = await cluster.join('b');
    const c = await cluster.join('c');
    const [a] = cluster.nodes;
    assert.ok(a !== undefined);
    assert.deepEqual(b.keys.secret, a.keys.secret);
    assert.equal(b.keys.caCert, a.keys.caCert);
    assert.notEqual(b.keys.key, a.keys.key);
    assert.ok(!existsSync(keyFiles(b.paths).caKey), 'the CA key stays where it was made');
    for (const file of filesBelow(b.paths.pki)) assert.equal(statSync(file).mode & 0o777, 0o600);
    for (const node of [a, b]) {
      const { nodes, lans } = node.agent.cluster().config;
      assert.deepEqual(nodes, [
        { id: 0, name: 'a' },
        { id: 1, name: 'b' },
        { id: 2, name: 'c' },
      ]);
      assert.equal(lans[0]?.nodes[2]?.addr, '127.0.0.3');
    }
    assert.equal(readFileSync(c.paths.clusterXml, 'utf8'), a.agent.xml);
    assert.deepEqual(clusterKeys(c.keys.secret), clusterKeys(a.keys.secret));
  });

  test('a token admits once, also when two use it at the same time', async () => {
    const { token } = cluster.node(0).cluster.issueToken();
    const count = cluster.node(0).agent.cluster().config.nodes.length;
    const results = await Promise.allSettled(
      ['d', 'e'].map((node, index) => {
        const lans = [{ name: 'lan', addr: `127.0.0.${10 + index}` }];
        return clusterJoin({ addr: target(), token, node, lans, paths: cluster.root() });
      }),
    );
    assert.deepEqual(results.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected']);
    const loser = results.find((result) => result.status === 'rejected');
    assert.ok(loser?.status === 'rejected' && coded('HF-CLUSTER-004')(loser.reason));
    assert.equal(cluster.node(0).agent.cluster().config.nodes.length, count + 1);
  });
});
