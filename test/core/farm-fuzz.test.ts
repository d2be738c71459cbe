/** Whatever comes in, one machine keeps its own invariants. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  bucketCount,
  type FarmEffect,
  type FarmEvent,
  farmDeadline,
  farmInit,
  type FarmState,
  farmStep,
  type Message,
  nobody,
  type StatusMessage,
  type View,
} from '../../src/core/farm.ts';
import { bitmapBytes } from '../../src/core/farm-types.ts';
import { isBetter, nameOf } from '../../src/core/farm-state.ts';
import { timing } from './farm-bench.ts';
import { fc } from '../support/random.ts';

const me = 1;
const nodes = [0, 1, 2];
const node = fc.constantFrom(0, 2);
const small = fc.integer({ min: 0, max: 12 });
const mask = fc.integer({ min: 0, max: 7 }).map(BigInt);
const viewName = fc.option(fc.record({ epoch: small, leader: fc.constantFrom(...nodes) }));
const bitmap = fc
  .constantFrom(0, 1, 255)
  .map((byte) => [new Uint8Array(bitmapBytes).fill(byte)] as const);

const view: fc.Arbitrary<View> = fc
  .record({
    epoch: small,
    leader: fc.constantFrom(...nodes),
    members: mask,
    owner: fc.constantFrom(0, 1, 2, nobody),
    holder: bitmap,
    mark: fc.integer({ min: 0, max: 20_000 }),
  })
  .map(({ epoch, leader, members, owner, holder, mark }) => ({
    epoch,
    leader,
    members,
    owners: [new Uint8Array(bucketCount).fill(owner)],
    holders: { 2: holder },
    marks: { 0: mark, 1: mark, 2: mark },
    powers: [{}],
  }));

const status: fc.Arbitrary<StatusMessage> = fc.record({
  kind: fc.constant('status' as const),
  startedMs: small,
  seq: fc.nat(1000),
  running: fc.boolean(),
  electable: fc.boolean(),
  ready: fc.boolean(),
  draining: fc.boolean(),
  powers: fc.constantFrom([null], [3], [0]),
  follows: fc.constantFrom(...nodes, nobody),
  followers: fc.dictionary(fc.constantFrom('0', '1', '2'), small),
  heard: mask,
  both: mask,
  open: mask,
  excludedBy: viewName,
  epochMax: small,
  installed: viewName,
  followMark: small,
  closeMark: small,
});

const message: fc.Arbitrary<Message> = fc.oneof(
  status,
  view.map((one) => ({ kind: 'view' as const, view: one })),
  fc.tuple(status, bitmap, bitmap, fc.option(view)).map(([said, owned, sockets, known]) => ({
    kind: 'follow' as const,
    status: said,
    owned,
    sockets,
    view: known,
  })),
  fc.tuple(small, bitmap).map(([epoch, sockets]) => ({ kind: 'sockets' as const, epoch, sockets })),
);

type Timeless = FarmEvent extends infer E
  ? E extends FarmEvent
    ? Omit<E, 'nowMs'>
    : never
  : never;

const event: fc.Arbitrary<Timeless> = fc.oneof(
  fc.constant({ kind: 'tick' as const }),
  fc.record({ kind: fc.constant('ready' as const), on: fc.boolean() }),
  fc.record({ kind: fc.constant('drain' as const), on: fc.boolean() }),
  fc.constant({ kind: 'lapsed' as const }),
  fc.constant({ kind: 'stop' as const }),
  fc.record({
    kind: fc.constant('start' as const),
    ready: fc.boolean(),
    adopt: fc.constant(null),
    epochMax: small,
  }),
  fc.record({
    kind: fc.constant('power' as const),
    group: fc.constantFrom(null, 0),
    power: fc.constantFrom(null, 0, 5),
  }),
  fc.record({
    kind: fc.constant('peer' as const),
    node,
    reach: fc.constantFrom('silent' as const, 'heard' as const, 'both' as const),
    boot: fc.constantFrom(1n, 2n),
    hung: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('summary' as const),
    node,
    flags: fc.integer({ min: 0, max: 15 }),
    viewEpoch: small,
    viewMembers: mask,
  }),
  fc.record({ kind: fc.constant('message' as const), from: node, message }),
  bitmap.map((groups) => ({ kind: 'sockets' as const, beganMs: 0, groups })),
);

/** One event and, mostly, the answers to its installs. */
const step = fc.tuple(event, fc.integer({ min: 0, max: 400 }), fc.boolean());

function owns(effects: readonly FarmEffect[]): boolean {
  const last = effects.findLast((effect) => effect.kind === 'install');
  return (
    last?.kind === 'install' && last.tables.some(({ flags }) => flags.some((f) => (f & 1) !== 0))
  );
}

describe('farm: any events', () => {
  it('views only get better, tables are whole, nothing is owned without right, state is bounded', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        let state: FarmState = farmInit({
          me,
          nodes,
          groups: [{ name: 'web', powers: { 0: 1, 1: 1, 2: 1 } }],
          timing,
        });
        let nowMs = 1000;
        const give = (one: Timeless): readonly FarmEffect[] => {
          const before = state;
          const [next, effects] = farmStep(state, { ...one, nowMs } as FarmEvent);
          check(before, next, effects);
          state = next;
          return effects;
        };
        give({ kind: 'start', ready: true, adopt: null, epochMax: 0 });
        for (const [one, passedMs, answer] of steps) {
          nowMs += passedMs;
          const effects = give(one);
          if (!answer) continue;
          for (const effect of effects) {
            if (effect.kind === 'install') give({ kind: 'installed', install: effect.install });
          }
        }
      }),
      { numRuns: 400 },
    );
  });
});

function check(before: FarmState, next: FarmState, effects: readonly FarmEffect[]): void {
  if (before.view !== null && next.view !== null && next.role !== 'stopped') {
    const restarted = before.startedMs !== next.startedMs;
    assert.ok(restarted || !isBetter(before.view, nameOf(next.view)), 'the view went back');
  }
  assert.ok(next.epochMax >= before.epochMax);
  assert.ok(next.mark >= before.mark);
  const deadline = farmDeadline(next);
  assert.ok(deadline === null || deadline > next.nowMs);
  const may = next.role !== 'stopped' && next.ready && next.settled && next.excludedBy === null;
  if (owns(effects)) assert.ok(may, 'owns without right');
  assert.ok(Object.keys(next.peers).length <= nodes.length - 1);
  assert.ok(effects.length < 40);
  for (const effect of effects) {
    if (effect.kind === 'install') {
      for (const { flags, owner, holder } of effect.tables) {
        assert.deepEqual([flags.length, owner.length, holder.length], Array(3).fill(bucketCount));
      }
    }
    if (effect.kind === 'send') assert.notEqual(effect.to, me);
  }
  assert.ok(plain(next), 'state is not plain data');
}

/** Only what JSON has, bigint and bytes. */
function plain(value: unknown): boolean {
  if (value === null || value instanceof Uint8Array) return true;
  if (Array.isArray(value)) return value.every(plain);
  if (typeof value === 'object') {
    const proto: unknown = Object.getPrototypeOf(value);
    // fast-check makes some of the objects that come in without a prototype.
    return (proto === Object.prototype || proto === null) && Object.values(value).every(plain);
  }
  if (typeof value === 'number') return Number.isFinite(value);
  return ['string', 'boolean', 'bigint'].includes(typeof value);
}
