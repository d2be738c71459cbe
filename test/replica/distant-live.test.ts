/**
 * A distant copy of a primary that goes on: what it has at any moment, and that nobody ever waits for
 * it, however slow it is or long away.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Distant } from './distant.ts';
import {
  type Away,
  awayForLong,
  burstAtTheEnd,
  overloaded,
  withDistant,
} from './distant-scenarios.ts';
import type { Duo } from './duo.ts';
import { cannotRun, Ground } from './pair.ts';
import { closedAndEqual, fill, mib } from './rows.ts';

describe('a distant copy', { skip: cannotRun, timeout: 600_000 }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  type Trouble = (duo: Duo, copy: Distant) => Promise<void>;
  const troubles: readonly (readonly [string, Trouble])[] = [
    ['nothing', async () => undefined],
    ['a cut', (_duo, copy) => copy.side.request('cut', { ms: 40 })],
    ['its worker killed', (_duo, copy) => copy.side.kill('worker')],
    ['its holder killed', (_duo, copy) => copy.side.kill('holder')],
    ['the second killed', (duo) => duo.second.kill('worker')],
  ];

  test('whenever it dies, what it has is a prefix of the history', async (t) => {
    const open = { ring: 64 * mib, journal: 128 * mib };
    await withDistant(ground, { open }, async (duo, copy) => {
      // So that what a history begins with is everywhere.
      await duo.begin(299);
      await delay(100);
      await duo.finish();
      for (const [i, [what, trouble]] of troubles.entries()) {
        await duo.begin(300 + i);
        const first = (await copy.side.status()).applied;
        await delay(150 + 40 * i);
        await trouble(duo, copy);
        await delay(60);
        const last = (await copy.side.status()).durable;
        assert.ok(last > first, `nothing came: ${what}`);
        await copy.crash();
        assert.equal(await copy.replayed(), 'in_sync');
        await duo.check(copy.side, 'none');
        await copy.open();
        await duo.finish();
        t.diagnostic(`${what}: ${last - first} records before its end`);
      }
      assert.equal(await copy.figure('diverted'), 0);
      await closedAndEqual(duo);
    });
  });

  const ways: readonly Away[] = ['stands still', 'cut off', 'closed'];
  for (const how of ways) {
    test(`${how} for more than the ring holds: nobody waits, and only what changed is sent`, async (t) => {
      await withDistant(ground, { relayed: how === 'cut off' }, async (duo, copy) => {
        const cost = await awayForLong(duo, copy, how, 40);
        t.diagnostic(JSON.stringify(cost));
        assert.ok(cost.diverted > 0, 'nothing left the ring');
        const { kind } = await copy.heard('resync', { state: 'done', kind: 'dirty' });
        assert.equal(kind, 'dirty');
        assert.ok(cost.sent <= 1.15 * cost.changed, `${cost.sent} sent for ${cost.changed}`);
        assert.ok(cost.read <= 1.15 * cost.changed, `${cost.read} read for ${cost.changed}`);
        await closedAndEqual(duo);
      });
    });
  }

  test('away for less than the ring holds: the ring is all that it needs', async (t) => {
    await withDistant(ground, { open: { ring: 32 * mib } }, async (duo, copy) => {
      await fill(join(duo.prim.seen, 'tree'), 8);
      await duo.begin(320);
      await delay(200);
      await duo.finish();
      const said = duo.prim.events.length;
      await copy.close();
      await duo.begin(321);
      const written = await duo.figure(duo.prim, 'bytes_sent');
      await fill(join(duo.prim.seen, 'tree'), 2);
      await delay(200);
      await duo.round?.stop();
      await duo.settled();
      const bytes = (await duo.figure(duo.prim, 'bytes_sent')) - written;
      assert.notEqual(await copy.figure('lag_bytes'), 0);
      const sent = await copy.figure('sent');
      await copy.open();
      await duo.finish();
      const more = (await copy.figure('sent')) - sent;
      t.diagnostic(`${bytes} bytes to the second, ${more} to the copy that came back`);
      assert.ok(more <= 1.2 * bytes + 65_536, `${more} bytes sent for ${bytes}`);
      for (const kind of ['dirty', 'compare', 'roll_back', 'first_copy']) {
        assert.equal(copy.times('resync', { kind }, said), 0, kind);
      }
      assert.equal(await copy.figure('diverted'), 0);
      await closedAndEqual(duo);
    });
  });

  for (const relayed of [true, false]) {
    const what = relayed ? 'a line that is too slow' : 'a copy that stands still in turns';
    test(`${what}: in sync when the load ends`, async (t) => {
      await withDistant(ground, { relayed }, async (duo, copy) => {
        await overloaded(duo, copy, relayed ? 330 : 331, 5000);
        const started = copy.times('resync', { state: 'started' });
        const interrupted = copy.times('resync', { state: 'interrupted' });
        const diverted = await copy.figure('diverted');
        t.diagnostic(`${diverted} diverted, ${started} resyncs, ${interrupted} interrupted`);
        assert.ok(diverted > 0, 'it was not overloaded');
        assert.equal(interrupted, 0, 'a resync was interrupted by the load');
        await closedAndEqual(duo);
      });
    });
  }

  test('more than there is room for at the end of a resync: that does not end', async () => {
    await withDistant(ground, { relayed: true }, async (duo, copy) => {
      await burstAtTheEnd(duo, copy);
      await closedAndEqual(duo);
    });
  });

  test('two of them: each gets everything, also while the other is away', async () => {
    await withDistant(ground, { distant: 2 }, async (duo, first) => {
      const [, second] = duo.distant;
      assert.ok(second !== undefined);
      await duo.begin(340);
      await delay(200);
      await second.side.pause();
      await fill(join(duo.prim.seen, 'tree'), 12);
      await duo.round?.stop();
      await duo.settled();
      await first.isEqual();
      assert.ok(second.side.standsStill);
      assert.ok((await second.figure('diverted')) > 0);
      assert.ok((await second.figure('lag_bytes')) > 0);
      second.side.goOn();
      await duo.finish();
      await duo.begin(341);
      await first.crash();
      await duo.sh(duo.prim, 'rm -r tree; mkdir tree; head -c 9M /dev/urandom >tree/new');
      await first.returns();
      await delay(200);
      await duo.finish();
      await closedAndEqual(duo);
    });
  });

  test('it and the second away at once, and back at once', async () => {
    await withDistant(ground, {}, async (duo, copy) => {
      await duo.begin(350);
      await delay(200);
      await Promise.all([duo.crash(duo.second), copy.crash()]);
      await duo.alone();
      await fill(join(duo.prim.seen, 'tree'), 12);
      await delay(200);
      await Promise.all([duo.secondReturns(), copy.returns()]);
      await duo.inSync();
      await duo.finish();
      await closedAndEqual(duo);
    });
  });
});
