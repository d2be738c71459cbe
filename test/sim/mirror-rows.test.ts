/**
 * Rows of the fault table, each on the real machine in a simulated world of its own, for a number of
 * seeds: who answers afterwards, and for how long nobody did. That nothing is lost and that two never
 * answer is checked after every event, as everywhere.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type MirrorPace, mirrorProfiles } from '../../src/core/mirror-timing.ts';
import { shownOf } from '../../src/core/mirror.ts';
import { wholeMirror } from '../../src/sim/mirror-run.ts';
import { arbiter, type MirrorWorld, planes } from '../../src/sim/mirror-world.ts';

const seeds = 20;

function each(act: (world: MirrorWorld) => void, pace?: MirrorPace): void {
  for (let seed = 1; seed <= seeds; seed++) {
    const world = wholeMirror(seed, pace);
    try {
      act(world);
    } catch (error) {
      if (error instanceof Error)
        error.message += `\nseed ${seed}\n${world.trace.last().join('\n')}`;
      throw error;
    }
  }
}

function epochOf(world: MirrorWorld): number {
  return world.register.newest?.epoch ?? 0;
}

function cutPair(
  world: MirrorWorld,
  on: boolean,
  directions: readonly (readonly [number, number])[],
) {
  for (const plane of planes) for (const [from, to] of directions) world.cut(plane, from, to, on);
}

const bothWays = [
  [0, 1],
  [1, 0],
] as const;

function cutArbiter(world: MirrorWorld, id: number, on: boolean): void {
  world.cut('arbiter', id, arbiter, on);
  world.cut('arbiter', arbiter, id, on);
}

/** Runs until that server answers for the address. */
function untilAnswers(world: MirrorWorld, id: number, withinMs: number): void {
  const done = world.run(world.nowMs + withinMs, () => world.node(id).answers);
  assert.ok(done, `n${id} does not answer within ${withinMs} ms`);
}

function untilWhole(world: MirrorWorld, primary: number): void {
  const done = world.run(world.nowMs + 40_000, () => world.checks.unsettled() === null);
  assert.ok(done, world.checks.unsettled() ?? 'late');
  assert.equal(shownOf(world.node(primary).state).state, 'PRIM');
}

const sleep = (world: MirrorWorld, ms: number): boolean => world.run(world.nowMs + ms, null);

/** Nothing moved, and the address answered all the time. */
function undisturbed(world: MirrorWorld, epoch: number): void {
  assert.equal(epochOf(world), epoch);
  assert.ok(world.checks.silentMs < 200, `silent for ${world.checks.silentMs} ms`);
  assert.equal(world.checks.unsettled(), null);
}

/** Longest time without an answer, over the seeds. */
function gaps(act: (world: MirrorWorld) => void, pace?: MirrorPace): number {
  let most = 0;
  each((world) => {
    act(world);
    most = Math.max(most, world.checks.silentMs);
  }, pace);
  return most;
}

describe('a primary that is lost', () => {
  for (const [name, pace, limitMs] of [
    ['default', mirrorProfiles.default, 1900],
    ['fast', mirrorProfiles.fast, 500],
  ] as const) {
    it(`power pull, ${name}: the other answers, and the old one comes back`, (t) => {
      const ms = gaps((world) => {
        world.node(0).powerOff();
        untilAnswers(world, 1, 5000);
        sleep(world, 2000);
        world.node(0).powerOn();
        untilWhole(world, 1);
      }, pace);
      t.diagnostic(`nobody answered for at most ${ms.toFixed(0)} ms, scripts included`);
      assert.ok(ms < limitMs, `${ms}`);
    });
  }

  it('its heartbeats and its agent stop for 10 s: the other answers; it follows afterwards', () => {
    each((world) => {
      const node = world.node(0);
      for (const lane of [node.agent, node.beats]) node.pause(lane, true);
      untilAnswers(world, 1, 5000);
      sleep(world, 6000);
      for (const lane of [node.agent, node.beats]) node.pause(lane, false);
      untilWhole(world, 1);
    });
  });

  it('the whole server stands still for 60 s: it acknowledges nothing when it goes on', () => {
    each((world) => {
      world.node(0).freeze(true);
      untilAnswers(world, 1, 5000);
      sleep(world, 60_000);
      world.node(0).freeze(false);
      untilWhole(world, 1);
    });
  });

  it('it cannot write any more: the other, which can, takes over', () => {
    each((world) => {
      world.node(0).engine.fail();
      untilAnswers(world, 1, 5000);
    });
  });

  it('while the other was left behind: nobody takes over, and it is said for whom that waits', () => {
    each((world) => {
      world.node(1).powerOff();
      sleep(world, 4000);
      world.node(1).powerOn();
      cutPair(world, true, bothWays);
      sleep(world, 1000);
      world.node(0).powerOff();
      cutPair(world, false, bothWays);
      sleep(world, 20_000);
      assert.equal(world.node(1).answers, false);
      assert.match(world.node(1).state.refusal ?? '', /waits for n0/);
      world.node(0).powerOn();
      untilWhole(world, 0);
    });
  });
});

describe('what moves nothing', () => {
  it('the agent does not act for 3 s', () => {
    each((world) => {
      const epoch = epochOf(world);
      world.node(0).pause(world.node(0).agent, true);
      sleep(world, 3000);
      world.node(0).pause(world.node(0).agent, false);
      sleep(world, 3000);
      undisturbed(world, epoch);
    });
  });

  it('the agent is killed and started again', () => {
    each((world) => {
      const epoch = epochOf(world);
      world.node(0).killAgent();
      sleep(world, 800);
      world.node(0).startAgent();
      sleep(world, 3000);
      undisturbed(world, epoch);
    });
  });

  it('the arbiter is away for a minute', () => {
    each((world) => {
      const epoch = epochOf(world);
      world.register.down = true;
      sleep(world, 60_000);
      undisturbed(world, epoch);
    });
  });

  it('10 % of everything is lost for a minute', () => {
    each((world) => {
      const epoch = epochOf(world);
      world.network = { ...world.network, loss: 0.1 };
      sleep(world, 60_000);
      world.network = { ...world.network, loss: 0 };
      sleep(world, 2000);
      undisturbed(world, epoch);
    });
  });

  it('everything takes 200 ms, and a quarter comes twice or late', () => {
    each((world) => {
      const epoch = epochOf(world);
      world.network = { ...world.network, delayMs: 200, duplicate: 0.25, slow: 0.25, slowMs: 100 };
      sleep(world, 30_000);
      undisturbed(world, epoch);
    });
  });
});

describe('networks', () => {
  it('both servers reach the arbiter and not each other: the primary stays it', () => {
    each((world) => {
      cutPair(world, true, bothWays);
      sleep(world, 10_000);
      assert.equal(world.node(0).answers, true);
      assert.ok(world.checks.silentMs < 200, `silent for ${world.checks.silentMs} ms`);
      assert.deepEqual(world.register.record?.inSync, [0]);
      cutPair(world, false, bothWays);
      untilWhole(world, 0);
    });
  });

  it('the primary is cut off from everything: it is silent, the other answers', () => {
    each((world) => {
      cutPair(world, true, bothWays);
      cutArbiter(world, 0, true);
      untilAnswers(world, 1, 5000);
      sleep(world, 5000);
      assert.equal(world.node(0).answers, false);
      cutPair(world, false, bothWays);
      cutArbiter(world, 0, false);
      untilWhole(world, 1);
    });
  });

  for (const direction of bothWays) {
    it(`one direction is lost, n${direction[0]} to n${direction[1]}: one primary`, () => {
      each((world) => {
        cutPair(world, true, [direction]);
        sleep(world, 10_000);
        const answering = world.nodes.filter((node) => node.answers);
        assert.equal(answering.length, 1);
        cutPair(world, false, [direction]);
        untilWhole(world, answering[0]?.id ?? 0);
      });
    });
  }

  it('the connection of the engines alone: the primary goes on alone', () => {
    each((world) => {
      for (const [from, to] of bothWays) world.cut('stream', from, to, true);
      sleep(world, 5000);
      assert.deepEqual(world.register.record?.inSync, [0]);
      assert.equal(world.node(0).answers, true);
      for (const [from, to] of bothWays) world.cut('stream', from, to, false);
      untilWhole(world, 0);
    });
  });
});

describe('the arbiter', () => {
  it('is away when the primary is lost: nobody answers until it is back', () => {
    each((world) => {
      world.register.down = true;
      sleep(world, 1000);
      world.node(0).powerOff();
      sleep(world, 10_000);
      assert.ok(world.nodes.every((node) => !node.answers));
      world.register.down = false;
      untilAnswers(world, 1, 5000);
    });
  });

  it('takes 400 ms for each answer: a loss is only handled later', () => {
    each((world) => {
      world.arbiterMs = 400;
      world.node(1).powerOff();
      sleep(world, 5000);
      assert.deepEqual(world.register.record?.inSync, [0]);
      assert.equal(world.node(0).answers, true);
      world.node(1).powerOn();
      untilWhole(world, 0);
    });
  });
});

describe('starts and stops', () => {
  it('both lose power and come back: one is primary, nothing is lost', () => {
    each((world) => {
      for (const node of world.nodes) node.powerOff();
      sleep(world, 500);
      for (const node of world.nodes)
        world.after(world.chance.between(0, 3000), () => node.powerOn());
      const done = world.run(world.nowMs + 40_000, () => world.checks.unsettled() === null);
      assert.ok(done, world.checks.unsettled() ?? 'late');
    });
  });

  it('both are off and only the one that was left behind comes back: it waits', () => {
    each((world) => {
      world.node(1).powerOff();
      sleep(world, 4000);
      world.node(0).powerOff();
      world.node(1).powerOn();
      sleep(world, 20_000);
      assert.equal(world.node(1).answers, false);
      assert.match(world.node(1).state.refusal ?? '', /waits for n0.*up-to-date/);
      world.node(0).powerOn();
      untilWhole(world, 0);
    });
  });

  it('the secondary is stopped in order, the primary writes on, it comes back: it gets what it lacks', () => {
    each((world) => {
      world.node(1).order('stop');
      sleep(world, 5000);
      assert.deepEqual(world.register.record?.inSync, [0]);
      assert.ok(world.checks.silentMs < 200, `silent for ${world.checks.silentMs} ms`);
      const lacks = world.node(0).copy.durable - world.node(1).copy.durable;
      assert.ok(lacks > 0);
      world.node(1).order('start');
      untilWhole(world, 0);
    });
  });

  it('30 swaps: each ends with the other as primary, within a second', (t) => {
    let most = 0;
    const world = wholeMirror(1);
    for (let n = 1; n <= 30; n++) {
      world.checks.silentMs = 0;
      world.node(n % 2).order('swap');
      sleep(world, 300);
      untilWhole(world, n % 2);
      most = Math.max(most, world.checks.silentMs);
    }
    t.diagnostic(`nobody answered for at most ${most.toFixed(0)} ms`);
    assert.ok(most < 1000, `${most}`);
  });
});
