import assert from 'node:assert/strict';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { request as requestTls } from 'node:https';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { TlsOptions } from 'node:tls';
import { connectAgent } from '../../src/api/client.ts';
import { ClusterService } from '../../src/api/cluster.ts';
import { dialNode, identityOf, otherNodes, tlsIdentity } from '../../src/api/dial.ts';
import { keyFiles, makeCa, makeRequest, signRequest } from '../../src/api/pki.ts';
import { routes } from '../../src/api/routes.ts';
import { startApi } from '../../src/api/server.ts';
import { TokenStore } from '../../src/api/token.ts';
import { HoldfastError } from '../../src/errors.ts';
import { coded, FakeAgent, makeRoot, moduleStatus, TestCluster } from './fixture.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await TestCluster.make(['a', 'b']);
});
after(() => cluster.close());
beforeEach(() => {
  for (const { agent } of cluster.nodes) {
    agent.calls.length = 0;
    agent.failure = null;
  }
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** One HTTP exchange with node a, by its socket or (with TLS options) by HTTPS. */
async function ask(
  method: string,
  path: string,
  options: {
    body?: string | Uint8Array;
    headers?: Record<string, string>;
    tls?: TlsOptions & { rejectUnauthorized?: boolean };
  } = {},
): Promise<Answer> {
  const { paths, addr } = cluster.node(0);
  const common = { method, path, headers: options.headers ?? {}, agent: false } as const;
  const outgoing =
    options.tls === undefined
      ? request({ ...common, socketPath: paths.agentSocket })
      : requestTls({
          ...common,
          host: addr,
          port: cluster.port,
          checkServerIdentity: identityOf('a'),
          ...options.tls,
        });
  outgoing.end(options.body);
  const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  return { status: answer.statusCode ?? 0, headers: answer.headers, body };
}

function codeOf({ body }: Answer): string {
  return (JSON.parse(body) as { error: { code: string } }).error.code;
}

const asJson = { 'content-type': 'application/json' };

describe('client and routes', () => {
  test('the socket is for root only', () => {
    assert.equal(statSync(cluster.node(0).paths.agentSocket).mode & 0o777, 0o600);
  });

  test('each method of the client reaches its method of the agent', async () => {
    const { local, agent } = cluster.node(0);
    agent.emit('one');
    agent.emit('two', 'web');
    assert.deepEqual(await local.status(), agent.status());
    assert.deepEqual(await local.modules(), agent.modules);
    assert.deepEqual(await local.module('web'), agent.modules[0]);
    await assert.rejects(local.module('none'), coded('HF-MODULE-002'));
    for (const verb of ['start', 'stop', 'restart', 'stopstart', 'forcestop'] as const) {
      assert.equal((await local.command('w.1', verb)).name, 'w.1');
      assert.deepEqual(agent.calls.pop(), ['command', 'w.1', verb]);
    }
    const archive = Buffer.alloc(3_000_000, 7);
    await local.installModule('web', archive, true);
    assert.deepEqual(agent.calls.pop(), ['installModule', 'web', archive, true]);
    await local.installModule('web', Buffer.from('x'), false);
    assert.deepEqual(agent.calls.pop(), ['installModule', 'web', Buffer.from('x'), false]);
    assert.equal(Buffer.from(await local.packageModule('web')).toString(), 'archive of web');
    assert.equal(await local.uninstallModule('web'), undefined);
    assert.deepEqual(agent.calls.pop(), ['uninstallModule', 'web']);
    const [problem] = await local.checkConfig('web', '<safe/>');
    assert.deepEqual([problem?.file, problem?.line], ['u.xml', 4]);
    assert.deepEqual(agent.calls.pop(), ['checkConfig', 'web', '<safe/>']);
    await local.applyConfig('web', null);
    assert.deepEqual(agent.calls.pop(), ['applyConfig', 'web', null]);
    await local.drain('web', 'b', true);
    assert.deepEqual(agent.calls.pop(), ['drain', 'web', 'b', true]);
    await local.prim('web', true);
    assert.deepEqual(agent.calls.pop(), ['prim', 'web', true, false]);
    await local.second('web');
    assert.deepEqual(agent.calls.pop(), ['second', 'web', 'plain']);
    await local.swap('web', false);
    assert.deepEqual(agent.calls.pop(), ['swap', 'web', false]);
    await local.failover('web', false);
    assert.deepEqual(agent.calls.pop(), ['failover', 'web', false]);
    assert.deepEqual((await local.verify('web')).figures, { files: 3 });
    assert.deepEqual(agent.calls.pop(), ['verify', 'web']);
    await local.power('web', 'b', null, 64);
    assert.deepEqual(agent.calls.pop(), ['power', 'web', 'b', null, 64]);
    assert.deepEqual(
      (await local.events({ after: 1 })).map(({ text }) => text),
      ['two'],
    );
    assert.deepEqual(
      (await local.events({ limit: 1 })).map(({ text }) => text),
      ['two'],
    );
    assert.deepEqual(
      (await local.events({ module: 'web' })).map(({ text }) => text),
      ['two'],
    );
    assert.deepEqual(await local.log(null, 5), ['agent 5']);
    assert.deepEqual(await local.log('web', 7), ['web 7']);
    assert.deepEqual(await local.why('web'), ['because of web']);
    assert.deepEqual(await local.timing(), [
      { of: 'cluster', name: 'lease', ms: 150, meaning: 'silence' },
    ]);
    assert.deepEqual(agent.calls.at(-1), ['timing', { module: null, profile: null }]);
    await local.timing({ module: 'db', profile: 'wan' });
    assert.deepEqual(agent.calls.at(-1), ['timing', { module: 'db', profile: 'wan' }]);
    assert.equal(await local.metrics(), 'holdfast_up{node="a"} 1\n');
    assert.equal((await local.clusterStatus()).nodes.length, 2);
    assert.equal(await local.clusterXml(), agent.xml);
    const issued = await local.issueToken({ ttlMs: 5000 });
    assert.ok(issued.joinLine.endsWith(`127.0.0.1:${cluster.port} --token ${issued.token}`));
    assert.equal(issued.expiresInMs, 5000);
    await local.shutdown();
    assert.deepEqual(agent.calls.pop(), ['shutdown']);
  });

  test('errors of the agent arrive with code, text, hint, place and exit status', async () => {
    const { local, agent } = cluster.node(0);
    const place = { file: 'u.xml', line: 14 };
    const thrown = new HoldfastError('HF-CLUSTER-009', { name: 'n' }, place);
    agent.failure = thrown;
    await assert.rejects(local.command('web', 'start'), (error: HoldfastError) => {
      assert.deepEqual(error.toRecord(), thrown.toRecord());
      assert.equal(error.exit, thrown.exit);
      assert.equal(error.line(), thrown.line());
      return true;
    });
    agent.failure = new TypeError('a bug');
    await assert.rejects(local.command('web', 'start'), (error: HoldfastError) => {
      assert.equal(error.code, 'HF-API-005');
      assert.match(error.message, /a bug/);
      return true;
    });
  });

  test('an agent that is not there is said so', async () => {
    const { paths, remove } = makeRoot();
    const client = connectAgent({ socketPath: paths.agentSocket });
    await assert.rejects(client.status(), coded('HF-API-010'));
    await assert.rejects(client.followEvents().next(), coded('HF-API-010'));
    remove();
  });
});

describe('requests that are not valid', () => {
  for (const [method, path, body, where] of [
    ['POST', '/modules/web/prim', '{"alone":1}', 'body.alone'],
    ['POST', '/modules/web/swap', '{"sync":"no"}', 'body.sync'],
    ['POST', '/modules/web/failover', '{}', 'body.on'],
    ['GET', '/timing?profile=slow', '', 'query.profile'],
    ['POST', '/modules/web/second', '{"alone":true}', 'body'],
    ['POST', '/modules/web/drain', '{"node":"b"}', 'body.on'],
    ['POST', '/modules/web/drain', '{"node":"b","on":1}', 'body.on'],
    ['POST', '/modules/web/drain', '{"node":"b","on":true,"x":1}', 'body'],
    ['POST', '/modules/web/drain', '[]', 'body'],
    ['POST', '/modules/web/power', '{"node":"b","group":null,"power":-1}', 'body.power'],
    ['POST', '/modules/web/power', '{"node":"b","group":null,"power":1.5}', 'body.power'],
    ['POST', '/modules/web/power', '{"node":"","group":null,"power":1}', 'body.node'],
    ['PUT', '/modules/web/config', '{"xml":7}', 'body.xml'],
    ['POST', '/modules/web/start', '{"now":true}', 'body'],
    ['PUT', '/cluster/config', '{"xml":"<a/>","scope":"all"}', 'body.scope'],
    ['POST', '/cluster/tokens', '{"ttlMs":1}', 'body.ttlMs'],
    ['POST', '/cluster/join', '{"token":"x"}', 'body.node'],
    ['GET', '/events?after=-1', undefined, 'query.after'],
    ['GET', '/events?limit=1001', undefined, 'query.limit'],
    ['GET', '/events?other=1', undefined, 'query'],
    ['GET', '/log?lines=x', undefined, 'query.lines'],
    ['GET', '/events/stream?after=x', undefined, 'query.after'],
    ['PUT', '/modules/web/package?replace=yes', undefined, 'query.replace'],
  ] as const) {
    test(`${method} ${path} ${body ?? ''} is refused at ${where}`, async () => {
      const options = body === undefined ? {} : { body, headers: asJson };
      const answer = await ask(method, `/api/v1${path}`, options);
      assert.equal(answer.status, 400);
      assert.equal(codeOf(answer), 'HF-API-001');
      const { message } = (JSON.parse(answer.body) as { error: { message: string } }).error;
      assert.ok(message.includes(` ${where}: `), message);
      assert.deepEqual(cluster.node(0).agent.calls, []);
    });
  }

  test('bad JSON, an unknown media type, an unknown path, a wrong method', async () => {
    const path = '/api/v1/modules/web/drain';
    for (const [method, at, options, status, code] of [
      ['POST', path, { body: '{"node":', headers: asJson }, 400, 'HF-API-012'],
      ['POST', path, { body: '<a/>', headers: { 'content-type': 'text/xml' } }, 400, 'HF-API-012'],
      ['GET', '/api/v1/nothing', {}, 404, 'HF-API-003'],
      ['GET', '/../../etc/passwd', {}, 404, 'HF-API-003'],
      ['DELETE', '/api/v1/status', {}, 404, 'HF-API-003'],
    ] as const) {
      const answer = await ask(method, at, options);
      assert.equal(codeOf(answer), code, at);
      assert.equal(answer.status, status, at);
    }
    assert.deepEqual(cluster.node(0).agent.calls, []);
  });

  test('bodies over the limits', async () => {
    const octets = { 'content-type': 'application/octet-stream' };
    for (const [path, length, type] of [
      ['/modules/web/package', 16 * 1024 * 1024 + 1, octets],
      ['/modules/web/config', 1024 * 1024 + 1, asJson],
      ['/cluster/join', 16 * 1024 + 1, asJson],
    ] as const) {
      const method = path === '/cluster/join' ? 'POST' : 'PUT';
      // Only announced: the answer comes before the body.
      const headers = { ...type, 'content-length': String(length), connection: 'close' };
      const { paths } = cluster.node(0);
      const outgoing = request({
        method,
        path: `/api/v1${path}`,
        headers,
        socketPath: paths.agentSocket,
        agent: false,
      });
      outgoing.on('error', () => undefined);
      outgoing.flushHeaders();
      const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
      assert.equal(answer.statusCode, 413, path);
      outgoing.destroy();
    }
    const { local, agent } = cluster.node(0);
    await local.installModule('web', Buffer.alloc(16 * 1024 * 1024), false);
    assert.equal(agent.calls.length, 1);
  });
});

describe('rights', () => {
  const tables = (): { method: string; path: string; open: boolean }[] => {
    const { agent, cluster: service } = cluster.node(0);
    return [
      ...routes({ agent, cluster: service, limitJoin: () => undefined }).map((route) => ({
        method: route.method,
        path: `/api/v1${route.path.replace(':module', 'web')}`,
        open: route.open === true,
      })),
      { method: 'GET', path: '/metrics', open: false },
      { method: 'GET', path: '/api/v1/events/stream', open: false },
      { method: 'GET', path: '/api/v1/nodes/b/status', open: false },
      { method: 'GET', path: '/api/v1/nodes/a/status', open: false },
      { method: 'GET', path: '/var/modules/web/ready.txt', open: true },
    ];
  };

  test('without a certificate only health, join and ready.txt answer', async () => {
    const { caCert } = cluster.node(0).keys;
    const open: string[] = [];
    for (const { method, path, open: isOpen } of tables()) {
      const answer = await ask(method, path, { tls: { ca: caCert } });
      if (isOpen) open.push(path);
      else {
        assert.equal(answer.status, 401, path);
        assert.equal(codeOf(answer), 'HF-API-002', path);
      }
      if (isOpen) assert.notEqual(answer.status, 401, path);
    }
    assert.deepEqual(open, [
      '/api/v1/health',
      '/api/v1/cluster/join',
      '/api/v1/cluster/witness',
      '/var/modules/web/ready.txt',
    ]);
    assert.deepEqual(cluster.node(0).agent.calls, []);
  });

  test('a stranger does not get a large body read', async () => {
    const { caCert } = cluster.node(0).keys;
    const outgoing = requestTls({
      method: 'PUT',
      path: '/api/v1/modules/web/package',
      host: '127.0.0.1',
      port: cluster.port,
      ca: caCert,
      checkServerIdentity: identityOf('a'),
      headers: { 'content-type': 'application/octet-stream', 'content-length': '1000000' },
      agent: false,
    });
    outgoing.on('error', () => undefined);
    outgoing.flushHeaders();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    assert.equal(answer.statusCode, 401);
    outgoing.destroy();
  });

  test('a certificate of a node in cluster.xml has full rights, any other has none', async () => {
    const a = cluster.node(0);
    const b = cluster.node(1);
    const good = await ask('GET', '/api/v1/status', { tls: tlsIdentity(b.keys) });
    assert.equal(good.status, 200);
    // The same name of another CA.
    const ca = await makeCa('other');
    const { key, request: csr } = await makeRequest('b');
    const forged = await signRequest(ca, csr, 'b', []);
    const foreign = { ca: a.keys.caCert, cert: forged, key };
    assert.equal((await ask('GET', '/api/v1/status', { tls: foreign })).status, 401);
    // One of our CA whose node is not, or no longer, in cluster.xml.
    const full = a.agent.xml;
    a.agent.xml = full.replace(/ *<node name="b".*\n/, '');
    assert.ok(!a.agent.xml.includes('"b"'));
    const gone = await ask('GET', '/api/v1/status', { tls: tlsIdentity(b.keys) });
    a.agent.xml = full;
    assert.equal(gone.status, 401);
  });

  test('TLS before 1.3 is refused', async () => {
    const { keys } = cluster.node(0);
    const tls = { ca: keys.caCert, maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2' } as const;
    await assert.rejects(ask('GET', '/api/v1/health', { tls }), /protocol version|EPROTO|alert/i);
  });

  test('answers carry the security headers', async () => {
    for (const path of ['/api/v1/health', '/api/v1/nothing']) {
      const { headers } = await ask('GET', path);
      assert.equal(headers['x-content-type-options'], 'nosniff');
      assert.equal(headers['cache-control'], 'no-store');
      assert.match(String(headers['content-security-policy']), /default-src 'none'/);
    }
  });

  test('joining is limited by address', async () => {
    const { caCert } = cluster.node(0).keys;
    const body = JSON.stringify({ token: 'x', node: 'n', request: 'x', lans: [], addrs: [] });
    const codes: string[] = [];
    for (let n = 0; n < 12; n += 1) {
      const tls = { ca: caCert };
      codes.push(codeOf(await ask('POST', '/api/v1/cluster/join', { body, headers: asJson, tls })));
    }
    assert.ok(codes.includes('HF-CLUSTER-003'));
    assert.equal(codes.at(-1), 'HF-CLUSTER-013');
    assert.ok((cluster.node(0).api.stats()['joins_limited'] ?? 0) > 0);
  });
});

describe('ready.txt', () => {
  test('is 200 only while the module is Ready', async () => {
    const { agent } = cluster.node(0);
    for (const [readiness, status] of [
      ['Ready', 200],
      ['Transient', 404],
      ['NotReady', 404],
    ] as const) {
      agent.modules = [moduleStatus('web', { readiness })];
      assert.equal((await ask('GET', '/var/modules/web/ready.txt')).status, status, readiness);
    }
    for (const [state, status] of [
      ['PRIM', 200],
      ['ALONE', 200],
      ['SECOND', 404],
    ] as const) {
      agent.modules = [moduleStatus('web', { mode: 'mirror', state })];
      assert.equal((await ask('GET', '/var/modules/web/ready.txt')).status, status, state);
    }
    agent.modules = [moduleStatus('web')];
    assert.equal((await ask('GET', '/var/modules/other/ready.txt')).status, 404);
  });
});

describe('another node', () => {
  test('answers by way of this one, with all kinds of bodies', async () => {
    const { local } = cluster.node(0);
    const { agent } = cluster.node(1);
    const b = local.onNode('b');
    assert.equal((await b.status()).node, 'b');
    assert.equal((await local.onNode('a').status()).node, 'a');
    assert.equal(await b.metrics(), 'holdfast_up{node="b"} 1\n');
    await b.power('web', 'a', 'g', 3);
    assert.deepEqual(agent.calls.pop(), ['power', 'web', 'a', 'g', 3]);
    const archive = Buffer.alloc(5_000_000, 3);
    await b.installModule('web', archive, false);
    assert.deepEqual(agent.calls.pop(), ['installModule', 'web', archive, false]);
    assert.equal(Buffer.from(await b.packageModule('w')).toString(), 'archive of w');
    await b.uninstallModule('web');
    agent.failure = new HoldfastError('HF-CLUSTER-009', { name: 'n' });
    await assert.rejects(b.command('web', 'start'), coded('HF-CLUSTER-009'));
    await assert.rejects(b.issueToken(), coded('HF-CLUSTER-010'));
    assert.ok((await cluster.node(1).local.onNode('a').issueToken()).token);
    assert.deepEqual(cluster.node(0).agent.calls, []);
  });

  test('its events follow, and end when the caller goes', async () => {
    const { local } = cluster.node(0);
    const { agent } = cluster.node(1);
    const { listeners } = agent;
    const stop = new AbortController();
    const events = local.onNode('b').followEvents({ after: 0, signal: stop.signal });
    agent.emit('early');
    assert.equal((await events.next()).value?.text, 'early');
    agent.emit('late');
    assert.equal((await events.next()).value?.text, 'late');
    stop.abort();
    assert.equal((await events.next()).done, true);
    while (agent.listeners > listeners) await new Promise((resolve) => setImmediate(resolve));
  });

  test('is refused when unknown, when forwarded already, and when nested', async () => {
    const { local } = cluster.node(0);
    await assert.rejects(local.onNode('nobody').status(), coded('HF-API-007'));
    await assert.rejects(local.onNode('../b').status(), coded('HF-API-007'));
    const forwarded = await ask('GET', '/api/v1/nodes/b/status', {
      headers: { 'holdfast-forwarded': 'b' },
    });
    assert.deepEqual([forwarded.status, codeOf(forwarded)], [508, 'HF-API-006']);
    for (const path of ['/api/v1/nodes/b/nodes/a/status', '/api/v1/nodes/b/%6eodes/a/status']) {
      const nested = await ask('GET', path);
      assert.deepEqual([nested.status, codeOf(nested)], [508, 'HF-API-006'], path);
    }
  });

  test('that does not answer is said so', async () => {
    const { local, agent } = cluster.node(0);
    const full = agent.xml;
    agent.xml = full.replace('127.0.0.2', '127.0.0.200');
    await assert.rejects(local.onNode('b').status(), coded('HF-PEER-001'));
    // The server at the address is another node.
    agent.xml = full.replace('"127.0.0.1"', '"127.0.0.201"').replace('"127.0.0.2"', '"127.0.0.1"');
    await assert.rejects(local.onNode('b').status(), coded('HF-PEER-001'));
    agent.xml = full;
  });

  test('is tried on each of its addresses', async () => {
    const { keys, agent } = cluster.node(0);
    const [b] = otherNodes(agent.cluster().config, 'a');
    assert.ok(b !== undefined);
    const node = { ...b, addrs: ['127.0.0.200', ...b.addrs] };
    const socket = await dialNode(node, cluster.port, keys);
    assert.equal(socket.remoteAddress, '127.0.0.2');
    socket.destroy();
  });
});

describe('starting', () => {
  test('says which port is taken, and leaves no socket open', async () => {
    const { paths, remove } = makeRoot();
    const { keys, addr, agent } = cluster.node(0);
    const tokens = new TokenStore(keyFiles(paths).tokens, 'a');
    const service = new ClusterService({ agent, keys, ca: null, tokens });
    const start = startApi(new FakeAgent('a', agent.xml), {
      keys,
      cluster: service,
      socketPath: paths.agentSocket,
      port: cluster.port,
      listenAddr: addr,
    });
    await assert.rejects(start, coded('HF-API-013'));
    const client = connectAgent({ socketPath: paths.agentSocket });
    await assert.rejects(client.status(), coded('HF-API-010'));
    remove();
  });

  test('replaces the socket that a killed agent left behind', async () => {
    const b = cluster.node(1);
    await b.api.close();
    const again = await cluster.serve(b.paths, b.addr);
    assert.equal((await again.local.status()).node, 'b');
  });
});
