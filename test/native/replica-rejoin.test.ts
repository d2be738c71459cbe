/** Servers that were apart become one again: two real engines, as the agents would lead them. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  cannotRun,
  Engine,
  endWorld,
  makeWorld,
  settled,
  treeOf,
  until,
  type World,
} from './replica-engine.ts';

const live = { skip: cannotRun, timeout: 90_000 };

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

/** The events of a resync that an engine told, in order: "started dirty", "done dirty" … */
function resyncs(engine: Engine): string[] {
  return engine.events
    .filter(({ name }) => name === 'resync')
    .map(({ values }) => `${values['state']} ${values['kind']}`);
}

async function inSync(engine: Engine, times = 1): Promise<void> {
  await until(
    `${engine.name} has its peer in sync ${times} times`,
    async () => engine.events.filter(({ name }) => name === 'insync').length >= times,
    60_000,
  );
}

async function assertEqual(prim: Engine, second: Engine): Promise<void> {
  await settled(prim, second);
  assert.deepEqual(await treeOf(second.seen), await treeOf(prim.seen));
}

/** Files of 1 MiB each, durable. */
const fill = (engine: Engine, folder: string, count: number) =>
  engine.run(
    `mkdir -p ${engine.dir}/${folder}; cd ${engine.dir}/${folder}; ` +
      `for i in $(seq ${count}); do head -c 1048576 /dev/urandom > f$i; done; sync f1`,
  );

inWorld('a secondary that was away for a moment catches up by the ring', async (world) => {
  const { a, b } = await makePair(world);
  await a.run(`mkdir ${a.dir}/d; echo one > ${a.dir}/d/f; sync ${a.dir}/d/f`);
  await b.request('close');
  await a.request('alone', { epoch: 2 });
  await a.run(`echo two > ${a.dir}/d/f; echo three > ${a.dir}/g; sync ${a.dir}/g`);
  await b.open({ role: 'second', epoch: 2 });
  await inSync(a);
  assert.deepEqual(resyncs(a), ['started catch_up', 'done catch_up']);
  await assertEqual(a, b);
  assert.equal((await a.status()).alone, false);
});

inWorld('stopped in order, writes, back: only what changed is sent', async (world) => {
  const { a, b } = await makePair(world);
  await fill(a, 'old', 24);
  await settled(a, b);
  await b.request('close');
  await a.request('alone', { epoch: 2 });
  await fill(a, 'new', 16);
  await a.run(`cd ${a.dir}/old; rm f2; mv f3 g3; chmod 600 f4; printf x | dd of=f5 bs=1 seek=5000 \
    conv=notrunc 2>/dev/null; sync f5`);
  await b.open({ role: 'second', epoch: 2 });
  await inSync(a);
  assert.deepEqual(resyncs(a), ['started dirty', 'done dirty']);
  const sent = Number(a.events.find(({ values }) => values['state'] === 'done')?.values['sent']);
  assert.ok(sent > 16 << 20 && sent < 18 << 20, `${sent} bytes`);
  await assertEqual(a, b);
});

inWorld('the application writes while its secondary comes back', async (world) => {
  const { a, b } = await makePair(world);
  await fill(a, 'old', 8);
  await b.request('close');
  await a.request('alone', { epoch: 2 });
  await fill(a, 'new', 24);
  const writer = await a.writer('file');
  await b.open({ role: 'second', epoch: 2 });
  await inSync(a);
  const { error, rounds } = await writer.stop();
  assert.equal(error, null);
  assert.ok(rounds > 0);
  await assertEqual(a, b);
});

inWorld(
  'the worker of a primary that is alone is killed: its marks say what changed',
  async (world) => {
    const { a, b } = await makePair(world);
    await fill(a, 'old', 4);
    await b.request('close');
    await a.request('alone', { epoch: 2 });
    await fill(a, 'new', 16);
    await a.killWorker();
    await b.open({ role: 'second', epoch: 2 });
    await inSync(a);
    await assertEqual(a, b);
  },
);

inWorld('a primary that was alone is closed and opened: it knows what changed', async (world) => {
  const { a, b } = await makePair(world);
  await fill(a, 'old', 4);
  await b.request('close');
  await a.request('alone', { epoch: 2 });
  await fill(a, 'new', 16);
  await a.request('close');
  assert.ok(existsSync(join(a.state, 'dirty')));
  await a.open({ role: 'prim', epoch: 3 });
  await b.open({ role: 'second', epoch: 3 });
  await inSync(a);
  assert.deepEqual(resyncs(a), ['started dirty', 'done dirty']);
  await assertEqual(a, b);
});

inWorld('both processes of a primary are killed: its peer is made equal', async (world) => {
  const { a, b } = await makePair(world);
  await fill(a, 'old', 4);
  await a.run(`for i in $(seq 200); do echo $i > ${a.dir}/n$i; done`);
  await a.killBoth();
  await a.launch();
  await a.open({ role: 'prim', epoch: 2 });
  await inSync(a);
  await assertEqual(a, b);
  const writer = await a.writer('file');
  await until('it is written', async () => (await a.status()).last > 0);
  assert.equal((await writer.stop()).error, null);
  await assertEqual(a, b);
});

inWorld('takeover by hand, and the old primary comes back: it is rolled back', async (world) => {
  const { a, b } = await makePair(world);
  await fill(a, 'old', 4);
  await settled(a, b);
  // What the other side never gets.
  await a.request('cut', { ms: 100_000 });
  await a.run(`echo mine > ${a.dir}/own; echo changed > ${a.dir}/old/f1`);
  await a.killBoth();
  await b.request('close');
  await b.open({ role: 'prim', epoch: 2 });
  await b.request('alone', { epoch: 2 });
  await b.run(`echo theirs > ${b.dir}/theirs; rm ${b.dir}/old/f2; sync ${b.dir}/theirs`);
  await a.launch();
  await a.open({ role: 'second', epoch: 2 });
  await inSync(b);
  assert.deepEqual(resyncs(b), ['started roll_back', 'done roll_back']);
  await settled(b, a);
  const names = async (engine: Engine) =>
    (await readdir(engine.seen)).filter((n) => !n.startsWith('.'));
  assert.deepEqual((await names(a)).sort(), ['old', 'theirs']);
  const left = await treeOf(b.seen);
  const right = await treeOf(a.seen);
  for (const name of Object.keys(left)) assert.equal(right[name], left[name], name);
  const kept = await readdir(join(a.seen, '.holdfast-quarantine')).catch(() => []);
  assert.ok(kept.length > 0, 'what only it had is in the quarantine');
});

inWorld('content that a new secondary does not have: a first copy', async (world) => {
  const [a, b] = [await Engine.start(world, 'a'), await Engine.start(world, 'b')];
  await a.run(`mkdir -p ${a.dir}/x/y; echo own > ${a.dir}/x/y/own; ln -s own ${a.dir}/x/y/link`);
  await fill(a, 'data', 6);
  await b.open({ role: 'second' });
  await a.open({ role: 'prim' });
  await inSync(a);
  assert.deepEqual(resyncs(a), ['started first_copy', 'done first_copy']);
  await assertEqual(a, b);
});

inWorld('both were alone: a fork is refused, and both keep what they have', async (world) => {
  const { a, b } = await makePair(world);
  await a.run(`echo both > ${a.dir}/f; sync ${a.dir}/f`);
  await a.request('cut', { ms: 100_000 });
  await a.request('alone', { epoch: 2 });
  await a.run(`echo a > ${a.dir}/f; echo a > ${a.dir}/only; sync ${a.dir}/f`);
  await b.request('close');
  await b.open({ role: 'prim', epoch: 3 });
  await b.request('alone', { epoch: 3 });
  await b.run(`echo b > ${b.dir}/f; sync ${b.dir}/f`);
  await a.request('close');
  await a.open({ role: 'second', epoch: 3 });
  await until('it is refused', async () =>
    b.events.some(({ values }) => values['reason'] === 'fork'),
  );
  assert.equal(await b.run(`cat ${b.dir}/f`), 'b\n');
  assert.equal(await a.run(`cat ${a.dir}/f`), 'a\n');
  // The operator chooses.
  await a.request('close');
  await a.open({ role: 'second', epoch: 3, discard: 1 });
  await inSync(b);
  await settled(b, a);
  assert.equal(await a.run(`cat ${a.dir}/f`), 'b\n');
  await assert.rejects(a.run(`cat ${a.dir}/only`));
});

inWorld(
  'a primary is stopped in order with changes that nobody got: rolled back',
  async (world) => {
    const { a, b } = await makePair(world);
    await fill(a, 'old', 2);
    await settled(a, b);
    await a.request('cut', { ms: 100_000 });
    await a.run(`echo mine > ${a.dir}/own; echo changed > ${a.dir}/old/f1`);
    await a.request('close');
    await b.request('close');
    await b.open({ role: 'prim', epoch: 2 });
    await b.request('alone', { epoch: 2 });
    await b.run(`echo theirs > ${b.dir}/theirs; sync ${b.dir}/theirs`);
    await a.open({ role: 'second', epoch: 2 });
    await inSync(b);
    assert.deepEqual(resyncs(b), ['started roll_back', 'done roll_back']);
    await settled(b, a);
    await assert.rejects(a.run(`cat ${a.dir}/own`));
    const [left, right] = [await treeOf(b.seen), await treeOf(a.seen)];
    for (const name of Object.keys(left)) assert.equal(right[name], left[name], name);
  },
);

inWorld('the source dies in the middle: the target goes back to what it was', async (world) => {
  const { a, b } = await makePair(world, { resyncrate: 2 << 20 });
  await fill(a, 'old', 4);
  await settled(a, b);
  const before = await treeOf(b.seen);
  await b.request('close');
  await a.request('alone', { epoch: 2 });
  await fill(a, 'old', 24);
  await b.open({ role: 'second', epoch: 2 });
  await until(
    'it is under way',
    async () => Number((await a.status()).all['resync_sent']) > 3 << 20,
  );
  await a.killBoth();
  await b.request('close');
  await assert.rejects(b.open({ role: 'prim', epoch: 3 }), /STATE/);
  await b.open({ role: 'prim', epoch: 3, force: 1 });
  assert.deepEqual(await treeOf(b.seen), before);
  assert.ok(b.events.some(({ name }) => name === 'took_back'));
});

inWorld(
  'the target is killed in the middle: it resumes, and does not start again',
  async (world) => {
    const { a, b } = await makePair(world, { resyncrate: 4 << 20 });
    await fill(a, 'old', 2);
    await settled(a, b);
    await b.request('close');
    await a.request('alone', { epoch: 2 });
    await fill(a, 'new', 20);
    await b.open({ role: 'second', epoch: 2 });
    for (let i = 1; i <= 3; i++) {
      const sent = i * (4 << 20);
      await until(
        'it is under way',
        async () => Number((await a.status()).all['resync_sent']) > sent,
      );
      await b.killWorker();
    }
    await inSync(a);
    const kinds = resyncs(a).filter((text) => text.startsWith('started'));
    assert.deepEqual(kinds, [
      'started dirty',
      'started resume',
      'started resume',
      'started resume',
    ]);
    const done = a.events.find(
      ({ name, values }) => name === 'resync' && values['state'] === 'done',
    );
    assert.ok(Number(done?.values['sent']) < 34 << 20, `${done?.values['sent']} bytes`);
    await assertEqual(a, b);
  },
);

inWorld(
  'the worker of the source is killed in the middle: a new resync, the same end',
  async (world) => {
    const { a, b } = await makePair(world, { resyncrate: 4 << 20 });
    await fill(a, 'old', 2);
    await settled(a, b);
    await b.request('close');
    await a.request('alone', { epoch: 2 });
    await fill(a, 'new', 12);
    const writer = await a.writer('file');
    await b.open({ role: 'second', epoch: 2 });
    await until(
      'it is under way',
      async () => Number((await a.status()).all['resync_sent']) > 4 << 20,
    );
    await a.killWorker();
    await inSync(a);
    assert.equal((await writer.stop()).error, null);
    await assertEqual(a, b);
  },
);

inWorld('the connection flaps under a writer while the secondary comes back', async (world) => {
  const { a, b } = await makePair(world);
  await fill(a, 'old', 2);
  await settled(a, b);
  const writer = await a.writer('file');
  for (let epoch = 2; epoch < 10; epoch++) {
    await a.request('cut', { ms: 200 });
    await a.request('alone', { epoch });
    await a.run(`head -c 3000000 /dev/urandom > ${a.dir}/old/g${epoch}`);
    if (epoch % 2 === 0) await inSync(a, epoch / 2);
  }
  await until('it is in sync', async () => (await a.status()).all['insync'] === '1', 60_000);
  assert.equal((await writer.stop()).error, null);
  await assertEqual(a, b);
});

inWorld('foreign content: a first copy by fullsync, and nothing of it is lost', async (world) => {
  const [a, b] = [await Engine.start(world, 'a'), await Engine.start(world, 'b')];
  for (const engine of [a, b]) {
    await engine.run(
      `mkdir -p ${engine.dir}/d; echo same > ${engine.dir}/d/same; ` +
        `echo of ${engine.name} > ${engine.dir}/d/other`,
    );
  }
  await b.run(`mkdir ${b.dir}/d/mine; echo mine > ${b.dir}/d/mine/file`);
  await assert.rejects(b.open({ role: 'second' }), /CONTENT/);
  await b.open({ role: 'second', fullsync: 1 });
  assert.equal((await b.request('status'))['state'], 'none');
  await a.open({ role: 'prim' });
  await inSync(a);
  assert.deepEqual(resyncs(a), ['started first_copy', 'done first_copy']);
  await settled(a, b);
  const tree = Object.entries(await treeOf(b.seen));
  const copied = tree.filter(([path]) => !path.startsWith('.holdfast-quarantine'));
  assert.deepEqual(Object.fromEntries(copied), { ...(await treeOf(a.seen)) });
  assert.equal(await b.run(`cat ${b.dir}/d/other`), 'of a\n');
  const kept = await b.run(
    `find ${b.dir}/.holdfast-quarantine -type f -path '*mine*' -exec cat {} +`,
  );
  assert.equal(kept, 'mine\n');
  const status = await b.request('status');
  assert.equal(status['state'], 'in_sync');
  assert.ok(Number(status['quarantined']) >= 1);
});
