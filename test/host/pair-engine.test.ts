/** What the engine's status says of the peer, as the core of a mirror that decides hears it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MirrorRecord } from '../../src/host/mirror-state.ts';
import { type EngineNews, PairEngine } from '../../src/host/pair-engine.ts';
import { moduleDirs } from '../../src/module/name.ts';
import { eventually, world } from './mirror-world.ts';

test('a peer that is connected, and acknowledges nothing that is waited for, is lost', async (t) => {
  const w = world(t);
  const { rfs } = w.config;
  assert.ok(rfs !== null);
  const config = { ...w.config, rfs: { ...rfs, sendTimeoutMs: 50 } };
  const record = await MirrorRecord.open(moduleDirs(w.paths, 'db').state, () => undefined);
  const heard: EngineNews[] = [];
  const engine = new PairEngine(() => config, record, w.ports(), 1, {
    news: (event) => heard.push(event),
    changed: () => undefined,
  });
  t.after(() => engine.abandon());
  const peers = () => heard.flatMap((event) => (event.kind === 'enginePeer' ? [event.peer] : []));
  const says = (values: Readonly<Record<string, string>>): void => {
    w.engine.values = { ...w.engine.values, peer: 'connected', peer_node: '1', ...values };
    w.engine.event('looked');
  };
  engine.order(1, { what: 'prim', epoch: 1, force: false });
  await eventually(() => assert.ok(heard.some(({ kind }) => kind === 'engineDone')));
  says({ waiters: '0', durable: '5' });
  await eventually(() => assert.equal(peers().at(-1), 'connected'));
  says({ waiters: '1', durable: '5' });
  await eventually(() => assert.equal(peers().at(-1), 'lost'));
  says({ waiters: '1', durable: '6' });
  await eventually(() => assert.equal(peers().at(-1), 'connected'));
});
