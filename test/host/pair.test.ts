/** What the host owes to the decisions of a mirror: order, durability, consent, adoption. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { PeerGate, type PeerNews } from '../../src/host/pair-peer.ts';
import { parsePairMessage } from '../../src/host/pair-wire.ts';
import type { HostedPair } from '../../src/host/pair.ts';
import { eventually } from './mirror-world.ts';
import { pairFile, pairWorld, primaryStatus } from './pair-world.ts';

const shown = (pair: HostedPair): string => {
  const { state, readiness } = pair.status();
  return `${state} ${readiness}`;
};
const becomes = (pair: HostedPair, wanted: string): Promise<void> =>
  eventually(() => assert.equal(shown(pair), wanted));

const heard: PeerNews = { reach: 'both', boot: '7', hung: false, heardMs: 0 };
const record = { incarnation: 1, epoch: 4, primary: 1, inSync: [0, 1], leaseMs: 1500 };

test('without a word of anybody, it waits; `prim` makes the first record', async (t) => {
  const w = pairWorld(t);
  const pair = await w.agent();
  await pair.command('start');
  assert.equal(shown(pair), 'WAIT NotReady');
  assert.match(pair.why()[0] ?? '', /nobody was primary yet/);
  assert.ok(w.did.includes('vip guard'));
  w.world.engine.onRequest = (verb) => {
    w.did.push(verb);
    const kept = readFileSync(pairFile(w), 'utf8');
    if (verb === 'open') assert.match(kept, /"promised":1/, 'durable before it is used');
  };
  w.did.length = 0;
  await pair.prim(false);
  assert.equal(shown(pair), 'ALONE Ready');
  assert.deepEqual(w.did, [
    'dissent',
    'say 0 off',
    'say 1 off',
    'vip probe',
    'open',
    'alone',
    'vip on',
    'say 1 own',
    'vip open',
  ]);
  const open = w.world.engine.opened();
  assert.deepEqual([open.get('role'), open.get('epoch'), open.get('decided')], ['prim', '1', '1']);
  assert.deepEqual(w.register.asked.slice(-1), ['swap 1 0']);
  assert.deepEqual(w.world.calls().slice(-1), ['start_prim WAIT ALONE start']);
});

test('what cannot be kept is not acted upon', async (t) => {
  const w = pairWorld(t);
  const pair = await w.agent();
  await pair.command('start');
  w.persistFails = true;
  await assert.rejects(pair.prim(false), { code: 'HF-MIRROR-127' });
  assert.equal(shown(pair), 'WAIT NotReady');
  assert.deepEqual(w.world.engine.verbs, []);
  assert.match(pair.why().join(), /its state cannot be kept: the disk is full/);
  assert.ok(!w.did.includes('vip on'));
});

/** A secondary of db2, which has everything. */
async function following(t: Parameters<typeof pairWorld>[0]) {
  const w = pairWorld(t);
  w.register.record = record;
  const pair = await w.agent();
  pair.onPeer(1, { ...heard, heardMs: w.world.ports().nowMs() });
  pair.onMessage(1, primaryStatus(record));
  await pair.command('start');
  w.world.engine.values['state'] = 'in_sync';
  w.world.engine.peer('connected');
  await becomes(pair, 'SECOND Ready');
  return { w, pair };
}

test('a secondary takes nothing older than it promised, and consents', async (t) => {
  const { w } = await following(t);
  const open = w.world.engine.opened();
  assert.deepEqual([open.get('role'), open.get('epoch')], ['second', '4']);
  assert.ok(w.did.includes('say 4 off consent'), w.did.join());
});

test('a takeover withdraws the consent before it claims, and before anything waits', async (t) => {
  const { w, pair } = await following(t);
  w.did.length = 0;
  w.register.onSwap = () => w.did.push('claim');
  // The primary ended its service, and said so.
  const released = { ...primaryStatus(record), role: 'none', state: 'STOP', released: 4 } as const;
  pair.onMessage(1, released);
  await becomes(pair, 'ALONE Ready');
  assert.deepEqual(w.did.slice(0, 3), ['dissent', 'say 4 off', 'claim']);
  assert.deepEqual(
    w.did.filter((what) => /^(cut|close|open|alone|vip o)/.test(what)),
    ['cut', 'close', 'open', 'alone', 'vip on', 'vip open'],
  );
  assert.deepEqual(w.register.record?.inSync, [0]);
  assert.equal(w.world.engine.opened().get('epoch'), '5');
});

test('an engine that came to wait for a peer which is away, and not named: a new epoch', async (t) => {
  const w = pairWorld(t);
  const pair = await w.agent();
  await pair.prim(false);
  await becomes(pair, 'ALONE Ready');
  const { engine } = w.world;
  // The resync has ended, but the peer did not come to say so.
  const joining = { peer: 'connected', peer_copy: 'caught_up', alone: '0', permit: '1' };
  engine.values = { ...engine.values, ...joining };
  engine.event('looked');
  await eventually(() => assert.ok(w.world.records.join().includes('looked')));
  assert.equal(w.register.record?.epoch, 1);
  engine.values = { ...engine.values, peer: 'lost', peer_copy: 'none' };
  engine.event('looked');
  await eventually(() => assert.equal(w.register.record?.epoch, 2));
  assert.deepEqual(w.register.record?.inSync, [0]);
  const told = (): unknown => engine.requests.findLast(({ verb }) => verb === 'alone')?.values;
  await eventually(() => assert.deepEqual(told(), [['epoch', '2']]));
});

test('the next agent goes on where the last one was', async (t) => {
  const w = pairWorld(t);
  const pair = await w.agent();
  await pair.prim(false);
  await becomes(pair, 'ALONE Ready');
  pair.abandon();
  w.did.length = 0;
  const calls = w.world.calls().length;
  const next = await w.agent();
  assert.equal(await next.findFormer(), true);
  next.adopt();
  // In the same turn: the address, and what the heartbeats say.
  assert.deepEqual(w.did.slice(0, 2), ['vip adopt open', 'say 1 own']);
  await becomes(next, 'ALONE Ready');
  await eventually(() => assert.ok(w.did.includes('vip open')));
  assert.ok(!w.world.engine.verbs.slice(2).includes('open'));
  assert.equal(w.world.calls().length, calls);
  await next.command('stop');
  assert.equal(shown(next), 'STOP NotReady');
  assert.ok(!existsSync(`${w.world.paths.run}/modules/db.pair`));
  assert.equal(w.did.at(-1), 'vip remove');
});

test('an engine that ended while no agent ran: the application is stopped and started anew', async (t) => {
  const w = pairWorld(t);
  const pair = await w.agent();
  await pair.prim(false);
  pair.abandon();
  w.world.engine.running = false;
  w.world.engine.role = 'none';
  const next = await w.agent();
  next.adopt();
  await eventually(() => assert.ok(w.world.calls().some((call) => call.startsWith('stop_prim'))));
  await becomes(next, 'ALONE Ready');
  assert.equal(w.world.engine.opened().get('epoch'), '2');
});

const misplaced = '/srv/data is not the directory that this copy was in';

test('while its file system is not mounted it claims nothing; then it goes on by itself', async (t) => {
  const w = pairWorld(t);
  const pair = await w.agent();
  await pair.prim(false);
  await pair.command('stop');
  w.world.engine.misplaced = misplaced;
  const { length } = w.world.engine.verbs;
  await pair.command('start');
  assert.equal(shown(pair), 'WAIT NotReady');
  assert.match(pair.why()[0] ?? '', /waits: \/srv\/data is not the directory/);
  await assert.rejects(pair.prim(false), { code: 'HF-MIRROR-129' });
  assert.equal(w.register.record?.epoch, 1);
  assert.deepEqual(w.world.engine.verbs.slice(length), []);
  w.world.engine.misplaced = null;
  await becomes(pair, 'ALONE Ready');
  assert.equal(w.register.record?.epoch, 2);
  assert.ok(!w.world.engine.looks.includes(true), 'no force is used unasked');
});

test('by order, another directory becomes the copy: compared, or as it is', async (t) => {
  const w = pairWorld(t);
  w.register.record = record;
  w.world.engine.misplaced = misplaced;
  const pair = await w.agent();
  pair.onPeer(1, { ...heard, heardMs: w.world.ports().nowMs() });
  pair.onMessage(1, primaryStatus(record));
  await pair.command('start');
  assert.match(pair.why()[0] ?? '', /is not the directory/);
  assert.equal(shown(pair), 'WAIT NotReady');
  await pair.second('fullsync');
  w.world.engine.values['state'] = 'in_sync';
  w.world.engine.peer('connected');
  await becomes(pair, 'SECOND Ready');
  const open = w.world.engine.opened();
  assert.deepEqual([open.get('role'), open.get('fullsync')], ['second', '1']);
  await pair.command('stop');
  w.world.engine.misplaced = null;
  pair.onPeer(1, { ...heard, reach: 'silent', heardMs: 0 });
  await pair.prim(true);
  assert.equal(w.world.engine.looks.at(-1), true);
  assert.equal(w.world.engine.opened().get('force'), '1');
});

test('an order that is refused says why', async (t) => {
  const { pair } = await following(t);
  await assert.rejects(pair.prim(false), { code: 'HF-MIRROR-136' });
  assert.equal(shown(pair), 'SECOND Ready');
});

test('failover is durable', async (t) => {
  const w = pairWorld(t);
  const pair = await w.agent();
  await pair.failover(false);
  assert.equal(pair.status().pair?.failover, false);
  pair.abandon();
  const next = await w.agent();
  assert.equal(next.status().pair?.failover, false);
});

test('a message that is none is nothing', () => {
  const message = primaryStatus(record);
  assert.deepEqual(parsePairMessage(message), message);
  for (const bad of [
    null,
    {},
    { ...message, record: { ...record, inSync: [0, 1, 2] } },
    { ...message, promised: -1 },
    { ...message, state: 'UP' },
    { kind: 'swap' },
  ]) {
    assert.equal(parsePairMessage(bad), null, JSON.stringify(bad));
  }
});

test('silence counts when it has lasted, hearing counts at once', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let nowMs = 1000;
  const told: string[] = [];
  let polled = (): void => {};
  const gate = new PeerGate({
    nowMs: () => nowMs,
    suspectMs: () => 1000,
    poll: () => polled(),
    suspect: ({ heardMs, suspectMs }) => told.push(`${heardMs}+${suspectMs}`),
    news: ({ reach }) => told.push(reach),
  });
  const later = (ms: number): void => {
    nowMs += ms;
    t.mock.timers.tick(ms);
  };
  gate.onPeer({ ...heard, heardMs: 1000 });
  gate.onPeer({ ...heard, reach: 'silent', heardMs: 900 });
  later(899);
  assert.deepEqual(told, ['both']);
  later(1);
  assert.deepEqual(told, ['both', '900+1000', 'silent']);
  // Heard again while this process did not run: what waits there comes first.
  gate.onPeer({ ...heard, reach: 'silent', heardMs: nowMs });
  polled = () => gate.onPeer({ ...heard, heardMs: nowMs });
  later(1000);
  assert.deepEqual(told.slice(3), ['both']);
  gate.onPeer({ ...heard, reach: 'silent', heardMs: nowMs - 1000 });
  assert.deepEqual(told.slice(4), ['1900+1000', 'silent'], 'it has lasted already');
  // Never heard: no silence that began.
  gate.onPeer({ ...heard, reach: 'silent', heardMs: -1 });
  assert.deepEqual(told.slice(6), ['silent']);
});
