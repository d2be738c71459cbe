/** Rules of the mirror, each a named test. Faults in random order are src/sim's. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ArbiterRecord, mirrorDeadline, type PeerCopy } from '../../src/core/mirror.ts';
import { inOrder, later, mark, Pair, record, runningPair, timing } from './mirror-pair.ts';

/** The secondary's word: it is the primary, of that record. */
function told(pair: Pair, record: ArbiterRecord): void {
  const last = pair.at(1).log.findLast((effect) => effect.kind === 'send');
  assert.ok(last?.kind === 'send' && last.message.kind === 'status');
  const message = { ...last.message, role: 'primary', record } as const;
  pair.event(0, { kind: 'message', message });
}

describe('mirror: the primary loses its peer', () => {
  it('goes on alone only after the swap, durable before the engine is told', () => {
    const pair = runningPair();
    const from = mark(pair, 0);
    pair.pull(1);
    inOrder(pair.effects(0, from), ['arbiterSwap', 'persist', 'announce', 'engine alone']);
    assert.equal(pair.shown(0), 'ALONE Ready');
    const last = pair.at(0).log.findLast(({ kind }) => kind === 'announce');
    assert.ok(last?.kind === 'announce' && last.lease === 'own');
  });

  it('the lease is the peer’s to cut from before the join until after the degrade', () => {
    const pair = runningPair();
    const { log } = pair.at(0);
    const join = log.findLastIndex(({ kind }) => kind === 'arbiterSwap');
    const before = log.slice(0, join).findLast((effect) => effect.kind === 'announce');
    assert.ok(before?.kind === 'announce' && before.lease === 'peer');
    const from = log.length;
    pair.reaches[0] = false;
    pair.pull(1);
    const after = log.slice(from).filter((effect) => effect.kind === 'announce');
    assert.ok(after.every(({ lease }) => lease === 'peer'));
  });

  it('the arbiter is away: it freezes while the lease lives, and ends its service with the lease', () => {
    const pair = runningPair();
    pair.reaches = [false, false];
    pair.pull(1);
    assert.equal(pair.shown(0), 'PRIM Transient');
    assert.ok(!pair.effects(0).includes('engine alone'));
    const from = mark(pair, 0);
    pair.event(0, { kind: 'lease', held: false });
    assert.equal(pair.shown(0), 'WAIT NotReady');
    inOrder(pair.effects(0, from), ['vip shut', 'stop_prim', 'stop_prim force', 'vip off']);
    pair.reaches = [true, true];
    pair.pass(timing.retryMs + timing.graceMs);
    assert.equal(pair.shown(0), 'ALONE Ready');
    assert.equal(record(pair), '3: 0 of 0');
  });

  it('the arbiter is away while both live: service goes on', () => {
    const pair = runningPair();
    pair.reaches = [false, false];
    pair.pass(600_000);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
    assert.match(
      pair
        .at(0)
        .log.map((effect) => (effect.kind === 'record' ? effect.text : ''))
        .join(),
      /the arbiter does not answer/,
    );
  });

  it('isolated: it ends its service, the other takes over, and it follows when it is back', () => {
    const pair = runningPair();
    pair.reaches[0] = false;
    pair.cut();
    pair.event(0, { kind: 'lease', held: false });
    pair.pass(timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
    assert.equal(pair.shown(0), 'WAIT NotReady');
    assert.equal(pair.at(0).vip, 'off');
    pair.reaches[0] = true;
    pair.meet();
    pair.pass(timing.pollMs);
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('one way is cut: who is not heard goes alone before the other claims', () => {
    const pair = runningPair();
    const { nowMs: heardMs } = pair;
    pair.event(0, { kind: 'peer', reach: 'heard', boot: 'boot1', hung: false, heardMs });
    assert.equal(record(pair), '3: 0 of 0');
  });

  it('loses the race for the epoch: gives way and stops its application', () => {
    const pair = runningPair();
    pair.register = later(pair, 3);
    const from = mark(pair, 0);
    pair.pull(1);
    assert.equal(pair.shown(0), 'WAIT NotReady');
    const effects = pair.effects(0, from);
    inOrder(effects, ['arbiterSwap', 'announce', 'vip shut', 'stop_prim force', 'vip off']);
    // What the application syncs is never acknowledged: it would not end in order.
    assert.ok(!effects.includes('stop_prim') && !effects.includes('engine alone'));
  });

  it('a later epoch cuts the stop of one that is stopping in order short', () => {
    const pair = runningPair();
    pair.at(0).hanging.add('stop_prim');
    pair.order(0, 'stopstart');
    assert.ok(pair.effects(0).includes('stop_prim'));
    pair.at(0).hanging.clear();
    const from = mark(pair, 0);
    told(pair, later(pair, 9));
    pair.event(0, { kind: 'scriptDone', ok: false, why: 'cut short' });
    inOrder(pair.effects(0, from), ['cancel', 'stop_prim force', 'vip off']);
  });

  it('a word of a later epoch is enough to give way', () => {
    const pair = runningPair();
    pair.cut();
    told(pair, later(pair, 9));
    assert.ok(!/PRIM|ALONE/.test(pair.shown(0)));
    assert.ok(pair.effects(0).includes('stop_prim force'));
  });

  it('a join that may still land counts: the lease stays the peer’s, and a new epoch ends it', () => {
    const pair = runningPair();
    pair.pull(1);
    pair.boot(1);
    pair.order(1, 'start');
    pair.deaf[0] = true;
    pair.meet();
    assert.equal(record(pair), '4: 0 of 0+1');
    const announced = () => {
      const last = pair.at(0).log.findLast(({ kind }) => kind === 'announce');
      return last?.kind === 'announce' ? last.lease : '';
    };
    assert.equal(announced(), 'peer');
    pair.pull(1);
    pair.deaf[0] = false;
    pair.pass(2 * timing.retryMs);
    assert.equal(record(pair), '5: 0 of 0');
    assert.equal(announced(), 'own');
  });

  it('a connection that is lost and back before the join: a new epoch, and a new resync', () => {
    const pair = runningPair();
    pair.pull(1);
    pair.slow = true;
    pair.boot(1);
    pair.order(1, 'start');
    pair.meet();
    pair.reaches[0] = false;
    pair.slow = false;
    pair.finishResync();
    assert.equal(record(pair), '3: 0 of 0');
    for (const peer of ['lost', 'connected'] as const) pair.event(0, { kind: 'enginePeer', peer });
    pair.reaches[0] = true;
    pair.pass(timing.pollMs);
    assert.equal(record(pair), '5: 0 of 0+1');
  });

  for (const how of ['is lost', 'is lost and back'] as const) {
    it(`a peer that ${how} when its resync had ended, and did not say so: a new epoch`, () => {
      const pair = runningPair();
      pair.pull(1);
      pair.slow = true;
      pair.boot(1);
      pair.order(1, 'start');
      pair.meet();
      const primary = pair.at(0);
      const { permit } = primary;
      const says = (copy: PeerCopy): void => {
        pair.event(0, { kind: 'peerCopy', copy, epoch: permit, alone: false });
      };
      // The engine waits for it from here on.
      primary.alone = false;
      says('caughtUp');
      assert.equal(record(pair), `${permit}: 0 of 0`);
      says(how === 'is lost' ? 'none' : 'resync');
      assert.equal(record(pair), `${permit + 1}: 0 of 0`);
      assert.equal(primary.alone, true);
    });
  }

  it('a named peer that needs a resync: nothing waits for its end', () => {
    const pair = runningPair();
    pair.slow = true;
    pair.event(0, { kind: 'peerCopy', copy: 'resync', epoch: 1, alone: false });
    assert.equal(record(pair), '3: 0 of 0');
    pair.finishResync();
    assert.equal(record(pair), '4: 0 of 0+1');
  });

  it('a join and a degrade of one epoch, both without an answer: both count until the register says', () => {
    const pair = runningPair();
    pair.pull(1);
    pair.boot(1);
    pair.order(1, 'start');
    pair.deaf[0] = true;
    pair.meet();
    pair.pull(1);
    pair.pass(timing.retryMs);
    assert.equal(record(pair), '4: 0 of 0+1');
    assert.equal(pair.at(0).state.unsure.length, 2);
    const last = pair.at(0).log.findLast(({ kind }) => kind === 'announce');
    assert.ok(last?.kind === 'announce' && last.lease === 'peer');
    pair.deaf[0] = false;
    pair.pass(2 * timing.retryMs);
    assert.equal(record(pair), '5: 0 of 0');
    assert.deepEqual(pair.at(0).state.unsure, []);
  });

  it('what the engine said before it was told `alone` does not let the peer in', () => {
    const pair = runningPair();
    pair.pull(1);
    pair.boot(1);
    pair.slow = true;
    pair.order(1, 'start');
    pair.meet();
    const before = record(pair);
    pair.event(0, { kind: 'peerCopy', copy: 'inSync', epoch: 1, alone: false });
    assert.equal(record(pair), before);
    pair.finishResync();
    assert.equal(record(pair), '4: 0 of 0+1');
  });

  it('a stop that was ordered is not made less by giving way', () => {
    const one = new Pair();
    one.at(0).hanging.add('start_prim');
    one.order(0, 'prim');
    one.order(0, 'stop');
    one.event(0, { kind: 'hold', why: 'intf is down' });
    one.event(0, { kind: 'scriptDone', ok: true, why: '' });
    assert.equal(one.shown(0), 'STOP NotReady');
  });

  it('goes on alone also while its application is being stopped', () => {
    const pair = runningPair();
    pair.at(0).hanging.add('stop_prim');
    pair.order(0, 'swap');
    pair.pull(1);
    assert.equal(record(pair), '3: 0 of 0');
    assert.ok(pair.effects(0).includes('engine alone'));
  });
});

describe('mirror: what does not fit', () => {
  const olderRegister = (pair: Pair) => {
    const [old] = pair.at(0).log.flatMap((e) => (e.kind === 'arbiterSwap' ? [e.to] : []));
    return old ?? null;
  };

  it('a register that was rolled back changes nothing', () => {
    const pair = runningPair();
    pair.pull(0);
    pair.pull(1);
    pair.register = olderRegister(pair);
    for (const id of [0, 1]) {
      pair.boot(id);
      pair.order(id, 'start');
    }
    pair.meet();
    pair.pass(60_000);
    assert.equal(pair.both, 'WAIT NotReady, WAIT NotReady');
    assert.match(pair.refusals(0).join(), /older than what this server knows: epoch 1 of 2/);
  });

  it('an empty register is no first start for a server that knows better', () => {
    const pair = runningPair();
    pair.pull(0);
    pair.pull(1);
    pair.register = null;
    pair.boot(1);
    pair.order(1, 'prim');
    pair.pass(60_000);
    assert.equal(pair.shown(1), 'WAIT NotReady');
    pair.order(1, 'primforce');
    pair.pass(timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
    assert.deepEqual(pair.at(1).durable.record, pair.at(1).state.durable.record);
    assert.equal(pair.at(1).durable.record?.incarnation, 2);
    assert.equal(pair.at(1).durable.record?.epoch, 3);
  });

  it('a register that was lost is made anew while both live, once the peer promised to take no other', () => {
    const pair = runningPair();
    const old = pair.register;
    pair.register = null;
    pair.pass(timing.lookMs + 2 * timing.pollMs);
    assert.equal(pair.register === null, false);
    assert.equal(record(pair), '3: 0 of 0+1');
    assert.equal(pair.at(0).durable.record?.incarnation, 2);
    assert.equal(pair.at(1).durable.incarnation, 2);
    const { log } = pair.at(1);
    const kept = log.findIndex((e) => e.kind === 'persist' && e.durable.incarnation === 2);
    const told = log.findIndex(
      (e) => e.kind === 'send' && e.message.kind === 'status' && e.message.incarnation === 2,
    );
    assert.ok(kept >= 0 && kept < told);
    // The former one turns up again: nobody goes by it.
    pair.register = old;
    pair.pull(0);
    pair.pass(60_000);
    assert.equal(pair.shown(1), 'SECOND NotReady');
    assert.equal(record(pair), '2: 0 of 0+1');
  });

  it('who promised to go by the new register, and has not seen it, claims nothing in the former one', () => {
    const pair = runningPair();
    const former = pair.register;
    assert.ok(former !== null);
    const { state } = pair.at(1);
    pair.at(1).state = { ...state, durable: { ...state.durable, incarnation: 2 } };
    pair.pull(0);
    pair.pass(60_000);
    assert.deepEqual(pair.register, former);
    assert.equal(pair.shown(1), 'SECOND NotReady');
    assert.match(pair.at(1).state.arbiterBad ?? '', /an abandoned one \(1 of 2\)/);
    pair.register = { ...former, incarnation: 2, epoch: former.epoch + 1 };
    pair.pass(60_000);
    assert.equal(record(pair), '4: 1 of 1');
    assert.equal(pair.shown(1), 'ALONE Ready');
  });

  it('a register that was lost with a swap whose outcome is not known is made anew too', () => {
    const pair = runningPair();
    pair.deaf[0] = true;
    pair.event(0, { kind: 'enginePeer', peer: 'lost' });
    assert.equal(record(pair), '3: 0 of 0');
    pair.register = null;
    pair.deaf[0] = false;
    pair.event(0, { kind: 'enginePeer', peer: 'connected' });
    pair.pass(2 * timing.lookMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
    assert.equal(pair.at(0).durable.record?.incarnation, 2);
    assert.deepEqual(pair.at(0).state.unsure, []);
  });

  it('a register that was lost while the peer is away: it stays so, unless the primary is alone', () => {
    const pair = runningPair();
    pair.register = null;
    pair.pull(1);
    pair.pass(60_000);
    assert.equal(pair.register, null);
    const alone = runningPair();
    alone.pull(1);
    alone.register = null;
    alone.pass(timing.lookMs + 2 * timing.pollMs);
    assert.equal(record(alone), '4: 0 of 0');
  });

  it('an answer that a later epoch has overtaken says nothing of the register', () => {
    const pair = new Pair();
    pair.order(1, 'start');
    const { state } = pair.at(1);
    const asked = { id: 99, what: 'read', from: null, to: null } as const;
    pair.at(1).state = { ...state, asked, timers: {} };
    pair.order(0, 'prim');
    const old = { ...later(pair, 1), epoch: 0 };
    pair.event(1, { kind: 'arbiter', id: 99, answer: { outcome: 'record', record: old } });
    assert.equal(pair.at(1).state.arbiterBad, null);
  });

  it('an answer to another question is none', () => {
    const pair = runningPair();
    const from = mark(pair, 0);
    const { durable, phase } = pair.at(0).state;
    pair.event(0, { kind: 'arbiter', id: 1, answer: { outcome: 'lost', record: null } });
    assert.deepEqual(pair.effects(0, from), []);
    assert.deepEqual([pair.at(0).state.durable, pair.at(0).state.phase], [durable, phase]);
  });

  it('a disk that keeps nothing: it serves under no epoch, and follows none', () => {
    const pair = runningPair();
    pair.at(1).full = true;
    pair.pull(0);
    pair.pass(60_000);
    assert.equal(pair.shown(1), 'WAIT NotReady');
    assert.equal(pair.at(1).durable.promised, 2);
    assert.ok(!pair.effects(1).includes('engine prim'));
    pair.at(1).full = false;
    pair.order(1, 'start');
    pair.pass(timing.askMs + timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
    assert.deepEqual(pair.at(1).durable, pair.at(1).state.durable);
  });

  it('what the disk did not take is written again, also when it has not changed', () => {
    const pair = runningPair();
    pair.order(1, 'stop');
    pair.at(1).durable = { ...pair.at(1).durable, promised: 0 };
    pair.event(1, { kind: 'persistFailed', why: 'ENOSPC' });
    pair.order(1, 'start');
    assert.deepEqual(pair.at(1).durable, pair.at(1).state.durable);
  });

  it('an agent that is started again goes on where the former one was', () => {
    const pair = runningPair();
    const { state } = pair.at(0);
    const copy = JSON.parse(JSON.stringify(state)) as typeof state;
    pair.boot(0);
    const from = mark(pair, 0);
    pair.event(0, { kind: 'adopt', state: copy, lapsed: false });
    pair.meet();
    pair.pass(timing.statusMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
    const effects = pair.effects(0, from);
    assert.ok(effects.includes('vip open') && !effects.some((e) => e.startsWith('start_')));
    assert.equal(record(pair), '2: 0 of 0+1');
  });

  it('an agent that is started again writes first what the former one may not have written', () => {
    const pair = runningPair();
    const { state } = pair.at(1);
    pair.at(1).durable = { ...pair.at(1).durable, promised: 0 };
    pair.boot(1);
    const from = mark(pair, 1);
    pair.event(1, { kind: 'adopt', state, lapsed: false });
    assert.equal(pair.effects(1, from)[0], 'persist');
    assert.equal(pair.at(1).durable.promised, 2);
  });

  it('an agent that is started again in the middle of a swap asks what became of it', () => {
    const pair = runningPair();
    pair.deaf[1] = true;
    pair.pull(0);
    pair.pass(timing.headStartMs);
    const copy = { ...pair.at(1).state };
    pair.boot(1);
    pair.deaf[1] = false;
    pair.event(1, { kind: 'adopt', state: copy, lapsed: false });
    pair.hush();
    pair.pass(timing.retryMs + timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
    assert.equal(record(pair), '3: 1 of 1');
  });

  it('an agent and its heartbeats start again: the grace counts from then', () => {
    const pair = runningPair();
    pair.at(0).up = false;
    const { state } = pair.at(1);
    pair.boot(1);
    const atMs = pair.nowMs;
    pair.event(1, { kind: 'adopt', state, lapsed: false });
    pair.pass(timing.suspectMs);
    pair.event(1, { kind: 'peer', reach: 'silent', boot: '', hung: false, heardMs: -1 });
    pair.pass(atMs + timing.graceMs - pair.nowMs - 1);
    assert.equal(record(pair), '3: 1 of 1');
    assert.equal(pair.at(1).vip, 'off');
    pair.pass(1);
    assert.equal(pair.at(1).vip, 'open');
  });

  it('a mirror without data: the same protocol, without a copy', () => {
    const pair = runningPair({ hasData: false });
    pair.pass(timing.statusMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
    pair.pull(0);
    pair.pass(timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
  });

  it('at rest it wants no tick sooner than the next status', () => {
    const pair = runningPair();
    const { state } = pair.at(0);
    assert.ok((mirrorDeadline(state) ?? 0) > state.nowMs);
    pair.order(0, 'stop');
    pair.order(1, 'stop');
    assert.equal(mirrorDeadline(pair.at(0).state), null);
  });
});
