import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, it, type TestContext } from 'node:test';
import { EtcdRegister } from '../../src/arbiter/etcd.ts';
import type { Register } from '../../src/arbiter/register.ts';
import { checks, first, next } from './contract.ts';
import { clusterId, EtcdWorld, noEtcd } from './etcd-world.ts';
import { makeAuthority, writeKeyFiles } from './witness-world.ts';

describe('a register in etcd', { skip: noEtcd }, () => {
  for (const { name, run } of checks) {
    it(name, async (t) => await run(await EtcdWorld.make(t)));
  }

  it('goes on to the next member', async (t) => {
    const world = await EtcdWorld.make(t);
    const away = 'http://127.0.0.1:1';
    const register = world.client({ endpoints: [away, world.endpoint] });
    assert.deepEqual(await register.swap('db', null, first), { outcome: 'won' });
    assert.deepEqual(await register.read('db'), { outcome: 'record', record: first });
    const both = await world.client({ endpoints: [away, 'http://127.0.0.1:2'] }).read('db');
    assert.ok(both.outcome === 'unreachable');
    assert.match(both.why, /127\.0\.0\.1:1: .*ECONNREFUSED.*; .*127\.0\.0\.1:2: .*ECONNREFUSED/);
  });

  it('asks the next member what became of a swap, and that answer holds', async (t) => {
    const world = await EtcdWorld.make(t);
    const alone = world.open(0);
    assert.deepEqual(await alone.swap('db', null, first), { outcome: 'won' });
    // A member that carries out what it is asked, and dies before it answers.
    const mute = await pretend(t, (path, body) => {
      const done = fetch(`${world.endpoint}${path}`, { method: 'POST', body });
      return done.then(() => null);
    });
    const to = next(first);
    const answer = await world
      .client({ endpoints: [mute.endpoint, world.endpoint] })
      .swap('db', first, to);
    assert.deepEqual(answer, { outcome: 'won' }, 'it was done when it was asked first');
    const lonely = await world.client({ endpoints: [mute.endpoint] }).swap('db', to, next(to));
    assert.equal(lonely.outcome, 'unknown');
    assert.deepEqual(await alone.read('db'), { outcome: 'record', record: next(to) });
  });

  it('takes no value for a record that it did not write', async (t) => {
    const world = await EtcdWorld.make(t);
    const register = world.open(0);
    const strange = [
      '',
      'x',
      '{}',
      JSON.stringify({ ...first, epoch: '1' }),
      JSON.stringify({ ...first, more: 1 }),
      ` ${JSON.stringify(first)}`,
      JSON.stringify({ epoch: 1, incarnation: 1, primary: 0, inSync: [0], leaseMs: 1500 }),
    ];
    for (const value of strange) {
      await world.put(`/holdfast/${clusterId}/db`, value);
      for (const ask of [() => register.read('db'), () => register.swap('db', null, first)]) {
        const answer = await ask();
        assert.ok(answer.outcome === 'unreachable', `${value}: ${JSON.stringify(answer)}`);
        assert.match(answer.why, /no record of a mirror/);
      }
    }
    await world.put(`/holdfast/${clusterId}/db`, JSON.stringify(first));
    assert.deepEqual(await register.swap('db', first, next(first)), { outcome: 'won' });
  });

  it('shows its certificate and checks that of etcd', async (t) => {
    const ours = await makeAuthority('aaaaaaaaaaaaaaaa');
    const strangers = await makeAuthority('bbbbbbbbbbbbbbbb');
    const made: { caFile: string; certFile: string; keyFile: string }[] = [];
    for (const [index, authority] of [ours, strangers].entries()) {
      const folder = `${(await folderOf(t)).path}/${index}`;
      const files = await writeKeyFiles(folder, authority, 'etcd', 'node');
      made.push({ caFile: files.caCert, certFile: files.cert, keyFile: files.key });
    }
    const [good, bad] = made;
    assert.ok(good !== undefined && bad !== undefined);
    const world = await EtcdWorld.make(t, () => good);
    assert.deepEqual(await world.open(0).swap('db', null, first), { outcome: 'won' });
    const wrongs = [
      { caFile: bad.caFile },
      { certFile: bad.certFile, keyFile: bad.keyFile },
      { certFile: null, keyFile: null },
      { caFile: '/nonexistent/ca.pem' },
    ];
    for (const wrong of wrongs) {
      const answer = await world.client(wrong).read('db');
      assert.equal(answer.outcome, 'unreachable', JSON.stringify(wrong));
    }
  });
});

async function folderOf(t: TestContext): Promise<{ readonly path: string }> {
  const { mkdtemp, rm } = await import('node:fs/promises');
  const path = await mkdtemp('/tmp/holdfast-etcd-keys-');
  t.after(() => rm(path, { recursive: true }));
  return { path };
}

/** Null: the connection ends without an answer. */
type Said = { readonly status: number; readonly body: string } | null;

/** A server that answers as a test wants, where an etcd would. */
async function pretend(
  t: TestContext,
  answer: (path: string, body: string) => Said | Promise<Said>,
): Promise<{ readonly register: Register; readonly server: Server; readonly endpoint: string }> {
  const server = createServer((incoming, outgoing) => {
    void text(incoming).then(async (body) => {
      const said = await answer(incoming.url ?? '', body);
      if (said === null) incoming.socket.destroy();
      else outgoing.writeHead(said.status).end(said.body);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const files = { caFile: null, certFile: null, keyFile: null };
  const register = new EtcdRegister({
    config: { type: 'etcd', endpoints: [endpoint], prefix: '/', ...files },
    clusterId,
    timeLimitMs: 5000,
  });
  t.after(async () => {
    await register.close();
    server.closeAllConnections();
    server.close();
  });
  return { register, server, endpoint };
}

describe('what etcd may answer', () => {
  const header = '"header":{"cluster_id":"1","revision":"2"}';
  const cases: readonly (readonly [string, number, string, string])[] = [
    ['a server error after which the change may come', 503, '{"message":"timed out"}', 'unknown'],
    ['no leader', 500, '', 'unknown'],
    ['not allowed', 403, '{"message":"permission denied"}', 'unreachable'],
    ['not that API', 404, 'Not Found', 'unreachable'],
    ['no JSON', 200, '<html>', 'unknown'],
    ['another form', 200, '{"succeeded":"yes"}', 'unknown'],
    ['of a proxy, say', 200, '{}', 'unknown'],
    ['far too much', 200, `"${'x'.repeat(100_000)}"`, 'unknown'],
    ['a transaction that failed on an empty key', 200, `{${header},"responses":[{}]}`, 'lost'],
  ];
  for (const [name, status, body, outcome] of cases) {
    it(`${name}: ${outcome}`, async (t) => {
      const { register } = await pretend(t, () => ({ status, body }));
      const answer = await register.swap('db', first, next(first));
      assert.equal(answer.outcome, outcome, JSON.stringify(answer));
      if (outcome !== 'lost') assert.equal((await register.read('db')).outcome, 'unreachable');
    });
  }

  it('a connection that ends without an answer: unknown, as the question has left', async (t) => {
    const { register } = await pretend(t, () => null);
    assert.equal((await register.swap('db', first, next(first))).outcome, 'unknown');
  });

  it('nobody listens: unreachable, as nothing has left', async (t) => {
    const { register, server } = await pretend(t, () => ({ status: 200, body: '{}' }));
    server.close();
    await once(server, 'close');
    assert.equal((await register.swap('db', first, next(first))).outcome, 'unreachable');
  });
});
