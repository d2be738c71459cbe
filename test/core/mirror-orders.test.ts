/** Rules of the mirror, each a named test. Faults in random order are src/sim's. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mirrorWhy } from '../../src/core/mirror.ts';
import { inOrder, mark, Pair, record, runningPair, timing } from './mirror-pair.ts';

describe('mirror: orders', () => {
  it('an announced stop of the primary is not waited for', () => {
    const pair = runningPair();
    const atMs = pair.nowMs;
    pair.order(0, 'stop');
    assert.equal(pair.both, 'STOP NotReady, ALONE Ready');
    assert.equal(pair.nowMs, atMs);
  });

  it('an announced stop of the secondary: the primary is alone before it goes', () => {
    const pair = runningPair();
    pair.at(1).hanging.add('stop_second');
    pair.order(1, 'stop');
    assert.equal(record(pair), '3: 0 of 0');
    assert.ok(pair.effects(0).includes('engine alone'));
    assert.ok(!pair.effects(1).includes('engine close'));
    pair.event(1, { kind: 'scriptDone', ok: true, why: '' });
    pair.at(1).hanging.clear();
    pair.event(1, { kind: 'scriptDone', ok: true, why: '' });
    assert.equal(pair.both, 'ALONE Ready, STOP NotReady');
  });

  it('a secondary that gets no leave goes after leaveMs', () => {
    const pair = runningPair();
    pair.reaches = [false, false];
    pair.order(1, 'stop');
    assert.equal(pair.shown(1), 'SECOND Ready');
    pair.pass(timing.leaveMs);
    assert.equal(pair.shown(1), 'STOP NotReady');
  });

  it('swap: roles change without a grace, and the former primary is brought back in sync', () => {
    const pair = runningPair();
    const atMs = pair.nowMs;
    const from = mark(pair, 0);
    pair.order(0, 'swap');
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
    assert.equal(pair.nowMs, atMs);
    inOrder(pair.effects(0, from), ['vip shut', 'stop_prim', 'stop_prim force', 'engine close']);
  });

  it('swap ordered at the secondary is the primary’s to carry out', () => {
    const pair = runningPair();
    pair.order(1, 'swap');
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('swap nosync: the former primary keeps its copy as it is, until it is started', () => {
    const pair = runningPair();
    pair.order(0, 'swapNosync');
    pair.pass(600_000);
    assert.equal(pair.both, 'WAIT NotReady, ALONE Ready');
    pair.order(0, 'start');
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('swap is refused without a secondary that has everything', () => {
    const pair = runningPair();
    pair.pull(1);
    pair.order(0, 'swap');
    assert.match(pair.refusals(0).join(), /not carrying out swap: node2 is not in reach/);
    pair.slow = true;
    pair.boot(1);
    pair.order(1, 'start');
    pair.meet();
    pair.order(0, 'swap');
    assert.match(pair.refusals(0).join(), /the copy of node2 is not up to date/);
    assert.equal(pair.shown(0), 'ALONE Ready');
  });

  it('a swap that nobody takes up is taken back', () => {
    const pair = runningPair();
    pair.reaches[1] = false;
    pair.order(0, 'swap');
    assert.equal(pair.shown(0), 'WAIT Transient');
    pair.pass(timing.handOverMs + timing.pollMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
  });

  it('failover off: the secondary waits, and only prim makes it primary', () => {
    const pair = runningPair();
    pair.order(1, 'failoverOff');
    pair.pull(0);
    pair.pass(600_000);
    assert.equal(pair.shown(1), 'WAIT NotReady');
    assert.match(pair.refusals(1).join(), /because failover is off/);
    pair.order(1, 'prim');
    pair.pass(timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
  });

  it('failover off outlives a restart', () => {
    const pair = runningPair();
    pair.order(1, 'failoverOff');
    pair.boot(1);
    assert.equal(pair.at(1).state.durable.failover, false);
  });

  it('failover off does not forbid an ordered swap', () => {
    const pair = runningPair();
    pair.order(1, 'failoverOff');
    pair.order(0, 'swap');
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('prim with an old copy is refused, primforce gives up what the other has', () => {
    const pair = runningPair();
    pair.pull(1);
    pair.pull(0);
    pair.boot(1);
    pair.order(1, 'prim');
    pair.pass(timing.pollMs);
    assert.equal(pair.shown(1), 'WAIT NotReady');
    assert.match(pair.refusals(1).join(), /`primforce` would give up what only the other has/);
    pair.order(1, 'primforce');
    pair.pass(timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
    assert.equal(record(pair), '4: 1 of 1');
  });

  it('primforce beside a living primary is refused', () => {
    const pair = runningPair();
    pair.order(1, 'stop');
    pair.order(1, 'primforce');
    pair.pass(timing.pollMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
    assert.match(pair.refusals(1).join(), /not becoming primary: node1 is ALONE/);
  });

  it('prim and primforce of a secondary whose primary is lost and has more', () => {
    const pair = runningPair();
    pair.cut();
    pair.pass(timing.headStartMs);
    pair.at(0).up = false;
    pair.order(1, 'primforce');
    pair.pass(timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
  });

  it('defaultprim: once both are in sync, service goes to the named server, once', () => {
    const pair = runningPair({ defaultPrim: { node: 1 } });
    pair.pass(timing.statusMs);
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
    const epoch = pair.register?.epoch;
    pair.pass(600_000);
    assert.equal(pair.register?.epoch, epoch);
  });

  it('defaultprim lastprim: service returns to the server that it failed over from', () => {
    const pair = runningPair({ defaultPrim: 'lastprim' });
    pair.pull(0);
    pair.pass(timing.graceMs);
    pair.boot(0);
    pair.order(0, 'start');
    pair.meet();
    pair.pass(2 * timing.statusMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
    const epoch = pair.register?.epoch;
    pair.pass(600_000);
    assert.equal(pair.register?.epoch, epoch);
  });

  it('defaultprim lastprim: an ordered swap makes the other one the home', () => {
    const pair = runningPair({ defaultPrim: 'lastprim' });
    pair.order(0, 'swap');
    pair.pass(600_000);
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('restart runs the scripts alone, with the address shut', () => {
    const pair = runningPair();
    const from = mark(pair, 0);
    pair.order(0, 'restart');
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
    const effects = pair.effects(0, from);
    inOrder(effects, ['vip shut', 'stop_prim', 'stop_prim force', 'start_prim', 'vip open']);
    assert.ok(!effects.some((effect) => effect.startsWith('engine')));
    assert.equal(record(pair), '2: 0 of 0+1');
  });

  it('forcestop cuts what runs and stops with force only', () => {
    const pair = runningPair();
    const from = mark(pair, 0);
    pair.order(0, 'forcestop');
    assert.ok(!pair.effects(0, from).includes('stop_prim'));
    assert.ok(pair.effects(0, from).includes('stop_prim force'));
    assert.equal(pair.shown(0), 'STOP NotReady');
  });

  it('stop while start_prim runs waits for its end', () => {
    const pair = new Pair();
    pair.at(0).hanging.add('start_prim');
    pair.order(0, 'prim');
    pair.order(0, 'stop');
    assert.equal(pair.shown(0), 'ALONE Transient');
    pair.event(0, { kind: 'scriptDone', ok: true, why: '' });
    assert.equal(pair.shown(0), 'STOP NotReady');
  });
});

describe('mirror: why', () => {
  const why = (pair: Pair, id: number) => mirrorWhy(pair.at(id).state).join('; ');

  it('says nothing where all is well', () => {
    const pair = runningPair();
    assert.deepEqual(mirrorWhy(pair.at(0).state), []);
    assert.deepEqual(mirrorWhy(pair.at(1).state), []);
  });

  it('says what waits, for whom, and what would not be survived', () => {
    const pair = runningPair();
    pair.reaches = [false, false];
    pair.pass(2 * timing.lookMs);
    assert.match(why(pair, 0), /arbiter does not answer.*service goes on, but no failure would be/);
    pair.pull(1);
    assert.match(why(pair, 0), /synced writes wait for node2/);
    pair.event(0, { kind: 'lease', held: false });
    assert.match(why(pair, 0), /waits for the arbiter: timed out/);
  });

  it('says why it does not take over', () => {
    const pair = runningPair();
    pair.order(1, 'failoverOff');
    assert.match(why(pair, 1), /failover is off/);
    pair.cut();
    pair.pass(timing.headStartMs);
    assert.match(why(pair, 1), /Failover-off configured/);
  });
});

describe('mirror: the application', () => {
  it('the address opens when it answers, and is shut while it does not', () => {
    const pair = new Pair({ hasHealth: true, healthAction: 'noaction' });
    pair.health = false;
    pair.order(0, 'prim');
    assert.equal(pair.shown(0), 'ALONE Transient');
    assert.equal(pair.at(0).vip, 'on');
    pair.event(0, { kind: 'health', up: true, why: '' });
    assert.equal(pair.at(0).vip, 'open');
    pair.event(0, { kind: 'health', up: false, why: 'refused' });
    assert.equal(pair.at(0).vip, 'shut');
  });

  it('one that does not answer in time after its start is started again, and again, until maxloop', () => {
    const startMs = 5000;
    const pair = new Pair({ hasHealth: true, healthAction: 'restart', startMs, maxloop: 2 });
    const starts = () => pair.effects(0).filter((effect) => effect === 'start_prim').length;
    pair.health = false;
    pair.order(0, 'prim');
    pair.pass(startMs - 1);
    assert.equal(starts(), 1);
    pair.pass(1);
    assert.equal(starts(), 2);
    assert.match(pair.at(0).state.why.join(), /does not answer: it was started 5 s ago/);
    pair.pass(startMs);
    assert.equal(starts(), 3);
    assert.equal(pair.shown(0), 'ALONE Transient');
    pair.pass(startMs);
    assert.equal(pair.shown(0), 'STOP NotReady');
    assert.match(pair.at(0).state.why.join(), /Action stop called by maxloop/);
  });

  it('the time to start ends with the first answer', () => {
    const pair = new Pair({ hasHealth: true, healthAction: 'noaction', startMs: 5000 });
    pair.health = false;
    pair.order(0, 'prim');
    pair.pass(4000);
    pair.event(0, { kind: 'health', up: true, why: '' });
    assert.equal(pair.shown(0), 'ALONE Ready');
    pair.event(0, { kind: 'health', up: false, why: 'refused' });
    pair.pass(60_000);
    assert.deepEqual(pair.at(0).state.why, ['the application does not answer: refused']);
  });

  it('without a limit it is waited for', () => {
    const pair = new Pair({ hasHealth: true, healthAction: 'restart', startMs: 0 });
    pair.health = false;
    pair.order(0, 'prim');
    pair.pass(86_400_000);
    assert.deepEqual(pair.at(0).state.loops, []);
    assert.equal(pair.at(0).state.phase, 'primGate');
  });

  it('stopstart of a primary moves the service', () => {
    const pair = runningPair({ hasHealth: true });
    pair.event(0, { kind: 'health', up: false, why: 'refused' });
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('maxloop: the automatic action over the limit is a stop', () => {
    const pair = new Pair({ maxloop: 3 });
    pair.at(0).failing.add('start_prim');
    pair.order(0, 'prim');
    pair.pass(60_000);
    assert.equal(pair.shown(0), 'STOP NotReady');
    const starts = pair.effects(0).filter((effect) => effect === 'start_prim');
    assert.equal(starts.length, 4);
    assert.match(pair.at(0).state.why.join(), /Action stop called by maxloop/);
  });

  it('loop_interval: older actions do not count, and 0 counts none', () => {
    const pair = runningPair({ maxloop: 1, loopIntervalMs: 10_000 });
    pair.order(0, 'restart', 'tcp.app');
    pair.pass(10_000);
    pair.order(0, 'restart', 'tcp.app');
    assert.equal(pair.shown(0), 'PRIM Ready');
    pair.order(0, 'restart', 'tcp.app');
    assert.equal(pair.shown(0), 'STOP NotReady');
    const free = runningPair({ maxloop: 1, loopIntervalMs: 0 });
    for (let i = 0; i < 9; i += 1) free.order(0, 'restart', 'tcp.app');
    assert.equal(free.shown(0), 'PRIM Ready');
  });

  it('an order of an operator begins a new count', () => {
    const pair = runningPair({ maxloop: 1 });
    pair.order(0, 'restart', 'tcp.app');
    pair.order(0, 'restart');
    pair.order(0, 'restart', 'tcp.app');
    assert.equal(pair.shown(0), 'PRIM Ready');
  });

  it('wait of a checker: the other takes over, and this one follows when it is lifted', () => {
    const pair = runningPair();
    pair.event(0, { kind: 'hold', why: 'intf.10.0.0.0 is down' });
    pair.pass(60_000);
    assert.equal(pair.both, 'WAIT NotReady, ALONE Ready');
    pair.event(0, { kind: 'hold', why: null });
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('data that is not there: no role until it is, whatever a checker says meanwhile', () => {
    const pair = runningPair();
    pair.order(0, 'stop');
    pair.event(0, { kind: 'data', why: '/srv/data is not mounted' });
    pair.order(0, 'start');
    pair.pass(60_000);
    assert.equal(pair.both, 'WAIT NotReady, ALONE Ready');
    assert.equal(pair.at(0).state.refusal, 'waits: /srv/data is not mounted');
    pair.event(0, { kind: 'hold', why: 'intf is down' });
    pair.event(0, { kind: 'hold', why: null });
    assert.equal(pair.both, 'WAIT NotReady, ALONE Ready');
    pair.event(0, { kind: 'data', why: null });
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('a wait that is lifted before the secondary had leave to go ends the leaving', () => {
    const pair = runningPair();
    pair.reaches = [false, false];
    pair.event(1, { kind: 'hold', why: 'intf is down' });
    assert.equal(pair.at(1).state.leaving, true);
    pair.event(1, { kind: 'hold', why: null });
    assert.equal(pair.at(1).state.leaving, false);
    pair.reaches = [true, true];
    pair.event(1, { kind: 'hold', why: 'intf is down' });
    pair.order(1, 'restart');
    pair.event(1, { kind: 'hold', why: null });
    pair.pass(timing.pollMs);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
  });

  it('what is parked claims nothing, and `start` ends that in any phase', () => {
    const pair = runningPair();
    pair.reaches = [false, false];
    pair.event(1, { kind: 'persistFailed', why: 'ENOSPC' });
    assert.equal(pair.at(1).state.leaving, true);
    pair.reaches = [true, true];
    pair.at(1).state = { ...pair.at(1).state, leaving: false, pendingDown: null };
    pair.pull(0);
    pair.pass(60_000);
    assert.equal(record(pair), '2: 0 of 0+1');
    assert.match(pair.refusals(1).join(), /because waits for `start`/);
    pair.order(1, 'start');
    pair.pass(timing.pollMs + timing.graceMs);
    assert.equal(pair.shown(1), 'ALONE Ready');
  });

  it('`start` takes back a stop that nothing had to end for yet', () => {
    const pair = runningPair();
    pair.reaches = [false, false];
    pair.order(1, 'stop');
    pair.order(1, 'start');
    pair.reaches = [true, true];
    pair.pass(60_000);
    assert.equal(pair.both, 'PRIM Ready, SECOND Ready');
  });

  it('an engine that is gone: the whole of it begins anew, whatever else was asked for', () => {
    const pair = runningPair();
    const gone = { kind: 'engineGone', why: 'killed' } as const;
    const opened = () => pair.effects(1).filter((effect) => effect === 'engine second').length;
    pair.event(1, gone);
    assert.equal(opened(), 2);
    pair.at(1).hanging.add('stop_second');
    pair.order(1, 'restart');
    pair.event(1, gone);
    pair.at(1).hanging.clear();
    pair.event(1, { kind: 'scriptDone', ok: true, why: '' });
    assert.equal(opened(), 3);
    pair.event(0, gone);
    assert.equal(pair.register?.primary, 1);
    assert.equal(pair.both, 'SECOND Ready, PRIM Ready');
  });

  it('a primary whose disk failed gives way to a secondary that has everything', () => {
    const pair = runningPair();
    pair.event(0, { kind: 'copy', copy: 'failed' });
    assert.equal(pair.register?.primary, 1);
    const cut = runningPair();
    cut.at(1).up = false;
    cut.event(0, { kind: 'copy', copy: 'failed' });
    cut.hush();
    cut.pass(60_000);
    assert.ok(cut.register?.inSync.includes(1));
    const alone = runningPair();
    alone.pull(1);
    alone.event(0, { kind: 'copy', copy: 'failed' });
    assert.equal(alone.shown(0), 'ALONE Ready');
  });
});
