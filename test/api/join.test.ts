import assert from 'node:assert/strict';
import { createHash, webcrypto, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import type { JoinRequest } from '../../src/api/cluster.ts';
import { otherNodes } from '../../src/api/dial.ts';
import { clusterInit, clusterJoin } from '../../src/api/join.ts';
import { JoinLimit } from '../../src/api/limit.ts';
import {
  clusterKeys,
  keyFiles,
  loadKeys,
  makeCa,
  makeRequest,
  signRequest,
} from '../../src/api/pki.ts';
import { parseToken, tokenTtlMs } from '../../src/api/token.ts';
import { parseClusterConfig } from '../../src/config/cluster.ts';
import { pathsBelow } from '../../src/paths.ts';
import { coded, freePort, makeRoot, TestCluster } from './fixture.ts';

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

  /** A request that would be accepted, with a new token. */
  async function goodRequest(node: string): Promise<JoinRequest> {
    const { token } = cluster.node(0).cluster.issueToken();
    const { request } = await makeRequest(node);
    return { token, node, request, lans: [{ name: 'lan', addr: '127.0.0.77' }], addrs: [] };
  }

  /** The request is refused with the code, changes nothing, and leaves its token good. */
  async function refused(request: JoinRequest, code: string): Promise<void> {
    const { agent, cluster: service, tokens } = cluster.node(0);
    const { xml } = agent;
    await assert.rejects(service.join(request), coded(code));
    assert.equal(agent.xml, xml);
    if (code !== 'HF-CLUSTER-003' && code !== 'HF-CLUSTER-004' && code !== 'HF-CLUSTER-005') {
      assert.ok(tokens.use(parseToken(request.token).secret));
    }
  }

  test('refuses a token that is unknown, cut, of another cluster or expired', async () => {
    const good = await goodRequest('n');
    const bytes = Buffer.from(good.token.slice(4), 'base64url');
    bytes.writeUInt8(bytes.readUInt8(0) ^ 1, 0);
    await refused({ ...good, token: `hf1.${bytes.toString('base64url')}` }, 'HF-CLUSTER-004');
    bytes.writeUInt8(bytes.readUInt8(0) ^ 1, 0);
    bytes.writeUInt8(bytes.readUInt8(40) ^ 1, 40);
    await refused({ ...good, token: `hf1.${bytes.toString('base64url')}` }, 'HF-CLUSTER-004');
    await refused({ ...good, token: good.token.slice(0, -3) }, 'HF-CLUSTER-003');
    await refused({ ...good, token: '' }, 'HF-CLUSTER-003');
    now.bootMs += tokenTtlMs;
    await refused(good, 'HF-CLUSTER-005');
    const other = await goodRequest('n');
    now.bootId = 'boot2';
    await refused(other, 'HF-CLUSTER-005');
    const third = await goodRequest('n');
    now.bootMs += tokenTtlMs - 1;
    assert.equal((await cluster.node(0).cluster.join(third)).pending.length, 1);
    await refused(third, 'HF-CLUSTER-004');
  });

  test('refuses names, also when they differ from one there only in case', async () => {
    await refused(await goodRequest('b'), 'HF-CLUSTER-009');
    await refused(await goodRequest('B'), 'HF-CLUSTER-009');
    await refused({ ...(await goodRequest('m')), node: '../m' }, 'HF-CLUSTER-008');
  });

  test('refuses certificate requests that are not what join makes', async () => {
    const good = await goodRequest('m');
    const request = async (make: () => Promise<string>): Promise<JoinRequest> => {
      return { ...(await goodRequest('m')), request: await make() };
    };
    const other = async (
      algorithm: webcrypto.EcKeyGenParams | webcrypto.RsaHashedKeyGenParams,
      name: object[],
    ) => {
      const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
      const signingAlgorithm = { name: algorithm.name, hash: 'SHA-256' };
      const made = await x509.Pkcs10CertificateRequestGenerator.create({
        name: name as x509.JsonName,
        keys: keys as webcrypto.CryptoKeyPair,
        signingAlgorithm,
      });
      return made.toString('pem');
    };
    const p256 = { name: 'ECDSA', namedCurve: 'P-256' };
    const rsa = {
      name: 'RSASSA-PKCS1-v1_5',
      hash: 'SHA-256',
      publicExponent: new Uint8Array([1, 0, 1]),
      modulusLength: 2048,
    };
    for (const make of [
      () => Promise.resolve(''),
      () =>
        Promise.resolve(
          '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----',
        ),
      () => Promise.resolve(good.request.padEnd(5000)),
      () => other(rsa, [{ CN: ['m'] }]),
      () => other({ ...p256, namedCurve: 'P-384' }, [{ CN: ['m'] }]),
      () => other(p256, [{ CN: ['a'] }]),
      () => other(p256, [{ CN: ['m'] }, { CN: ['a'] }]),
      () => other(p256, [{ O: ['m'] }]),
      async () => {
        // The key of one request under the signature of another.
        const der = Buffer.from(new x509.Pkcs10CertificateRequest(good.request).rawData);
        const at = der.length - 8;
        der.writeUInt8(der.readUInt8(at) ^ 1, at);
        return new x509.Pkcs10CertificateRequest(der).toString('pem');
      },
    ]) {
      await refused(await request(make), 'HF-CLUSTER-007');
    }
  });

  test('refuses networks that do not match, and finds an address by its subnet', async () => {
    const near = (...addrs: [string, number][]) =>
      addrs.map(([addr, prefix]) => ({ addr, prefix }));
    const cases: [Partial<JoinRequest>, string][] = [
      [{ lans: [] }, 'HF-CLUSTER-012'],
      [{ lans: [{ name: 'other', addr: '127.0.0.77' }] }, 'HF-CLUSTER-012'],
      [{ lans: [{ name: 'lan', addr: 'host.example' }] }, 'HF-CLUSTER-012'],
      [{ lans: [1, 2].map((n) => ({ name: 'lan', addr: `127.0.0.7${n}` })) }, 'HF-CLUSTER-012'],
      [{ lans: [], addrs: near(['10.0.0.1', 8], ['127.0.0.1', 8]) }, 'HF-CLUSTER-012'],
      [{ lans: [], addrs: near(['127.0.0.70', 24], ['127.0.0.71', 8]) }, 'HF-CLUSTER-012'],
      [{ lans: [], addrs: near(['::1', 64], ['10.0.0.1', 99]) }, 'HF-CLUSTER-012'],
      [{ lans: [{ name: 'lan', addr: '127.0.0.1' }] }, 'HF-CONFIG-034'],
    ];
    for (const [part, code] of cases) {
      await refused({ ...(await goodRequest('m')), ...part }, code);
    }
    const addrs = near(['10.0.0.1', 8], ['127.0.0.70', 24], ['fd00::1', 64]);
    await cluster.node(0).cluster.join({ ...(await goodRequest('m')), lans: [], addrs });
    const { nodes } = cluster.node(0).agent.cluster().config.lans[0] ?? { nodes: [] };
    assert.equal(nodes.at(-1)?.addr, '127.0.0.70');
  });

  test('a node without the CA key admits nobody and says who can', async () => {
    assert.throws(() => cluster.node(1).cluster.issueToken(), coded('HF-CLUSTER-010'));
    const { xml } = cluster.node(0).agent;
    await assert.rejects(cluster.node(1).cluster.apply(xml, 'cluster'), coded('HF-CLUSTER-010'));
    assert.equal(
      cluster
        .node(1)
        .cluster.status()
        .nodes.filter((at) => at.admits).length,
      0,
    );
    assert.equal(
      cluster
        .node(0)
        .cluster.status()
        .nodes.find((at) => at.admits)?.node,
      'a',
    );
  });

  test("a token of --replace gives a dead node's place to a server of its name", async () => {
    const service = cluster.node(0).cluster;
    assert.throws(() => service.issueToken(1000, 'nobody'), coded('HF-API-007'));
    assert.throws(() => service.issueToken(1000, 'a'), coded('HF-CLUSTER-018'));
    const before = cluster.node(0).agent.cluster().config;
    const wrong = { ...(await goodRequest('z')), token: service.issueToken(1000, 'n').token };
    await refused(wrong, 'HF-CLUSTER-018');
    const right = { ...(await goodRequest('n')), token: service.issueToken(1000, 'n').token };
    await service.join({ ...right, lans: [{ name: 'lan', addr: '127.0.0.99' }] });
    const { nodes, lans } = cluster.node(0).agent.cluster().config;
    assert.deepEqual(nodes, before.nodes);
    const id = nodes.find(({ name }) => name === 'n')?.id;
    assert.equal(lans[0]?.nodes.find(({ node }) => node === id)?.addr, '127.0.0.99');
  });

  test('open tokens are bounded; expired ones make room', () => {
    const service = cluster.node(0).cluster;
    const all = (): void => {
      for (let n = 0; n <= 64; n += 1) service.issueToken(1000);
    };
    assert.throws(all, coded('HF-CLUSTER-019'));
    now.bootMs += tokenTtlMs;
    assert.ok(service.issueToken(1000).token);
    assert.equal(readdirSync(keyFiles(cluster.node(0).paths).tokens).length, 1);
  });

  test('a node that was away gets cluster.xml when it shows its signature', async () => {
    const [a, , c] = cluster.nodes;
    assert.ok(a !== undefined && c !== undefined);
    await c.api.close();
    const { pending } = await a.cluster.join({
      ...(await goodRequest('late')),
      lans: [{ name: 'lan', addr: '127.0.0.55' }],
    });
    assert.ok(pending.includes('c'));
    assert.ok(!pending.includes('b'));
    const old = c.agent.cluster().config.signature;
    const back = await cluster.serve(c.paths, c.addr);
    back.agent.xml = c.agent.xml;
    const peer = otherNodes(a.agent.cluster().config, 'a').find(({ name }) => name === 'c');
    assert.ok(peer !== undefined);
    await a.cluster.onSignature(peer, a.agent.cluster().config.signature);
    assert.equal(back.agent.applied.length, 0);
    await a.cluster.onSignature(peer, old);
    assert.equal(back.agent.xml, a.agent.xml);
    // A node without the CA key sends nothing.
    await cluster.node(1).cluster.onSignature(peer, old);
    assert.equal(back.agent.applied.length, 1);
  });

  describe('the joining side', () => {
    test('refuses a server of another cluster before it sends anything', async () => {
      const other = await TestCluster.make(['a']);
      const { token } = cluster.node(0).cluster.issueToken();
      const paths = cluster.root();
      const addr = `127.0.0.1:${other.port}`;
      await assert.rejects(clusterJoin({ addr, token, node: 'q', paths }), coded('HF-CLUSTER-006'));
      assert.ok(!existsSync(paths.etc));
      await other.close();
    });

    test('sends nothing to one that shows the right CA without a certificate of it', async () => {
      // Its certificate names the true CA, whose own certificate is no secret, as its issuer, but
      // another key has signed it: only verification with the CA's key can tell.
      const { keys, cluster: service } = cluster.node(0);
      const imposter = await makeCa('imposter');
      const { key, request } = await makeRequest('a');
      const forged = { cert: keys.caCert, key: imposter.key };
      const cert = await signRequest(forged, request, 'a', ['127.0.0.1']);
      let heard = '';
      let connections = 0;
      const server = createTlsServer({ key, cert: cert + keys.caCert, minVersion: 'TLSv1.3' });
      server.on('connection', () => {
        connections += 1;
      });
      server.on('secureConnection', (socket) => {
        socket.on('error', () => undefined);
        socket.on('data', (chunk) => {
          heard += chunk.toString('latin1');
        });
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as { port: number };
      const { token } = service.issueToken();
      const join = clusterJoin({
        addr: `127.0.0.1:${port}`,
        token,
        node: 'q',
        paths: cluster.root(),
      });
      await assert.rejects(join, coded('HF-CLUSTER-016'));
      assert.equal(connections, 2);
      assert.equal(heard, '');
      server.close();
    });

    test('says so when nobody answers, and does not take a wrong address', async () => {
      const { token } = cluster.node(0).cluster.issueToken();
      const port = await freePort();
      const paths = cluster.root();
      for (const addr of [`127.0.0.1:${port}`, `[::1]:${port}`, 'a:b:c', '', '127.0.0.1:99999']) {
        const join = clusterJoin({ addr, token, node: 'q', paths });
        await assert.rejects(join, coded('HF-CLUSTER-016'));
      }
    });

    test('refuses where this server is in a cluster already', async () => {
      const { token } = cluster.node(0).cluster.issueToken();
      const { paths } = cluster.node(1);
      const join = clusterJoin({ addr: target(), token, node: 'q', paths });
      await assert.rejects(join, coded('HF-CLUSTER-001'));
    });

    test('shows the refusal of the other side as it is', async () => {
      const { token } = cluster.node(0).cluster.issueToken();
      const paths = cluster.root();
      const join = clusterJoin({ addr: target(), token, node: 'b', paths });
      await assert.rejects(join, coded('HF-CLUSTER-009'));
      assert.ok(!existsSync(paths.etc));
    });

    test('is limited in its attempts', async () => {
      const limit = new JoinLimit();
      for (let n = 0; n < 5; n += 1) limit.take('10.0.0.1', 0);
      assert.throws(() => limit.take('10.0.0.1', 1999), coded('HF-CLUSTER-013'));
      limit.take('10.0.0.2', 1999);
      limit.take('10.0.0.1', 3999);
      assert.throws(() => limit.take('10.0.0.1', 3999), coded('HF-CLUSTER-013'));
      for (let n = 0; n < 1000; n += 1) limit.take(`10.1.${n >> 8}.${n & 255}`, 4000);
      assert.equal(limit.refused, 2);
    });
  });
});

describe('keys', () => {
  test('of one node are refused with those of another, and when others can read them', async () => {
    const { paths, remove } = makeRoot();
    const lans = [{ name: 'l', addr: '10.9.0.1' }];
    await clusterInit({ node: 'a', lans, paths });
    const files = keyFiles(paths);
    const good = readFileSync(files.key);
    writeFileSync(files.key, (await makeRequest('a')).key);
    assert.throws(() => loadKeys(paths), coded('HF-CLUSTER-014'));
    writeFileSync(files.key, good);
    assert.equal(loadKeys(paths).node, 'a');
    chmodSync(files.key, 0o640);
    assert.throws(() => loadKeys(paths), coded('HF-CLUSTER-014'));
    chmodSync(files.key, 0o600);
    writeFileSync(files.secret, 'ab\n');
    assert.throws(() => loadKeys(paths), coded('HF-CLUSTER-014'));
    remove();
  });

  test('of the engines differ, and depend on the secret only', () => {
    const keys = clusterKeys(new Uint8Array(32));
    assert.deepEqual(
      [keys.beatKey.length, keys.sipKey.length, keys.clusterId.length],
      [32, 16, 16],
    );
    assert.deepEqual(keys, clusterKeys(new Uint8Array(32)));
    assert.notDeepEqual(keys.beatKey, clusterKeys(new Uint8Array(32).fill(1)).beatKey);
    assert.notDeepEqual(keys.sipKey, keys.beatKey.subarray(0, 16));
  });
});
