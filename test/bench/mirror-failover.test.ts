/** What the mirror's failover bench makes of its probes' figures and of the journals. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  answeredMs,
  type Journals,
  type Round,
  stagesOf,
  summaryOf,
  waitsOf,
} from '../../bench/takeover/figures.ts';
import { rowsOf } from '../../bench/takeover/tables.ts';
import type { EventRecord } from '../../src/host/face.ts';
import type { ClientRecord } from '../../src/lab/clients.ts';

function client(longestGapMs: number, waitingSinceMs = 0): ClientRecord {
  return {
    addr: '10.50.100.1',
    server: 's1',
    answers: 100,
    moves: 0,
    lastAnswerUs: 1_000_000,
    longestGapUs: longestGapMs * 1000,
    waitingSinceUs: waitingSinceMs * 1000,
  };
}

function event(
  bootMs: number,
  kind: EventRecord['kind'],
  data: Readonly<Record<string, unknown>>,
): EventRecord {
  return { seq: bootMs, wallMs: 0, bootMs, node: 's2', module: 'db', kind, text: '', data };
}

const rise = [
  event(2330, 'transition', {
    from: 'second',
    to: 'secondStopping',
    why: 'epoch 3 granted, after s1',
  }),
  event(2340, 'transition', { from: 'secondForcing', to: 'primOpening', why: 'failover' }),
  event(2400, 'transition', { from: 'primOpening', to: 'primGrace', why: 'the engine is open' }),
  event(2670, 'transition', { from: 'primGrace', to: 'primStarting', why: 'the address is free' }),
  event(2750, 'transition', { from: 'primStarting', to: 'primGate', why: 'start_prim is done' }),
  event(2755, 'transition', { from: 'primGate', to: 'prim', why: 'the application answers' }),
];
const suspect = event(2005, 'peer', { suspectMs: 1000, heardMs: 1000 });
const lost: Journals = { trigger: 'power', former: [], next: [suspect, ...rise], answeredMs: 2760 };

describe('where the time of a takeover went', () => {
  test('from the last heartbeat to the last client that is answered, without a rest', () => {
    const stages = stagesOf(lost);
    assert.deepEqual(stages, {
      detection: 1005,
      claim: 325,
      grace: 340,
      application: 80,
      address: 10,
    });
    assert.equal(
      Object.values(stages).reduce((sum, ms) => sum + ms),
      2760 - 1000,
    );
  });

  test('a swap begins with its order; the way down of the former primary is its detection', () => {
    const former = [
      event(2100, 'command', { sync: true }),
      event(2110, 'transition', { from: 'prim', to: 'primStopping' }),
      event(2250, 'transition', { from: 'primClosing', to: 'waiting' }),
    ];
    const stages = stagesOf({ ...lost, trigger: 'swap', former });
    assert.deepEqual([stages?.detection, stages?.claim], [150, 80]);
  });

  test('of journals that do not tell of one plain takeover nothing is made', () => {
    assert.equal(stagesOf({ ...lost, next: rise }), null, 'nobody was suspect');
    for (const missing of [0, 3, 4]) {
      const next = [suspect, ...rise.filter((_, index) => index !== missing)];
      assert.equal(stagesOf({ ...lost, next }), null, `without ${rise[missing]?.bootMs}`);
    }
    assert.equal(stagesOf({ ...lost, answeredMs: 2700 }), null, 'answered before it could be');
    assert.equal(stagesOf({ ...lost, trigger: 'swap' }), null, 'nobody ordered it');
  });
});

describe('when the clients were answered', () => {
  const seen = waitsOf([client(0), client(0, 500), client(0, 510)]);

  test('those that wait are known by their place', () => {
    assert.deepEqual(
      [...seen],
      [
        [1, 500_000],
        [2, 510_000],
      ],
    );
  });

  test('it is the one that waited longest that counts', () => {
    assert.equal(answeredMs([client(3), client(700), client(720)], seen), 1230);
    assert.equal(answeredMs([client(3), client(740), client(720)], seen), 1240);
  });

  test('a wait that nobody saw begin has no end', () => {
    assert.equal(answeredMs([client(30), client(7), client(2)], seen), null);
    assert.equal(answeredMs([], seen), null);
  });
});

describe('what a row says', () => {
  const round = (gapMs: number, values: Partial<Round> = {}): Round => ({
    trigger: 'power',
    victim: 's1',
    gapMs,
    quietMs: 1,
    lateMs: 0.5,
    answerers: 1,
    stages: null,
    ...values,
  });
  const stages = { detection: 1000, claim: 300, grace: 340, application: 60, address: 10 };

  test('percentiles of all rounds, parts of those whose journals tell', () => {
    const slow = { ...stages, application: 100 };
    const summary = summaryOf([
      round(1700, { stages }),
      round(9000),
      round(1750, { stages: slow }),
      round(1720, { stages: slow, quietMs: 30 }),
    ]);
    assert.deepEqual([summary.p50Ms, summary.p95Ms, summary.maxMs], [1720, 9000, 9000]);
    assert.deepEqual([summary.told, summary.rounds, summary.quietMaxMs], [3, 4, 30]);
    assert.equal(summary.stages?.application, 100);
    assert.equal(summary.lessApplicationMs, 1640, 'of 1640, 1650 and 1620');
  });

  test('two servers that answer are counted by rounds', () => {
    assert.equal(summaryOf([round(1, { answerers: 2 }), round(1)]).doubles, 1);
  });

  test('without any journal there are no parts', () => {
    const { stages: parts, lessApplicationMs } = summaryOf([round(700)]);
    assert.deepEqual([parts, lessApplicationMs], [null, null]);
  });

  test('each kind of fault has a row of its own', () => {
    const rounds = [round(1), round(2, { trigger: 'kill' }), round(3, { trigger: 'swap' })];
    const rows = rowsOf('Holdfast fast', 'fast', true, rounds);
    assert.deepEqual(
      rows.map(({ trigger, summary }) => [trigger, summary.maxMs]),
      [
        ['power', 1],
        ['kill', 2],
        ['swap', 3],
      ],
    );
  });
});
