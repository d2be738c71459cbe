/** A mirror run by hand, with an engine that answers from memory and real scripts. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ModuleConfig } from '../../src/config/model.ts';
import type { ModuleStatus } from '../../src/host/face.ts';
import { becomes, eventually, shown, storedEpoch, world, type World } from './mirror-world.ts';

test('a primary opens the directories, waits for its peer, then starts the application', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  w.engine.onRequest = (verb) => {
    if (verb === 'open') assert.equal(storedEpoch(w.paths), 1, 'durable before it is used');
  };
  await mirror.prim(false);
  assert.equal(shown(mirror), 'PRIM Transient');
  assert.match(mirror.why()[0] ?? '', /^waits for db2: run `holdfast second -m db` there/);
  assert.deepEqual(w.calls(), ['prestart STOP PRIM start']);
  const open = w.engine.opened();
  assert.match(open.get('set') ?? '', /^[0-9a-f]{32}$/);
  assert.deepEqual(
    ['role', 'node', 'epoch', 'peer', 'listen', 'async', 'ack', 'ring', 'locktimeout', 'key'].map(
      (key) => open.get(key),
    ),
    [
      'prim',
      '1',
      '1',
      '10.0.0.2:5608',
      '10.0.0.1:5608',
      'none',
      'fsync',
      '67108864',
      '100000',
      '/pki/node.key',
    ],
  );
  const skip = w.engine.requests[0]?.values.filter(([key]) => key === 'skip');
  assert.deepEqual(
    skip?.map(([, rule]) => rule),
    ['=tmp', '(=.*)', '!a|b'],
  );
  w.engine.peer('connected');
  await becomes(mirror, 'PRIM Ready');
  assert.deepEqual(w.calls().slice(1), ['start_prim WAIT PRIM start']);
  await mirror.prim(false);
  assert.equal(w.engine.verbs.filter((verb) => verb === 'open').length, 1);
});

test('stopping runs the stop scripts before the directories are closed', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.prim(false);
  w.engine.peer('connected');
  await becomes(mirror, 'PRIM Ready');
  let before: string[] = [];
  w.engine.onRequest = (verb) => {
    if (verb === 'close') before = w.calls().slice(2);
  };
  await mirror.command('stop');
  assert.deepEqual(before, ['stop_prim PRIM STOP stop', 'stop_prim force PRIM STOP stop']);
  assert.deepEqual(w.engine.verbs, ['open', 'close', 'quit']);
  assert.equal(w.calls().at(-1), 'poststop WAIT STOP stop');
  assert.equal(shown(mirror), 'STOP NotReady');
  assert.equal(mirror.status().replica, null);
});

test('each primary begins a new epoch, above all that this server has heard of', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.prim(false);
  await mirror.command('stop');
  await mirror.second();
  assert.equal(w.engine.opened().get('epoch'), '1');
  w.engine.values['epoch'] = '7';
  w.engine.peer('connected');
  await becomes(mirror, 'SECOND Ready');
  await eventually(() => assert.equal(storedEpoch(w.paths), 7));
  await mirror.command('stop');
  w.engine.values = {};
  // Another agent, as after a reboot.
  const next = await w.agent();
  await next.prim(false);
  assert.equal(w.engine.opened().get('epoch'), '8');
});

test('a secondary without its primary is not ready, and says so', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.second();
  assert.equal(shown(mirror), 'SECOND Transient');
  assert.deepEqual(w.calls(), ['prestart STOP SECOND start', 'start_second WAIT SECOND start']);
  assert.deepEqual(mirror.why(), ['db2 is not connected: this copy may be old']);
  w.engine.peer('connected');
  await becomes(mirror, 'SECOND Ready');
  assert.equal(w.alerts.size, 0);
});

test('going on alone needs the order, and its epoch is durable first', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.prim(false);
  w.engine.peer('connected');
  await becomes(mirror, 'PRIM Ready');
  w.engine.peer('lost');
  await becomes(mirror, 'PRIM Transient');
  assert.match(w.alerts.get('module.db.peer') ?? '', /synced writes wait/);
  assert.deepEqual(mirror.why(), ['db2 is not connected (lost): synced writes wait']);
  await assert.rejects(mirror.prim(false), { code: 'HF-MIRROR-008' });
  w.there = { state: 'PRIM', replica: { role: 'prim', epoch: 0 } as ModuleStatus['replica'] };
  await assert.rejects(mirror.prim(true), { code: 'HF-MIRROR-007' });
  assert.ok(!w.engine.verbs.includes('alone'));
  w.there = null;
  w.engine.onRequest = (verb) => {
    if (verb === 'alone') assert.equal(storedEpoch(w.paths), 2);
  };
  await mirror.prim(true);
  assert.equal(shown(mirror), 'ALONE Ready');
  assert.deepEqual(w.engine.requests.at(-1)?.values, [['epoch', '2']]);
  assert.match(w.alerts.get('module.db.alone') ?? '', /on this server only/);
  assert.ok(!w.alerts.has('module.db.peer'));
});

test('a peer that left because it failed makes the primary ALONE by itself', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.prim(false);
  w.engine.peer('connected');
  await becomes(mirror, 'PRIM Ready');
  w.engine.values['alone'] = '1';
  w.engine.peer('left', 'journal');
  await becomes(mirror, 'ALONE Ready');
  assert.ok(w.records.includes('replication: db2 left journal'));
});

test('a primary can be made alone from the start', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.prim(true);
  assert.equal(shown(mirror), 'ALONE Ready');
  assert.deepEqual(w.engine.verbs, ['open', 'alone']);
  assert.equal(w.calls().at(-1), 'start_prim WAIT ALONE start');
});

test('what an operator says of a copy reaches the engine once', async (t) => {
  const w = world(t, 'reiallowedbw="1000"');
  const mirror = await w.agent();
  await mirror.second('fullsync');
  assert.equal(w.engine.opened().get('fullsync'), '1');
  assert.equal(w.engine.opened().get('resyncrate'), '1024000');
  await assert.rejects(mirror.second('discard'), { code: 'HF-MIRROR-006' });
  await mirror.second();
  await mirror.command('stop');
  await mirror.second('discard');
  assert.equal(w.engine.opened().get('discard'), '1');
  assert.ok(!w.engine.opened().has('fullsync'));
  await mirror.command('stop');
  await mirror.prim(false, true);
  assert.equal(w.engine.opened().get('force'), '1');
  await mirror.command('stop');
  await mirror.prim(false);
  assert.ok(!w.engine.opened().has('force'));
});

test('a copy that is being brought up to date is not ready', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.second();
  w.engine.values['state'] = 'inconsistent';
  w.engine.peer('connected');
  await becomes(mirror, 'SECOND Transient');
  await eventually(() =>
    assert.deepEqual(mirror.why(), ['this copy is being brought up to date by db2']),
  );
  assert.ok(!w.alerts.has('module.db.peer'));
  w.engine.values['state'] = 'in_sync';
  w.engine.event('insync', { run: '7', lsn: '12', epoch: '3' });
  await becomes(mirror, 'SECOND Ready');
});

test('servers that took changes apart are told of with a code, until they meet', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.prim(true);
  const refused = { state: 'refused', reason: 'fork', common: '40' };
  w.engine.event('peer', { ...refused, source_more: '3', target_more: '5' });
  await eventually(() =>
    assert.match(
      w.alerts.get('module.db.apart') ?? '',
      /HF-MIRROR-016.*took changes while they were apart: 3 here, 5 on db2, after change 40/,
    ),
  );
  assert.ok(w.records.some((text) => /HF-MIRROR-016/.test(text)));
  w.engine.peer('connected');
  await eventually(() => assert.ok(!w.alerts.has('module.db.apart')));
  w.engine.event('resync', { state: 'done', run: '7', kind: 'dirty', common: '40', sent: '2048' });
  w.engine.event('quarantined', { files: '2', folder: '20260131-120000-epoch5' });
  w.engine.event('took_back', { epoch: '3', lsn: '40' });
  await eventually(() => {
    const said = w.records.join('\n');
    assert.match(said, /resynchronisation 7 done \(dirty, after change 40\): 2\.0 KiB sent/);
    assert.match(said, /HF-MIRROR-019.*2 files .* 20260131-120000-epoch5/);
    assert.match(said, /HF-MIRROR-020.*change 40 of epoch 3/);
  });
});

test('what the other server is already, this one cannot be', async (t) => {
  const w = world(t, 'port="7000"');
  const mirror = await w.agent();
  const there = (role: string, port: number) =>
    ({
      state: role.toUpperCase(),
      replica: { role, port, epoch: 0 },
    }) as unknown as World['there'];
  w.there = there('prim', 7000);
  await assert.rejects(mirror.prim(false), { code: 'HF-MIRROR-007' });
  w.there = there('second', 7000);
  await assert.rejects(mirror.second(), { code: 'HF-MIRROR-007' });
  w.there = there('second', 5600);
  await assert.rejects(mirror.prim(false), /uses port 7000 here and port 5600 on db2/);
  assert.equal(shown(mirror), 'STOP NotReady');
  w.there = there('second', 7000);
  await mirror.prim(false);
  await assert.rejects(mirror.second(), { code: 'HF-MIRROR-006' });
  await assert.rejects(mirror.command('start'), { code: 'HF-MIRROR-005' });
});

test('what keeps it from opening is said, and leaves it stopped', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  w.engine.refuses = 'open';
  await assert.rejects(
    mirror.prim(false),
    /HF-MIRROR-015|db did not become prim: .*as told \(EIO\)/,
  );
  assert.equal(shown(mirror), 'STOP NotReady');
  assert.equal(w.engine.running, false);
  assert.deepEqual(w.calls(), ['prestart STOP PRIM start', 'poststop WAIT STOP start']);
  w.engine.refuses = null;
  const [first] = w.config.rfs?.directories ?? [];
  writeFileSync(join(first?.dir ?? '', 'other'), '');
  const missing = { ...w.config.rfs, directories: [{ ...first, toCheck: ['gone'] }] };
  mirror.setConfig({ ...w.config, rfs: missing as ModuleConfig['rfs'] });
  await assert.rejects(mirror.prim(false), /gone does not exist, and <tocheck> says/);
  assert.equal(w.engine.running, false);
});

test('an application that does not start is stopped, and its directories are closed', async (t) => {
  const w = world(t);
  w.script('start_second', 'exit 3');
  const mirror = await w.agent();
  await assert.rejects(mirror.second(), /start_second failed: exit status 3/);
  assert.deepEqual(w.calls().slice(1), [
    'start_second WAIT SECOND start',
    'stop_second SECOND STOP stop',
    'stop_second force SECOND STOP stop',
    'poststop WAIT STOP stop',
  ]);
  assert.deepEqual(w.engine.verbs, ['open', 'close', 'quit']);
});

test('forcestop cuts a start script short', async (t) => {
  const w = world(t);
  w.script('start_second', 'sleep 600');
  const mirror = await w.agent();
  const second = mirror.second().catch((error: unknown) => String(error));
  await eventually(() => assert.equal(w.calls().length, 2));
  await mirror.command('forcestop');
  assert.match(String(await second), /did not become second/);
  assert.deepEqual(w.calls().slice(2), [
    'stop_second force SECOND STOP stop',
    'poststop WAIT STOP stop',
  ]);
});

test('restart runs the scripts while the directories stay', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.second();
  await mirror.command('restart');
  assert.deepEqual(w.calls().slice(2), [
    'stop_second SECOND SECOND restart',
    'stop_second force SECOND SECOND restart',
    'start_second WAIT SECOND restart',
  ]);
  assert.deepEqual(w.engine.verbs, ['open']);
});

test('the next agent takes over what runs, and runs a script again that was cut off', async (t) => {
  const w = world(t);
  const first = await w.agent();
  await first.second();
  first.abandon();
  w.engine.values['peer'] = 'connected';
  const next = await w.agent();
  assert.equal(await next.findFormer(), true);
  next.adopt();
  await becomes(next, 'SECOND Ready');
  assert.equal(w.calls().length, 2);
  await next.command('stop');
  assert.equal(await (await w.agent()).findFormer(), false);

  w.script(
    'start_second',
    'test -e "$SAFEUSERVAR/again" || { touch "$SAFEUSERVAR/again"; sleep 1; }',
  );
  const begun = await w.agent();
  void begun.second();
  await eventually(() => assert.equal(w.calls().at(-1), 'start_second WAIT SECOND start'));
  begun.abandon();
  const after = await w.agent();
  await after.findFormer();
  after.adopt();
  await becomes(after, 'SECOND Ready');
  assert.equal(w.calls().filter((call) => call.startsWith('start_second')).length, 3);
});

test('an engine of which nothing is left stops the module at once', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.second();
  w.engine.die();
  await becomes(mirror, 'STOP NotReady');
  assert.deepEqual(w.calls().slice(2), [
    'stop_second force SECOND STOP stop',
    'poststop WAIT STOP stop',
  ]);
  assert.match(mirror.why()[0] ?? '', /the replication engine is gone/);
  assert.ok(w.alerts.has('module.db.engine'));
});

test('verify gathers what differs', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await assert.rejects(mirror.verify(), { code: 'HF-MIRROR-011' });
  await mirror.prim(false);
  w.engine.peer('connected');
  await becomes(mirror, 'PRIM Ready');
  const running = mirror.verify();
  await eventually(() => assert.ok(w.engine.verbs.includes('verify')));
  await assert.rejects(mirror.verify(), { code: 'HF-MIRROR-012' });
  w.engine.event('differs', { path: 'a/b', what: 'data' });
  w.engine.values['verify_files'] = '2';
  await eventually(() => assert.deepEqual(mirror.status().replica?.verify?.figures, { files: 2 }));
  assert.equal(mirror.status().replica?.verify?.differing, 1);
  w.engine.event('verified', { run: '9', error: '0', files: '3', differences: '2' });
  assert.deepEqual(await running, {
    running: false,
    figures: { files: 3 },
    differences: [{ path: 'a/b', what: 'data' }],
    differing: 2,
  });
  assert.match(w.alerts.get('module.db.differs') ?? '', /differ in 2 places/);
  const again = mirror.verify();
  await eventually(() => assert.equal(w.engine.verbs.filter((v) => v === 'verify').length, 2));
  w.engine.event('verified', { files: '3', differences: '0' });
  assert.equal((await again).differing, 0);
  assert.ok(!w.alerts.has('module.db.differs'));
  const cut = mirror.verify();
  await eventually(() => assert.equal(w.engine.verbs.filter((v) => v === 'verify').length, 3));
  w.engine.peer('lost');
  await assert.rejects(cut, { code: 'HF-MIRROR-013' });
  w.engine.peer('connected');
  await becomes(mirror, 'PRIM Ready');
  const resumed = mirror.verify();
  await eventually(() => assert.equal(w.engine.verbs.filter((v) => v === 'verify').length, 4));
  w.engine.event('resumed', { pause_us: '12000' });
  await assert.rejects(resumed, /the engine was started again/);
  assert.ok(w.records.includes('replication: resumed after 12 ms'));
});

test('orders that come together are one after the other', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  const both = await Promise.allSettled([mirror.prim(false), mirror.second()]);
  assert.deepEqual(both.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected']);
  assert.equal(w.engine.verbs.filter((verb) => verb === 'open').length, 1);
  await Promise.all([mirror.command('stop'), mirror.command('stop'), mirror.command('forcestop')]);
  assert.equal(shown(mirror), 'STOP NotReady');
});

test('a stop that was ordered goes on with the next agent', async (t) => {
  const w = world(t);
  w.script('start_second', 'sleep 1');
  const mirror = await w.agent();
  void mirror.second().catch(() => undefined);
  await eventually(() => assert.equal(w.calls().length, 2));
  void mirror.command('stop');
  mirror.abandon();
  const next = await w.agent();
  await next.findFormer();
  next.adopt();
  await becomes(next, 'STOP NotReady');
  assert.equal(w.calls().filter((call) => call.startsWith('start_second')).length, 1);
  assert.deepEqual(w.engine.verbs, ['open', 'close', 'quit']);
});

test('a secondary that could not write is red', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.second();
  w.engine.values['failed'] = '1';
  w.engine.peer('lost');
  await becomes(mirror, 'SECOND NotReady');
  assert.match(mirror.why()[0] ?? '', /this copy has failed/);
  assert.ok(w.alerts.has('module.db.local'));
});

test('a failed disk is an alert', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.second();
  w.engine.event('local_failed', { errno: '5', call: 'fdatasync' });
  assert.match(w.alerts.get('module.db.local') ?? '', /could not be written on this server/);
});

test('another <rfs> needs a stop', async (t) => {
  const w = world(t);
  const mirror = await w.agent();
  await mirror.second();
  const other = { ...w.config, rfs: { ...w.config.rfs, ack: 'strict' } } as ModuleConfig;
  assert.throws(() => mirror.setConfig(other), { code: 'HF-AGENT-006' });
  mirror.setConfig({ ...w.config, signature: 'other' });
  assert.equal(mirror.status().signature, 'other');
  await mirror.command('stop');
  mirror.setConfig(other);
});
