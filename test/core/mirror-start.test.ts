/** Rules of the mirror, each a named test. Faults in random order are src/sim's. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inOrder, mark, Pair, record, runningPair, timing } from './mirror-pair.ts';

describe('mirror: start', () => {
  it('nobody was ever primary: both wait and say what to order', () => {
    const pair = new Pair();
    pair.order(0, 'start');
    pair.order(1, 'start');
    pair.pass(60_000);
    assert.equal(pair.both, 'WAIT NotReady, WAIT NotReady');
    assert.match(pair.refusals(0).join(), /nobody was primary yet; run `prim`/);
    assert.equal(pair.register, null);
  });

  it('prim makes the first record, the other follows and is named when it has everything', () => {
    const pair = runningPair();
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
    assert.equal(record(pair), '2: 0 of 0+1');
  });

  it('both first: they ask, and the former primary goes first', () => {
    const pair = runningPair();
    pair.pull(0);
    pair.pull(1);
    pair.boot(1);
    pair.boot(0);
    pair.order(1, 'start');
    pair.order(0, 'start');
    pair.meet();
    pair.pass(2 * timing.graceMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
  });

  it('one of two that were in sync goes alone when the other does not answer', () => {
    const pair = runningPair();
    pair.pull(0);
    pair.pull(1);
    pair.boot(1);
    pair.order(1, 'start');
    assert.equal(pair.shown(1), 'WAIT Transient');
    pair.pass(timing.askMs - 1);
    assert.equal(pair.shown(1), 'WAIT Transient');
    pair.pass(1 + timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
  });

  it('the stale one never goes alone; it says for whom it waits', () => {
    const pair = runningPair();
    pair.pull(1);
    assert.equal(record(pair), '3: 0 of 0');
    pair.pull(0);
    pair.boot(1);
    pair.order(1, 'start');
    pair.pass(3_600_000);
    assert.equal(pair.shown(1), 'WAIT NotReady');
    assert.deepEqual(pair.refusals(1), [
      'waits for node1, which has the up-to-date data (epoch 3)',
    ]);
    pair.boot(0);
    pair.order(0, 'start');
    pair.meet();
    pair.pass(timing.graceMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
  });

  it('a primary whose heartbeats are silent is not followed, whatever its word says', () => {
    const pair = runningPair();
    pair.order(1, 'failoverOff');
    const { status } = pair.at(1).state.peer;
    assert.ok(status?.role === 'primary');
    pair.cut();
    const from = mark(pair, 1);
    pair.event(1, { kind: 'message', message: status });
    assert.equal(pair.shown(1), 'WAIT NotReady');
    assert.ok(!pair.effects(1, from).includes('engine second'));
    pair.meet();
    assert.equal(pair.shown(1).split(' ')[0], 'SECOND');
  });

  it('who was primary is not primary from memory: it swaps the epoch again', () => {
    const pair = runningPair();
    pair.pull(1);
    pair.pull(0);
    pair.boot(0);
    const from = mark(pair, 0);
    pair.reaches[0] = false;
    pair.order(0, 'start');
    pair.pass(60_000);
    assert.equal(pair.shown(0), 'WAIT NotReady');
    assert.ok(!pair.effects(0, from).includes('engine prim'));
    pair.reaches[0] = true;
    pair.pass(timing.retryMs + timing.graceMs);
    assert.equal(pair.shown(0), 'ALONE Ready');
    assert.equal(record(pair), '4: 0 of 0');
  });

  it('second waits for a primary and never goes first', () => {
    const pair = runningPair();
    pair.order(0, 'stop');
    pair.order(1, 'stop');
    pair.order(1, 'second');
    pair.pass(60_000);
    assert.equal(pair.shown(1), 'WAIT NotReady');
    assert.match(pair.refusals(1).join(), /waits for node1 to be primary/);
    assert.equal(record(pair), '3: 1 of 1');
  });

  it('a blank server that the record names does not claim', () => {
    const pair = runningPair();
    pair.pull(0);
    pair.pull(1);
    pair.at(1).copy = 'none';
    pair.boot(1);
    pair.order(1, 'start');
    pair.pass(60_000);
    assert.equal(pair.shown(1), 'WAIT NotReady');
    assert.match(pair.refusals(1).join(), /this server has no copy/);
  });

  it('the promised epoch is durable before the engine opens under it', () => {
    const pair = runningPair();
    for (const id of [0, 1]) {
      const { log } = pair.at(id);
      const opened = log.findIndex(({ kind }) => kind === 'engine');
      const kept = log.findIndex((e) => e.kind === 'persist' && e.durable.promised === 1);
      assert.ok(kept >= 0 && kept < opened);
    }
  });
});

describe('mirror: takeover', () => {
  it('after suspicion, head start and grace, in this order', () => {
    const pair = runningPair();
    const from = mark(pair, 1);
    pair.pull(0);
    pair.pass(timing.headStartMs - 1);
    assert.equal(record(pair), '2: 0 of 0+1');
    pair.pass(1);
    assert.equal(record(pair), '3: 1 of 1');
    const lastHeardMs = pair.nowMs - timing.suspectMs - timing.headStartMs;
    pair.pass(lastHeardMs + timing.graceMs - pair.nowMs - 1);
    assert.ok(!pair.effects(1, from).includes('start_prim'));
    pair.pass(1);
    assert.equal(pair.shown(1), 'ALONE Ready');
    inOrder(pair.effects(1, from), [
      'announce',
      'arbiterSwap',
      'persist',
      'stop_second',
      'stop_second force',
      'vip probe',
      'engine prim',
      'vip on',
      'start_prim',
      'announce',
      'vip open',
    ]);
  });

  it('consent to the old lease is withdrawn before the claim is asked', () => {
    const pair = runningPair();
    const from = mark(pair, 1);
    pair.pull(0);
    pair.pass(timing.headStartMs);
    const log = pair.at(1).log.slice(from);
    const swap = log.findIndex(({ kind }) => kind === 'arbiterSwap');
    const last = log.slice(0, swap).findLast((effect) => effect.kind === 'announce');
    assert.ok(last?.kind === 'announce' && !last.consent);
  });

  it('an old primary that is heard again during the grace: it counts from the withdrawn consent', () => {
    const pair = runningPair();
    pair.at(0).up = false;
    pair.hush();
    pair.pass(timing.headStartMs);
    const dissentMs = pair.nowMs;
    assert.equal(record(pair), '3: 1 of 1');
    const { nowMs: heardMs } = pair;
    pair.event(1, { kind: 'peer', reach: 'heard', boot: 'boot0', hung: false, heardMs });
    pair.pass(dissentMs + timing.graceMs - pair.nowMs - 1);
    assert.equal(pair.at(1).vip, 'off');
    pair.pass(1);
    assert.equal(pair.at(1).vip, 'open');
  });

  it('a grace is waited out whatever the new primary becomes meanwhile', () => {
    const pair = runningPair();
    pair.at(0).up = false;
    const lastHeardMs = pair.nowMs;
    pair.hush();
    pair.pass(timing.headStartMs);
    assert.equal(record(pair), '3: 1 of 1');
    pair.order(1, 'stopstart');
    assert.equal(record(pair), '4: 1 of 1');
    pair.pass(lastHeardMs + timing.graceMs - pair.nowMs - 1);
    assert.equal(pair.at(1).vip, 'off');
    pair.pass(1);
    assert.equal(pair.at(1).vip, 'open');
  });

  it('who holds the newest epoch consents to nobody', () => {
    const pair = runningPair();
    pair.pull(0);
    pair.pass(timing.graceMs);
    const from = mark(pair, 1);
    pair.order(1, 'stopstart');
    const said = pair.at(1).log.slice(from);
    assert.ok(said.every((effect) => effect.kind !== 'announce' || !effect.consent));
  });

  it('no takeover by a copy that the record does not name, and it says so', () => {
    const pair = runningPair();
    pair.cut();
    assert.equal(record(pair), '3: 0 of 0');
    pair.pass(timing.headStartMs);
    pair.at(0).up = false;
    pair.pass(60_000);
    assert.equal(pair.shown(1), 'SECOND NotReady');
    assert.match(pair.refusals(1).join(), /waits for node1, which has the up-to-date data/);
    assert.equal(record(pair), '3: 0 of 0');
  });

  it('no takeover in the middle of a resync', () => {
    const pair = runningPair();
    pair.pull(1);
    pair.slow = true;
    pair.boot(1);
    pair.order(1, 'start');
    pair.meet();
    pair.pass(100);
    assert.equal(pair.both, 'ALONE Ready, SECOND Transient');
    pair.pull(0);
    pair.pass(60_000);
    assert.equal(pair.shown(1), 'SECOND NotReady');
    assert.match(pair.refusals(1).join(), /it is inconsistent/);
  });

  it('a mere cut: the primary wins by its head start, and nothing moves', () => {
    const pair = runningPair();
    const from = mark(pair, 0);
    pair.cut();
    pair.pass(60_000);
    assert.equal(pair.both, 'ALONE Ready, SECOND NotReady');
    assert.ok(!pair.effects(0, from).some((effect) => effect.startsWith('stop_')));
    pair.meet();
    pair.pass(timing.pollMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
  });

  it('a veto (ping) forbids the claim, and is no authority for anything', () => {
    const pair = runningPair();
    pair.event(1, { kind: 'veto', why: 'the router does not answer' });
    pair.pull(0);
    pair.pass(60_000);
    assert.equal(record(pair), '2: 0 of 0+1');
    assert.match(pair.refusals(1).join(), /because the router does not answer/);
    pair.event(1, { kind: 'veto', why: null });
    pair.pass(timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
  });

  it('an arbiter that cannot be reached: frozen, then taken over when it answers', () => {
    const pair = runningPair();
    pair.reaches = [false, false];
    pair.pull(0);
    pair.pass(60_000);
    assert.equal(pair.shown(1), 'SECOND NotReady');
    pair.reaches = [true, true];
    pair.pass(timing.retryMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
  });

  it('an answer that is lost: it learns from the register that it won', () => {
    const pair = runningPair();
    pair.deaf[1] = true;
    pair.pull(0);
    pair.pass(timing.headStartMs);
    assert.equal(record(pair), '3: 1 of 1');
    assert.equal(pair.shown(1), 'SECOND NotReady');
    pair.deaf[1] = false;
    pair.pass(timing.retryMs + timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
    assert.equal(record(pair), '3: 1 of 1');
  });

  it('a primary whose agent hangs is taken over although its heartbeats go on', () => {
    const pair = runningPair();
    pair.at(0).up = false;
    pair.event(1, { kind: 'peer', reach: 'both', boot: 'boot0', hung: true, heardMs: pair.nowMs });
    const atMs = pair.nowMs;
    pair.pass(timing.headStartMs);
    assert.equal(record(pair), '3: 1 of 1');
    // The grace counts from the withdrawn consent, not from heartbeats that go on.
    const left = timing.graceMs - 1;
    pair.pass(left);
    assert.notEqual(pair.at(1).vip, 'open');
    pair.pass(1);
    assert.equal(pair.at(1).vip, 'open');
    assert.ok(pair.nowMs - atMs === timing.headStartMs + timing.graceMs);
  });

  it('the old primary comes back as secondary of the new one', () => {
    const pair = runningPair();
    pair.pull(0);
    pair.pass(timing.graceMs);
    pair.boot(0);
    pair.order(0, 'start');
    pair.meet();
    pair.pass(timing.pollMs);
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
    assert.equal(record(pair), '4: 1 of 0+1');
  });
});
