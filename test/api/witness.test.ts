/** Making a machine a witness, over real TLS; what it gets works with the real witness. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join as joined } from 'node:path';
import { connect } from 'node:tls';
import { after, before, describe, test } from 'node:test';
import { keyFiles, clusterKeys, makeRequest } from '../../src/api/pki.ts';
import { witnessJoin } from '../../src/api/witness.ts';
import { witnessSubject } from '../../src/arbiter/witness.ts';
import { WitnessRegister } from '../../src/arbiter/witness.ts';
import { first } from '../arbiter/contract.ts';
import { startWitness } from '../arbiter/witness-world.ts';
import { coded, TestCluster } from './fixture.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await TestCluster.make(['a']);
});
after(() => cluster.close());
const addr = (): string => `127.0.0.1:${cluster.port}`;
const newToken = (): string => cluster.node(0).cluster.issueToken().token;

describe('witness join', () => {
  test('gives a running witness what the nodes need to use it', async () => {
    const { paths, keys } = cluster.node(0);
    const state = cluster.root().witness;
    const { xml } = cluster.node(0).agent;
    const clusterId = await witnessJoin({ addr: addr(), token: newToken(), name: 'w1', state });
    assert.equal(clusterId, clusterKeys(keys.secret).clusterId);
    assert.equal(cluster.node(0).agent.xml, xml, 'an operator says that mirrors go by it');
    const folder = joined(state, clusterId);
    const files = readdirSync(folder).map((name) => joined(folder, name));
    for (const file of files) {
      assert.equal(statSync(file).mode & 0o777, 0o600, file);
      const text = readFileSync(file, 'latin1');
      assert.ok(!text.includes(Buffer.from(keys.secret).toString('hex')), 'it has no secret');
    }
    assert.equal(files.length, 3);
    const { child, port } = await startWitness(state);
    const { caCert, cert, key } = keyFiles(paths);
    const options = { addr: '127.0.0.1', port, clusterId, timeLimitMs: 20_000 };
    const register = new WitnessRegister({
      name: 'w1',
      keyFiles: { caCert, cert, key },
      ...options,
    });
    assert.deepEqual(await register.swap('db', null, first), { outcome: 'won' });
    const misnamed = new WitnessRegister({
      name: 'w2',
      keyFiles: { caCert, cert, key },
      ...options,
    });
    const answer = await misnamed.read('db');
    assert.ok(answer.outcome === 'unreachable');
    assert.match(answer.why, /witness:w1 answered there/);
    await Promise.all([register.close(), misnamed.close()]);
    child.kill('SIGTERM');
    assert.deepEqual(await once(child, 'exit'), [0, null]);
  });

  test('is refused without a good token, under the name of a node, or by another CA', async () => {
    const state = cluster.root().witness;
    const token = newToken();
    const join = (over: object) => witnessJoin({ addr: addr(), token, name: 'w1', state, ...over });
    await assert.rejects(join({ token: `${token.slice(0, -2)}AA` }), coded('HF-CLUSTER-006'));
    await assert.rejects(join({ token: 'hf1.short' }), coded('HF-CLUSTER-003'));
    await assert.rejects(join({ name: 'A' }), coded('HF-CLUSTER-009'));
    await assert.rejects(join({ name: 'w:1' }), coded('HF-CLUSTER-008'));
    assert.ok(!existsSync(state), 'nothing was written');
    await join({});
    await assert.rejects(join({}), coded('HF-CLUSTER-004'), 'a token admits once');
  });

  test('makes a certificate that opens nothing on a node', async () => {
    const { cluster: service, keys } = cluster.node(0);
    const { key, request } = await makeRequest('w3', 'witness');
    const { cert } = await service.admitWitness({
      token: newToken(),
      name: 'w3',
      request,
      addrs: [],
    });
    const forNode = { token: newToken(), name: 'w4', addrs: [] };
    const node = await makeRequest('w4');
    const asked = service.admitWitness({ ...forNode, request: node.request });
    await assert.rejects(asked, coded('HF-CLUSTER-007'), 'the request of a node is none');
    const socket = connect({
      host: '127.0.0.1',
      port: cluster.port,
      ca: keys.caCert,
      cert,
      key,
      checkServerIdentity: () => undefined,
    });
    await once(socket, 'secureConnect');
    socket.write('GET /api/v1/status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    let text = '';
    for await (const bytes of socket) text += String(bytes);
    assert.match(text, /^HTTP\/1.1 401 /);
    assert.ok(witnessSubject('w3').includes(':'), 'no node can have this name');
  });
});
