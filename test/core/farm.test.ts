import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Bench, timing } from './farm-bench.ts';

const third = [1366, 1365, 1365];

describe('farm: coming together', () => {
  it('a node alone serves everything, after it has listened and announced itself', () => {
    const bench = new Bench(2);
    bench.start(0);
    assert.equal(bench.owned(0), 0);
    bench.advance(timing.suspectMs + timing.heartbeatMs);
    assert.equal(bench.epoch(0), 1);
    assert.equal(bench.owned(0), 0);
    bench.advance(timing.suspectMs + 2 * timing.heartbeatMs);
    assert.equal(bench.owned(0), 4096);
    assert.equal(bench.last(0, 'announce').serving, true);
  });

  it('the lowest node leads; each bucket has one owner', () => {
    const bench = Bench.whole(3);
    assert.equal(bench.state(0).role, 'leading');
    assert.equal(bench.state(1).role, 'following');
    assert.deepEqual([bench.owned(0), bench.owned(1), bench.owned(2)], third);
    assert.deepEqual(Object.keys(bench.ownership()).sort(), ['0', '1', '2']);
    assert.equal(new Set([0, 1, 2].map((node) => bench.epoch(node))).size, 1);
  });

  it('shares follow the powers of each group; a cascade', () => {
    const bench = Bench.whole(3, [
      { name: 'even', powers: {} },
      { name: 'cascade', powers: { 0: 64 * 64, 1: 64, 2: 1 } },
      { name: 'off', powers: { 0: 0, 1: 0, 2: 0 } },
    ]);
    assert.deepEqual(bench.ownership(0), { '0': 1366, '1': 1365, '2': 1365 });
    assert.deepEqual(bench.ownership(1), { '0': 4032, '1': 63, '2': 1 });
    assert.deepEqual(bench.ownership(2), { '': 4096 });
  });

  it('a lower node that comes later leads, and takes over without moving more than its share', () => {
    const bench = new Bench(3);
    bench.start(1);
    bench.start(2);
    bench.setReach(1, 2, 'both');
    bench.setReach(2, 1, 'both');
    bench.advance(2000);
    const before = new Set(bench.buckets(1, 'own'));
    bench.start(0);
    bench.connectAll();
    bench.advance(2000);
    assert.equal(bench.state(0).role, 'leading');
    assert.equal(bench.state(1).role, 'following');
    assert.ok([1365, 1366].includes(bench.owned(0)));
    assert.ok(bench.buckets(1, 'own').every((b) => before.has(b)));
  });
});

describe('farm: planned moves', () => {
  it('the loser lets go and says so before the gainer begins', () => {
    const bench = Bench.whole(2);
    bench.holdInstalls.add(1);
    bench.give(1, { kind: 'power', group: null, power: 0 });
    bench.advance(500);
    // Node 1 has been told to let go, and has not done so yet: nobody may begin.
    assert.deepEqual(bench.last(0, 'install').tables[0]?.flags.includes(5), false);
    assert.equal(bench.owned(0), 2048);
    bench.finishInstalls(1);
    bench.holdInstalls.delete(1);
    bench.advance(500);
    assert.equal(bench.owned(0), 4096);
  });

  it('the gainer is quiet and the loser holds until the loser has seen no connection', () => {
    const bench = Bench.whole(2);
    const moved = bench.buckets(1, 'own');
    bench.give(1, { kind: 'drain', on: true });
    bench.advance(100);
    assert.deepEqual(bench.buckets(1, 'own'), []);
    assert.deepEqual(bench.buckets(1, 'hold'), moved);
    assert.deepEqual(bench.buckets(0, 'quiet'), moved);
    const table = bench.last(0, 'install').tables[0];
    assert.ok(moved.every((b) => table?.holder[b] === 1));

    bench.walk(1, []);
    bench.advance(100);
    assert.equal(bench.buckets(1, 'hold').length, 2048, 'a walk that began too early says nothing');

    bench.advance(1000);
    const left = moved.slice(0, 3);
    bench.walk(1, left);
    bench.advance(100);
    assert.deepEqual(bench.buckets(1, 'hold'), left);
    assert.deepEqual(bench.buckets(0, 'quiet'), left);

    bench.advance(1500);
    bench.walk(1, []);
    bench.advance(100);
    assert.deepEqual(bench.buckets(1, 'hold'), []);
    assert.deepEqual(bench.buckets(0, 'quiet'), []);
  });

  it('holding ends at the drain timeout', () => {
    const bench = Bench.whole(2);
    bench.give(1, { kind: 'drain', on: true });
    bench.advance(timing.drainTimeoutMs + 1000);
    assert.deepEqual(bench.buckets(1, 'hold'), []);
    assert.deepEqual(bench.buckets(0, 'quiet'), []);
  });

  it('a bucket that moves twice has two holders', () => {
    const bench = Bench.whole(3);
    const first = bench.buckets(2, 'own');
    bench.give(2, { kind: 'drain', on: true });
    bench.advance(500);
    const second = bench.buckets(1, 'own').filter((b) => first.includes(b));
    assert.ok(second.length > 0);
    bench.give(1, { kind: 'drain', on: true });
    bench.advance(500);
    assert.equal(bench.owned(0), 4096);
    for (const b of second) {
      assert.ok(bench.buckets(1, 'hold').includes(b));
      assert.ok(bench.buckets(2, 'hold').includes(b));
    }
  });

  it('goes on when the loser dies on the way', () => {
    const bench = Bench.whole(3);
    bench.holdInstalls.add(2);
    bench.give(2, { kind: 'drain', on: true });
    bench.advance(100);
    assert.equal(bench.ownership()[''], 1365, 'given up, and not yet taken');
    bench.kill(2);
    bench.advance(10);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
    assert.deepEqual(bench.buckets(0, 'quiet'), []);
  });

  it('drain ends with the buckets back', () => {
    const bench = Bench.whole(2);
    bench.give(1, { kind: 'drain', on: true });
    bench.advance(500);
    bench.give(1, { kind: 'drain', on: false });
    bench.advance(500);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
  });
});

describe('farm: readiness', () => {
  it('a node whose application fails shuts at once, by itself', () => {
    const bench = Bench.whole(2);
    bench.holdLetters = true;
    bench.give(1, { kind: 'ready', on: false });
    assert.equal(bench.owned(1), 0);
    assert.equal(bench.buckets(1, 'hold').length, 2048);
    bench.holdLetters = false;
    bench.deliver();
    bench.advance(200);
    assert.equal(bench.owned(0), 4096);
  });

  it('does not open again by a view that was made before', () => {
    const bench = Bench.whole(2);
    bench.holdLetters = true;
    bench.give(1, { kind: 'ready', on: false });
    bench.give(1, { kind: 'ready', on: true });
    assert.equal(bench.owned(1), 0, 'the leader may have given the buckets away meanwhile');
    bench.holdLetters = false;
    bench.deliver();
    bench.advance(500);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
  });

  it('nobody serves while no application answers', () => {
    const bench = Bench.whole(2);
    bench.give(0, { kind: 'ready', on: false });
    bench.give(1, { kind: 'ready', on: false });
    bench.advance(500);
    assert.deepEqual(bench.ownership(), { '': 4096 });
    assert.equal(bench.members(0), 3n);
  });
});

describe('farm: death', () => {
  it('moves the buckets of a dead member in one view, not quiet, without any acknowledgement', () => {
    const bench = Bench.whole(3);
    const kept = bench.buckets(1, 'own');
    const epoch = bench.epoch(0);
    bench.kill(2);
    assert.equal(bench.epoch(0), epoch + 1);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
    const now = new Set(bench.buckets(1, 'own'));
    assert.ok(kept.every((b) => now.has(b)));
    assert.deepEqual(bench.buckets(0, 'quiet'), []);
    assert.deepEqual(bench.buckets(1, 'quiet'), []);
  });

  it('of the leader: the next takes over with everybody who lives', () => {
    const bench = Bench.whole(3);
    bench.kill(0);
    bench.advance(10);
    assert.equal(bench.state(1).role, 'leading');
    assert.deepEqual(bench.ownership(), { '1': 2048, '2': 2048 });
  });

  it('waits for a member that still hears the one that its leader lost', () => {
    const bench = Bench.whole(3);
    bench.setReach(2, 0, 'silent');
    bench.advance(10);
    assert.equal(bench.members(0), 7n);
    assert.match(bench.records(0, 'refusal').join(), /node 2 was lost from sight only just now/);
    bench.setReach(2, 1, 'silent');
    assert.equal(bench.members(0), 3n);
    bench.states.delete(2);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
  });

  it('a hung node keeps its buckets until its lease has lapsed', () => {
    const bench = Bench.whole(2);
    bench.setHung(1, true);
    bench.advance(timing.leaseMs);
    assert.equal(bench.owned(0), 2048);
    bench.advance(50);
    assert.equal(bench.owned(0), 4096);
    assert.deepEqual(bench.buckets(0, 'quiet'), []);
  });

  it('a hung node that comes to owns nothing until it is given something again', () => {
    const bench = Bench.whole(2);
    bench.setHung(1, true);
    bench.advance(1000);
    bench.give(1, { kind: 'lapsed' });
    assert.equal(bench.owned(1), 0);
    bench.setHung(1, false);
    bench.advance(2000);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
  });

  it('a new boot of a peer is its death, and the end of its lease is waited for', () => {
    const bench = Bench.whole(2);
    bench.states.delete(1);
    bench.reboot(1);
    bench.setReach(1, 0, 'both');
    bench.give(0, { kind: 'summary', node: 1, flags: 0, viewEpoch: 0, viewMembers: 0n });
    assert.equal(bench.owned(0), 2048);
    bench.advance(timing.leaseMs);
    assert.equal(bench.owned(0), 2048);
    bench.advance(50);
    assert.equal(bench.owned(0), 4096);
  });

  it('one survivor, the lowest owner, tells the neighbours', () => {
    const bench = Bench.whole(3);
    bench.kill(2);
    const told = (node: number): number =>
      (bench.effects.get(node) ?? []).filter((effect) => effect.kind === 'gratuitous').length;
    assert.equal(bench.last(0, 'gratuitous').gone, 2);
    assert.equal(told(1), 0);
  });

  it('the neighbours are told of a server that leaves while it still forwards', () => {
    const bench = Bench.whole(3);
    bench.give(0, { kind: 'ready', on: false });
    bench.advance(500);
    assert.equal(bench.owned(0), 0);
    assert.equal(bench.state(0).role, 'leading');
    assert.equal(bench.last(1, 'gratuitous').gone, 0);
    assert.deepEqual(
      bench.effects.get(2)?.filter(({ kind }) => kind === 'gratuitous'),
      [],
    );
  });
});
