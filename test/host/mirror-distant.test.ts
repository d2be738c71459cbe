/** Distant copies of a mirror: on its primary, and on their own server. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseClusterConfig } from '../../src/config/index.ts';
import type { DistantStatus, ModuleState } from '../../src/host/face.ts';
import { config } from '../config/fixtures.ts';
import { becomes, eventually, type Part, shown, type There, world } from './mirror-world.ts';

const cluster = config(
  parseClusterConfig(`<cluster><lans>
 <lan name="wan"><node name="db1" addr="10.1.0.1"/><node name="db2" addr="10.1.0.2"/>
  <node name="dr1" addr="10.1.0.3"/><node name="dr2" addr="10.1.0.4"/>
  <node name="web" addr="10.1.0.5"/></lan>
 <lan name="net"><node name="db1" addr="10.0.0.1"/><node name="db2" addr="10.0.0.2"/></lan>
</lans></cluster>`),
);
const distant = '<distant node="dr1" lan="wan"/><distant node="dr2" lan="wan"/>';
const on = (node: string): Part => ({ cluster, node, distant });

const says = (state: ModuleState, change: object = {}): There => {
  const role = state === 'SECOND' ? 'second' : 'prim';
  const replica = { role, port: 5608, epoch: 0, distant: [], ...change } as unknown;
  return { state, replica } as There;
};

/** What the engine says of its first distant copy. */
const copy = (values: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [`distant0_${key}`, value]));

test('a primary feeds its distant copies beside its peer', async (t) => {
  const w = world(t, '', on('db1'));
  const mirror = await w.agent();
  await mirror.prim(false);
  assert.equal(w.engine.opened().get('peer'), '10.0.0.2:5608');
  assert.equal(w.engine.opened().get('listen'), '10.0.0.1:5608');
  const addresses = w.engine.requests[0]?.values.filter(([key]) => key === 'distant');
  assert.deepEqual(addresses, [
    ['distant', '10.1.0.3:5608'],
    ['distant', '10.1.0.4:5608'],
  ]);
  assert.deepEqual(
    mirror.status().replica?.distant.map(({ node, state }) => `${node} ${state}`),
    ['dr1 none', 'dr2 none'],
  );
  Object.assign(w.engine.values, {
    ...copy({ peer: 'connected', insync: '0', lag_bytes: '4096', lag_ms: '1500', sent: '9' }),
    ...copy({ resync: '7', resync_kind: 'dirty', resync_left: '100', resync_rate: '50' }),
    ...copy({ diverted: '3' }),
  });
  w.engine.peer('connected');
  await becomes(mirror, 'PRIM Ready');
  await eventually(() => {
    const wanted: DistantStatus = {
      node: 'dr1',
      state: 'connected',
      reason: '',
      inSync: false,
      isKnown: true,
      lagBytes: 4096,
      lagMs: 1500,
      resync: { kind: 'dirty', leftBytes: 100, bytesPerS: 50 },
      sentBytes: 9,
      diverted: 3,
    };
    assert.deepEqual(mirror.status().replica?.distant[0], wanted);
  });
});

test('what happens to a distant copy does not happen to the peer', async (t) => {
  const w = world(t, '', on('db1'));
  const mirror = await w.agent();
  await mirror.prim(false);
  w.engine.peer('connected');
  await becomes(mirror, 'PRIM Ready');
  const verified = mirror.verify();
  for (const values of [{ state: 'lost' }, { state: 'refused', reason: 'fork' }]) {
    w.engine.event('peer', { ...values, distant: '1' });
  }
  w.engine.event('resync', { state: 'done', run: '4', kind: 'dirty', sent: '2048', distant: '0' });
  w.engine.event('insync', { run: '4', lsn: '9', epoch: '1', distant: '0' });
  w.engine.event('verified', { files: '1', bytes: '1', differences: '0' });
  assert.equal((await verified).differing, 0);
  assert.equal(shown(mirror), 'PRIM Ready');
  assert.equal(mirror.status().replica?.peerReason, '');
  assert.ok(!w.alerts.has('module.db.apart'));
  assert.ok(w.records.includes('replication: distant copy dr2 lost'));
  assert.ok(w.records.includes('replication: distant copy dr1 is in sync'));
  assert.ok(
    w.records.some((text) =>
      text.startsWith('replication: distant copy dr1 resynchronisation 4 done'),
    ),
  );
});

test('a distant copy that is refused is told of, with what to do, until it is connected', async (t) => {
  const w = world(t, '', on('db1'));
  const mirror = await w.agent();
  await mirror.prim(true);
  const id = 'module.db.distant.dr1.refused';
  const refused = (reason: string): void => {
    Object.assign(w.engine.values, copy({ peer: 'refused', reason }));
    w.engine.event('peer', { state: 'refused', reason, distant: '0' });
  };
  refused('fork');
  await eventually(() =>
    assert.match(
      w.alerts.get(id) ?? '',
      /distant copy dr1 is refused: .*HF-MIRROR-027.*has changes of its own\. .*on dr1 `holdfast stop -m db`, then `holdfast second discard -m db`/,
    ),
  );
  assert.equal(mirror.status().replica?.distant[0]?.state, 'refused');
  assert.match(mirror.status().replica?.distant[0]?.reason ?? '', /changes of its own/);
  assert.ok(w.records.some((text) => /distant copy dr1 refused: .*HF-MIRROR-027/.test(text)));
  refused('epoch');
  await eventually(() =>
    assert.match(
      w.alerts.get(id) ?? '',
      /HF-MIRROR-028.*knows a newer epoch.*`holdfast prim -m db`/,
    ),
  );
  refused('role');
  await eventually(() =>
    assert.equal(w.alerts.get(id), 'db: distant copy dr1 is refused: it is no secondary'),
  );
  Object.assign(w.engine.values, copy({ peer: 'connected' }));
  w.engine.event('peer', { state: 'connected', distant: '0' });
  await eventually(() => assert.ok(!w.alerts.has(id)));
});

test('a distant copy that stays away is a warning, which nothing waits for', async (t) => {
  const w = world(t, '', on('db1'));
  const mirror = await w.agent();
  await mirror.prim(true);
  const id = 'module.db.distant.dr1.lost';
  Object.assign(w.engine.values, copy({ peer: 'lost' }));
  w.engine.event('peer', { state: 'lost', distant: '0' });
  await eventually(() => assert.equal(mirror.status().replica?.distant[0]?.state, 'lost'));
  assert.ok(!w.alerts.has(id));
  w.laterMs = 11_000;
  w.engine.event('warning');
  await eventually(() =>
    assert.equal(w.alerts.get(id), 'db: distant copy dr1 is not connected: what it lacks grows'),
  );
  assert.equal(shown(mirror), 'ALONE Ready');
  Object.assign(w.engine.values, copy({ peer: 'connected' }));
  w.engine.event('peer', { state: 'connected', distant: '0' });
  await eventually(() => assert.ok(!w.alerts.has(id)));
  Object.assign(w.engine.values, copy({ peer: 'lost' }));
  w.engine.event('peer', { state: 'lost', distant: '0' });
  await eventually(() => assert.equal(mirror.status().replica?.distant[0]?.state, 'lost'));
  w.laterMs = 22_000;
  w.engine.event('warning');
  await eventually(() => assert.ok(w.alerts.has(id)));
  await mirror.command('stop');
  assert.ok(!w.alerts.has(id));
});

test('a distant copy waits on its own network for whichever server is primary', async (t) => {
  const w = world(t, '', on('dr1'));
  w.others.set('db1', says('PRIM')).set('db2', says('SECOND'));
  const mirror = await w.agent();
  await mirror.second();
  assert.equal(w.engine.opened().get('role'), 'second');
  assert.equal(w.engine.opened().get('listen'), '10.1.0.3:5608');
  assert.ok(!w.engine.opened().has('distant'));
  assert.deepEqual(mirror.why(), ['db1 or db2 is not connected: this copy may be old']);
  w.engine.values['peer_node'] = '2';
  w.engine.peer('connected');
  await becomes(mirror, 'SECOND Ready');
  assert.equal(mirror.status().replica?.peer, 'db2');
  assert.deepEqual(mirror.status().replica?.distant, []);
});

test('a distant copy becomes primary by force only, and says what it lacks', async (t) => {
  const w = world(t, '', on('dr1'));
  const lag = {
    node: 'dr1',
    state: 'connected',
    isKnown: true,
    resync: null,
    lagBytes: 2048,
    lagMs: 4000,
  };
  const mirror = await w.agent();
  await assert.rejects(mirror.prim(true), /how much that is, is not known/);
  w.others.set('db1', says('PRIM', { distant: [lag] }));
  await mirror.second();
  await eventually(() => assert.equal(mirror.status().replica?.behind?.primary, 'db1'));
  await mirror.command('stop');
  await assert.rejects(mirror.prim(false, true), { code: 'HF-MIRROR-007' });
  w.others.clear();
  w.laterMs = 60_000;
  // The next agent knows it too.
  const next = await w.agent();
  await assert.rejects(next.prim(true), {
    code: 'HF-MIRROR-026',
    message:
      /^the copy of db on this server \(dr1\) is a distant one.*: when db1 last said so, 6\d s ago, it lacked 2\.0 KiB, changes of up to 4 s before$/,
    hint: /runs on none of db1 and db2/,
  });
  assert.equal(w.engine.verbs.filter((verb) => verb === 'open').length, 1);
  await next.prim(false, true);
  assert.equal(shown(next), 'ALONE Ready');
  const open = w.engine.opened();
  assert.deepEqual(
    ['role', 'force', 'peer', 'listen', 'distant'].map((key) => open.get(key)),
    ['prim', '1', '10.1.0.1:5608', '10.1.0.3:5608', '10.1.0.2:5608'],
  );
  assert.equal(w.engine.verbs.at(-1), 'alone');
  assert.match(next.why().join('\n'), /primary by force; when db1 last said so/);
  assert.deepEqual(
    next.status().replica?.distant.map(({ node }) => node),
    ['db2'],
  );
  // It is an ordinary primary now.
  await next.prim(true);
});

test('what is lost is more than what is on its way when the copy is in a resynchronisation', async (t) => {
  const resync = { kind: 'dirty', leftBytes: 5, bytesPerS: 1 };
  for (const [change, wanted] of [
    [{ resync }, /it was in a resynchronisation, and goes back to what it was up to 4 s before$/],
    [{ isKnown: false }, /it lacked an amount that was not known, changes of up to 4 s before$/],
    [{ lagBytes: 0, lagMs: 0 }, /it lacked nothing$/],
  ] as const) {
    const w = world(t, '', on('dr1'));
    const lag = { node: 'dr1', state: 'connected', isKnown: true, resync: null, lagBytes: 5 };
    w.others.set('db1', says('PRIM', { distant: [{ ...lag, lagMs: 4000, ...change }] }));
    const mirror = await w.agent();
    await mirror.second();
    await eventually(() => assert.equal(mirror.status().replica?.behind?.primary, 'db1'));
    await assert.rejects(mirror.prim(false), { code: 'HF-MIRROR-026', message: wanted });
  }
});

test('the servers of a mirror follow a distant copy that had to become primary', async (t) => {
  for (const [node, listen] of [
    ['db1', '10.1.0.1:5608'],
    ['db2', '10.1.0.2:5608'],
  ] as const) {
    const w = world(t, '', on(node));
    w.others.set('dr1', says('ALONE'));
    w.others.set(node === 'db1' ? 'db2' : 'db1', says('SECOND'));
    const mirror = await w.agent();
    await assert.rejects(mirror.prim(false), { code: 'HF-MIRROR-007' });
    await mirror.second('fullsync');
    assert.equal(w.engine.opened().get('listen'), listen);
    w.engine.values['peer_node'] = '3';
    w.engine.peer('connected');
    await becomes(mirror, 'SECOND Ready');
    assert.equal(mirror.status().replica?.peer, 'dr1');
  }
});

test('another port at a distant copy is told, and keeps nobody from being primary', async (t) => {
  const w = world(t, '', on('db1'));
  w.others.set('dr1', says('SECOND', { port: 5604 }));
  const mirror = await w.agent();
  await mirror.prim(true);
  assert.equal(shown(mirror), 'ALONE Ready');
  assert.ok(
    w.records.some((text) => /HF-MIRROR-014.*port 5608 here and port 5604 on dr1/.test(text)),
  );
  const far = world(t, '', on('dr1'));
  far.others.set('db1', says('PRIM', { port: 5604 }));
  await assert.rejects((await far.agent()).second(), { code: 'HF-MIRROR-014' });
});

test('a primary begins an epoch above all that the others know', async (t) => {
  const w = world(t, '', on('db1'));
  w.others.set('db2', says('SECOND', { epoch: 4 })).set('dr1', says('SECOND', { epoch: 7 }));
  const mirror = await w.agent();
  await mirror.prim(false);
  assert.equal(w.engine.opened().get('epoch'), '8');
  w.others.set('dr1', says('SECOND', { epoch: 11 }));
  await mirror.prim(true);
  assert.deepEqual(w.engine.requests.at(-1)?.values, [['epoch', '12']]);
});

test('a server that is neither has no part in the mirror', async (t) => {
  const mirror = await world(t, '', on('web')).agent();
  for (const order of [() => mirror.prim(true), () => mirror.second()]) {
    await assert.rejects(order(), { code: 'HF-MIRROR-009' });
  }
});

test('another distant copy needs a stop', async (t) => {
  const w = world(t, '', on('db1'));
  const mirror = await w.agent();
  await mirror.prim(true);
  const { rfs } = w.config;
  assert.ok(rfs !== null);
  const moved = rfs.distant.map((one) => ({ ...one, node: one.node + 1, line: 9 }));
  mirror.setConfig({ ...w.config, rfs: { ...rfs, distant: moved } });
  const fewer = { ...w.config, rfs: { ...rfs, distant: rfs.distant.slice(1) } };
  assert.throws(() => mirror.setConfig(fewer), { code: 'HF-AGENT-006' });
});
