import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodeValue, encodeValue, type ReplicaAnswer } from '../../src/native/replica.ts';
import {
  alive,
  cannotRun,
  Engine,
  endWorld,
  makeWorld,
  settled,
  treeOf,
  until,
  type World,
} from './replica-engine.ts';

const live = { skip: cannotRun, timeout: 60_000 };

/** A test with a world of its own that ends with it. */
function inWorld(name: string, body: (world: World) => Promise<void>): void {
  test(name, live, async () => {
    const world = await makeWorld();
    try {
      await body(world);
    } finally {
      await endWorld(world);
    }
  });
}

async function makePair(world: World, values: Record<string, string | number> = {}) {
  const [a, b] = [await Engine.start(world, 'a'), await Engine.start(world, 'b')];
  await b.open({ role: 'second', ...values });
  await a.open({ role: 'prim', ...values });
  return { a, b };
}

async function assertEqual(prim: Engine, second: Engine): Promise<void> {
  await settled(prim, second);
  assert.deepEqual(await treeOf(second.seen), await treeOf(prim.seen));
}

const refusedAs = (code: string) => (error: Error) => error.message.includes(`(${code})`);

test('values survive the encoding of the control socket', () => {
  const text = `a b%c=d\n\t\u007f\u00e9\u{1f600}`;
  assert.match(encodeValue(text), /^[^ \n\t=]*$/);
  assert.equal(decodeValue(encodeValue(text)), text);
});

inWorld('a directory that is mounted is served, and plain again after close', async (world) => {
  const a = await Engine.start(world, 'a');
  await writeFile(join(a.dir, 'before'), 'there');
  await assert.rejects(a.open({ role: 'mount', tocheck: `${a.dir}/no` }), refusedAs('ENOENT'));
  await a.open({ role: 'mount', tocheck: `${a.dir}/before` });
  const { role, phase } = await a.status();
  assert.deepEqual([role, phase], ['mount', 'open']);
  assert.match(await a.run(`grep ' ${a.dir} ' /proc/mounts`), /fuse\.holdfast/);
  assert.equal(await a.run(`cat ${a.dir}/before`), 'there');
  await a.run(`echo hi > ${a.dir}/new; mv ${a.dir}/new ${a.dir}/moved; sync ${a.dir}/moved`);
  assert.ok(Number((await a.status()).all['changes']) > 0);
  await a.request('close');
  assert.equal((await a.status()).role, 'none');
  assert.equal(await a.run(`grep -c ' ${a.dir} ' /proc/mounts || true`), '0\n');
  assert.equal(await readFile(join(a.dir, 'moved'), 'utf8'), 'hi\n');
});

inWorld('the worker is killed while a process writes: it sees no error', async (world) => {
  const a = await Engine.start(world, 'a');
  await a.open({ role: 'mount' });
  const writer = await a.writer('file');
  for (let i = 0; i < 5; i++) {
    const before = (await a.status()).all['requests'];
    await until('it writes', async () => (await a.status()).all['requests'] !== before);
    await a.killWorker();
  }
  const { rounds, error } = await writer.stop();
  assert.equal(error, null);
  assert.ok(rounds > 0);
  assert.equal((await a.status()).restarts, 5);
  await until('it is said', async () => a.events.some(({ name }) => name === 'resumed'));
});

inWorld(
  'the holder is killed, then the worker: files stay open, also one without a name',
  async (world) => {
    const a = await Engine.start(world, 'a');
    await a.open({ role: 'mount' });
    const file = await open(join(a.seen, 'named'), 'w+');
    const nameless = await open(join(a.seen, 'nameless'), 'w+');
    await nameless.write('kept');
    await a.run(`rm ${a.dir}/nameless`);
    const { worker } = await a.status();
    await a.killHolder();
    assert.equal((await a.status()).worker, worker);
    await a.killWorker();
    await a.killHolder();
    await a.killWorker();
    await file.write('still');
    await file.sync();
    const { buffer } = await nameless.read(Buffer.alloc(4), 0, 4, 0);
    assert.equal(buffer.toString(), 'kept');
    await nameless.truncate(1);
    assert.equal((await nameless.stat()).size, 1);
    await nameless.close();
    await file.close();
    assert.equal(await a.run(`cat ${a.dir}/named`), 'still');
  },
);

inWorld('both are killed at once: the next engine finds the way free', async (world) => {
  const a = await Engine.start(world, 'a');
  await a.open({ role: 'mount' });
  await a.run(`echo hi > ${a.dir}/f`);
  await a.killBoth();
  await a.launch();
  await a.open({ role: 'mount' });
  assert.equal(await a.run(`cat ${a.dir}/f`), 'hi\n');
  assert.equal(await a.run(`grep -c ' ${a.dir} ' /proc/mounts`), '1\n');
});

inWorld('a kernel that cannot send again: mounted anew, and said', async (world) => {
  const a = await Engine.start(world, 'a');
  await a.open({ role: 'mount' });
  await a.run(`echo hi > ${a.dir}/f`);
  const file = await open(join(a.seen, 'f'), 'r+');
  // What was agreed on with the kernel, in the shared memory (shared.h): as if it had less.
  const { worker } = await a.status();
  const shared = await open(`/proc/${worker}/fd/4`, 'r+');
  await shared.write(Buffer.alloc(8), 0, 8, 24);
  await shared.close();
  await a.killWorker();
  await until('it is said', async () =>
    a.events.some(({ values }) => values['reason']?.includes('NOTIFY_RESEND') === true),
  );
  await assert.rejects(file.write('x'));
  await file.close().catch(() => undefined); // it may say that its file system is gone
  assert.equal(await a.run(`cat ${a.dir}/f`), 'hi\n');
  assert.equal(await a.run(`grep -c ' ${a.dir} ' /proc/mounts`), '1\n');
});

inWorld('what is synced is on both servers, and the secondary is read-only', async (world) => {
  const { a, b } = await makePair(world);
  await a.run(`cd ${a.dir}; mkdir d; echo one > d/f; ln d/f l; ln -s nowhere s; chmod 640 d/f;
    truncate -s 1M hole; mkfifo p; touch -d @1234567890 d; mv hole d/; sync d/f d/hole d`);
  await assertEqual(a, b);
  await assert.rejects(b.run(`touch ${b.dir}/x`), /Read-only file system/);
  await b.request('close');
  await b.run(`touch ${b.dir}/x; rm ${b.dir}/x`);
});

inWorld('the workers of both sides are killed in turn under a writer', async (world) => {
  const { a, b } = await makePair(world);
  const writer = await a.writer('file');
  for (let i = 0; i < 6; i++) {
    const { last } = await a.status();
    await until('it writes', async () => (await a.status()).last > last);
    await (i % 2 === 0 ? a : b).killWorker();
  }
  const { rounds, error } = await writer.stop();
  assert.equal(error, null);
  assert.ok(rounds > 6);
  await assertEqual(a, b);
});

inWorld('the connection is cut under a writer: it waits, then goes on', async (world) => {
  const { a, b } = await makePair(world, { locktimeout: 100 });
  const writer = await a.writer('file');
  await a.request('cut', { ms: 400 });
  await until('it is lost', async () => a.events.some(({ values }) => values['state'] === 'lost'));
  await until('it is back', async () => (await a.status()).peer === 'connected');
  assert.equal((await writer.stop()).error, null);
  await assertEqual(a, b);
});

inWorld('closed in order, the roles change sides and back', async (world) => {
  const { a, b } = await makePair(world);
  await a.run(`echo one > ${a.dir}/f; sync ${a.dir}/f`);
  for (const [epoch, prim, second] of [
    [2, b, a],
    [3, a, b],
  ] as const) {
    await second.request('close');
    await prim.request('close');
    await second.open({ role: 'second', epoch });
    await prim.open({ role: 'prim', epoch });
    await prim.run(
      `echo ${epoch} >> ${prim.dir}/f; mkdir ${prim.dir}/d${epoch}; sync ${prim.dir}/f`,
    );
    await assertEqual(prim, second);
  }
  // The same primary again, in the same epoch: it was closed in order.
  await a.request('close');
  await a.open({ role: 'prim', epoch: 3 });
  await a.run(`echo again >> ${a.dir}/f; sync ${a.dir}/f`);
  await assertEqual(a, b);
});

inWorld('a secondary whose processes are gone becomes primary from its journal', async (world) => {
  const { a, b } = await makePair(world);
  await a.run(`for i in $(seq 50); do echo $i > ${a.dir}/f$i; done; sync ${a.dir}/f50`);
  await b.killBoth();
  const left = await treeOf(a.seen);
  await b.launch();
  await b.open({ role: 'prim', epoch: 2 });
  assert.deepEqual(await treeOf(b.seen), left);
});

inWorld('a primary that was not stopped in order begins a history of its own', async (world) => {
  const { a } = await makePair(world);
  await a.run(`echo one > ${a.dir}/f; sync ${a.dir}/f`);
  const { last } = await a.status();
  await a.killBoth();
  await a.launch();
  await assert.rejects(a.open({ role: 'prim', epoch: 1 }), refusedAs('EPOCH'));
  await a.open({ role: 'prim', epoch: 2 });
  assert.equal(await a.run(`cat ${a.dir}/f`), 'one\n');
  assert.ok((await a.status()).last > last);
  // What the peer has may be more, or less, than what is here.
  await until('the peer is made equal', async () => a.events.some(({ name }) => name === 'insync'));
});

inWorld('what the superblock does not allow is refused', async (world) => {
  const { a, b } = await makePair(world);
  const other = 'f'.repeat(32);
  await assert.rejects(a.open({ role: 'mount' }), refusedAs('EBUSY'));
  await a.request('close');
  await assert.rejects(a.open({ role: 'prim', set: other }), refusedAs('SET'));
  await a.open({ role: 'prim', epoch: 5 });
  await a.request('close');
  await assert.rejects(a.open({ role: 'prim', epoch: 4 }), refusedAs('EPOCH'));
  await b.request('close');
  await assert.rejects(b.open({ role: 'prim', epoch: 1 }), refusedAs('EPOCH'));
  await assert.rejects(b.open({ role: 'second', set: other }), refusedAs('SET'));
  assert.equal((await b.status()).role, 'none');
  assert.equal(await b.run(`grep -c ' ${b.dir} ' /proc/mounts || true`), '0\n');
});

inWorld('a secondary of another set is refused by the stream', async (world) => {
  const [a, b] = [await Engine.start(world, 'a'), await Engine.start(world, 'b')];
  await b.open({ role: 'second', set: 'f'.repeat(32) });
  await a.open({ role: 'prim' });
  await until('it is refused', async () =>
    a.events.some(({ name, values }) => name === 'peer' && values['state'] === 'refused'),
  );
  assert.equal((await a.status()).peer, 'lost');
});

inWorld(
  'content that the other side does not have is no history that it follows',
  async (world) => {
    const [a, b] = [await Engine.start(world, 'a'), await Engine.start(world, 'b')];
    await writeFile(join(b.dir, 'own'), 'content');
    await assert.rejects(b.open({ role: 'second' }), refusedAs('CONTENT'));
    await b.run(`rm ${b.dir}/own`);
    await b.open({ role: 'second' });
    await writeFile(join(a.dir, 'own'), 'content');
    await a.open({ role: 'prim' });
    await until('a first copy begins', async () =>
      a.events.some(({ name, values }) => name === 'resync' && values['kind'] === 'first_copy'),
    );
    assert.equal(await a.run(`cat ${a.dir}/own`), 'content');
  },
);

inWorld('alone: synced writes wait for the permission, and then for nobody', async (world) => {
  const { a, b } = await makePair(world, { locktimeout: 100 });
  await b.request('close');
  const writer = await a.writer('file');
  await until('it is lost', async () => a.events.some(({ values }) => values['state'] === 'lost'));
  const { last } = await a.status();
  await assert.rejects(b.request('alone', { epoch: 2 }), refusedAs('ROLE'));
  await a.request('alone', { epoch: 2 });
  await until('it goes on', async () => (await a.status()).last > last + 10);
  // It is durable: the next worker knows it.
  await a.killWorker();
  const { alone, epoch, last: then } = await a.status();
  assert.deepEqual([alone, epoch], [true, 2]);
  await until('it goes on', async () => (await a.status()).last > then + 10);
  assert.equal((await writer.stop()).error, null);
});

inWorld('verify finds both sides equal, then what was changed behind its back', async (world) => {
  const { a, b } = await makePair(world);
  await a.run(`mkdir ${a.dir}/d; cp /bin/sh ${a.dir}/d/sh; echo two > ${a.dir}/f; sync ${a.dir}/f`);
  await settled(a, b);
  const verdict = async () => {
    const from = a.events.length;
    await a.request('verify');
    const since = () => a.events.slice(from);
    await until('it is compared', async () => since().some(({ name }) => name === 'verified'));
    const ended = since().find(({ name }) => name === 'verified');
    const values: ReplicaAnswer = ended?.values ?? {};
    return { values, differs: since().filter(({ name }) => name === 'differs') };
  };
  const equal = await verdict();
  assert.deepEqual([equal.values['error'], equal.values['differences']], ['0', '0']);
  assert.deepEqual(equal.differs, []);
  // Outside the engine's namespace nothing is mounted over the directory.
  const file = await open(join(b.dir, 'd/sh'), 'r+');
  await file.write('x', 70_000);
  await file.close();
  const { values, differs } = await verdict();
  assert.notEqual(values['differences'], '0');
  const data = differs.find((event) => event.values['what'] === 'data');
  assert.equal(data?.values['offset'], '65536');
  assert.equal(data?.values['path'], join(a.dir, 'd/sh'));
});

inWorld('one state folder serves one engine', async (world) => {
  const [a, b] = [await Engine.start(world, 'a'), await Engine.start(world, 'b')];
  await a.open({ role: 'mount' });
  await assert.rejects(b.open({ role: 'mount', state: a.state }), refusedAs('EBUSY'));
  await assert.rejects(a.launch(), /an engine answers there already/);
});

inWorld('quit ends both processes and takes the socket away', async (world) => {
  const a = await Engine.start(world, 'a');
  await a.open({ role: 'mount' });
  const { holder, worker } = await a.status();
  await a.request('quit');
  await until('both are gone', async () => !alive(worker) && !alive(holder));
  assert.ok(!existsSync(join(world.folder, 'a.sock')));
  assert.equal(await a.run(`grep -c ' ${a.dir} ' /proc/mounts || true`), '0\n');
});

inWorld('SIGTERM to the holder ends in order', async (world) => {
  const a = await Engine.start(world, 'a');
  await a.open({ role: 'mount' });
  const { holder, worker } = await a.status();
  process.kill(holder, 'SIGTERM');
  await until('both are gone', async () => !alive(worker) && !alive(holder));
  assert.equal(await a.run(`grep -c ' ${a.dir} ' /proc/mounts || true`), '0\n');
});
