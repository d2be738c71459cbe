import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Bench, timing } from './farm-bench.ts';

describe('farm: partitions', () => {
  it('each side serves all of its clients; after the heal the farm is one again', () => {
    const bench = Bench.whole(3);
    bench.cut(0, 2);
    bench.cut(1, 2);
    bench.advance(1000);
    assert.equal(bench.members(0), 3n);
    assert.equal(bench.members(2), 4n);
    assert.equal(bench.owned(0) + bench.owned(1), 4096);
    assert.equal(bench.owned(2), 4096);

    bench.connectAll();
    assert.equal(bench.owned(2), 0, 'the side with the lesser view gives way at once');
    bench.advance(2000);
    assert.deepEqual(bench.ownership(), { '0': 1366, '1': 1365, '2': 1365 });
    assert.equal(bench.members(2), 7n);
  });

  it('the better side serves on while the others come back', () => {
    const bench = Bench.whole(2);
    bench.cut(0, 1);
    bench.advance(1000);
    bench.connectAll();
    bench.advance(100);
    assert.equal(bench.owned(0) + bench.owned(1), 4096);
    assert.equal(Math.max(bench.owned(0), bench.owned(1)), 4096);
  });

  it('connections of the side that gave way are held by it, and others are quiet there', () => {
    const bench = Bench.whole(2);
    bench.cut(0, 1);
    bench.advance(1000);
    const loser = 1;
    bench.walk(loser, [7, 8, 3000]);
    bench.walk(0, []);
    bench.connectAll();
    bench.advance(2000);
    const held = new Set(bench.buckets(loser, 'hold'));
    const quiet = new Set(bench.buckets(0, 'quiet'));
    for (const b of [7, 8, 3000]) {
      const own = bench.buckets(loser, 'own').includes(b);
      assert.ok(own || (held.has(b) && quiet.has(b)), `bucket ${b}`);
    }
  });
});

describe('farm: one-way cuts', () => {
  it('two nodes: the one that is no longer heard owns nothing, the other everything', () => {
    const bench = Bench.whole(2);
    bench.cutOneWay(0, 1);
    bench.advance(1000);
    assert.equal(bench.state(0).role, 'excluded');
    assert.equal(bench.owned(0), 0);
    assert.equal(bench.last(0, 'announce').serving, false);
    assert.equal(bench.owned(1), 4096);

    bench.connectAll();
    bench.advance(2000);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
  });

  it('two nodes, the other direction: the same', () => {
    const bench = Bench.whole(2);
    bench.cutOneWay(1, 0);
    bench.advance(1000);
    assert.equal(bench.owned(0), 4096);
    assert.equal(bench.owned(1), 0);
    assert.equal(bench.state(1).role, 'excluded');
  });

  it('three nodes: the lowest leader wins, whom it cannot reach is silent, all is served', () => {
    const bench = Bench.whole(3);
    bench.cutOneWay(0, 1);
    bench.advance(2000);
    assert.equal(bench.members(0), 5n);
    assert.equal(bench.owned(1), 0);
    assert.equal(bench.state(1).role, 'excluded');
    assert.deepEqual(bench.ownership(), { '0': 2048, '2': 2048 });
    assert.match(bench.records(1, 'refusal').join(), /node 0 is out of reach, but others hear it/);
  });

  it('a pair cut in both directions, a third that sees both: exactly one view wins', () => {
    const bench = Bench.whole(3);
    bench.cut(0, 1);
    bench.advance(2000);
    assert.equal(bench.members(0), 5n);
    assert.equal(bench.members(2), 5n);
    assert.equal(bench.owned(1), 0);
    assert.deepEqual(bench.ownership(), { '0': 2048, '2': 2048 });
  });

  it('a cut between two followers costs the higher one', () => {
    const bench = Bench.whole(3);
    bench.cut(1, 2);
    bench.advance(2000);
    assert.equal(bench.members(0), 3n);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
  });

  it('a leader does not act on a silent node before its followers lost it, too', () => {
    const bench = Bench.whole(3);
    const epoch = bench.epoch(0);
    bench.setReach(2, 0, 'silent');
    bench.advance(timing.suspectMs);
    bench.setReach(2, 0, 'both');
    bench.advance(1000);
    assert.equal(bench.epoch(0), epoch, 'a blip of one link changes nothing');
  });

  it('what shuts out one member shuts out those who share its view', () => {
    const bench = Bench.whole(3);
    // Node 2 is deaf: it takes all for dead and serves alone. Node 0 does not hear it at all.
    bench.setReach(2, 0, 'silent');
    bench.cutOneWay(1, 2);
    bench.setReach(0, 2, 'silent');
    bench.advance(1000);
    assert.equal(bench.owned(2), 4096);
    assert.equal(bench.owned(1), 0);
    assert.equal(bench.owned(0), 0, 'it knows of node 2 by node 1 only');
  });
});

describe('farm: messages', () => {
  it('an old view changes nothing', () => {
    const bench = Bench.whole(2);
    const old = bench.state(0).view;
    assert.ok(old !== null);
    bench.give(1, { kind: 'drain', on: true });
    bench.advance(500);
    const epoch = bench.epoch(1);
    bench.give(1, { kind: 'message', from: 0, message: { kind: 'view', view: old } });
    assert.equal(bench.epoch(1), epoch);
    assert.equal(bench.owned(1), 0);
  });

  it('a view of a node that it does not follow changes nothing', () => {
    const bench = Bench.whole(3);
    const view = bench.state(0).view;
    assert.ok(view !== null);
    const forged = { ...view, epoch: view.epoch + 5, leader: 2, owners: view.owners };
    bench.give(1, { kind: 'message', from: 2, message: { kind: 'view', view: forged } });
    assert.equal(bench.epoch(1), view.epoch);
    bench.give(1, { kind: 'message', from: 0, message: { kind: 'view', view: forged } });
    assert.equal(bench.epoch(1), view.epoch);
  });

  it('the next epoch is above all that was ever seen', () => {
    const bench = Bench.whole(2);
    const { flags } = bench.last(1, 'announce');
    bench.give(0, { kind: 'summary', node: 1, flags, viewEpoch: 900, viewMembers: 3n });
    bench.give(0, { kind: 'drain', on: true });
    bench.advance(100);
    assert.ok(bench.epoch(0) > 900);
  });

  it('lost views and follows are sent again', () => {
    const bench = Bench.whole(2);
    bench.holdLetters = true;
    bench.give(0, { kind: 'drain', on: true });
    bench.letters.length = 0;
    bench.advance(100);
    bench.letters.length = 0;
    bench.holdLetters = false;
    bench.advance(1500);
    assert.deepEqual(bench.ownership(), { '1': 4096 });
  });

  it('a table of another number of groups is refused', () => {
    const bench = Bench.whole(2);
    const view = bench.state(0).view;
    assert.ok(view !== null);
    const more = { ...view, epoch: view.epoch + 1, owners: [...view.owners, ...view.owners] };
    bench.give(1, { kind: 'message', from: 0, message: { kind: 'view', view: more } });
    assert.equal(bench.epoch(1), view.epoch);
  });
});

describe('farm: the agent starts again', () => {
  for (const node of [0, 1]) {
    it(`node ${node}: no view change, the same table at once`, () => {
      const bench = Bench.whole(3);
      const epoch = bench.epoch(0);
      const before = bench.buckets(node, 'own');
      bench.advance(500);
      bench.start(node, true);
      assert.deepEqual(bench.buckets(node, 'own'), before);
      assert.equal(bench.last(node, 'announce').serving, true);
      bench.replay(node);
      bench.advance(3000);
      for (const other of [0, 1, 2]) assert.equal(bench.epoch(other), epoch);
      assert.deepEqual(bench.buckets(node, 'own'), before);
    });
  }

  it('keeps its buckets held for connections', () => {
    const bench = Bench.whole(2);
    bench.give(1, { kind: 'drain', on: true });
    bench.advance(500);
    const held = bench.buckets(1, 'hold');
    bench.start(1, true);
    bench.replay(1);
    bench.advance(2000);
    assert.deepEqual(bench.buckets(1, 'hold'), held);
    assert.deepEqual(bench.buckets(0, 'quiet'), held);
  });

  it('without what was persisted it starts from nothing', () => {
    const bench = Bench.whole(2);
    bench.states.set(1, { ...bench.state(1) });
    bench.give(1, { kind: 'stop' });
    assert.equal(bench.owned(1), 0);
    assert.equal(bench.last(1, 'announce').flags, 0);
    bench.advance(100);
    assert.equal(bench.owned(0), 4096);
    bench.start(1);
    assert.equal(bench.owned(1), 0);
    bench.advance(2000);
    assert.deepEqual(bench.ownership(), { '0': 2048, '1': 2048 });
  });
});

describe('farm: stopping', () => {
  it('says that its filter is shut before it says that it ended', () => {
    const bench = Bench.whole(2);
    const start = bench.effects.get(1)?.length ?? 0;
    bench.give(1, { kind: 'stop' });
    const said = (bench.effects.get(1) ?? [])
      .slice(start)
      .flatMap((effect) => (effect.kind === 'announce' ? [effect.flags & 9] : []));
    assert.deepEqual(said, [9, 1, 0]);
    assert.deepEqual(bench.ownership(), { '0': 4096 });
  });
});
