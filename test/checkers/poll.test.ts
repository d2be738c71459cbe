import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PollOptions, startPolling, type Timers } from '../../src/checkers/poll.ts';

/** A clock that moves when told, in steps that let promises run in between. */
class ManualTimers implements Timers {
  #now = 0;
  #timers: { at: number; call: () => void }[] = [];
  chance = 0.5;

  nowMs(): number {
    return this.#now;
  }

  random(): number {
    return this.chance;
  }

  after(ms: number, call: () => void): () => void {
    const timer = { at: this.#now + ms, call };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer);
    };
  }

  async advance(ms: number): Promise<void> {
    const until = this.#now + ms;
    for (;;) {
      await settle();
      const due = this.#timers.filter((one) => one.at <= until).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((one) => one !== due);
      this.#now = due.at;
      due.call();
    }
    this.#now = until;
  }

  pending(): number {
    return this.#timers.length;
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

function setup(change: Partial<PollOptions> = {}) {
  const timers = new ManualTimers();
  const looks: number[] = [];
  const states: string[] = [];
  const answer: { why: string | null } = { why: null };
  const poll = startPolling({
    intervalMs: 1000,
    timeoutMs: 200,
    failures: 1,
    timers,
    probe: () => {
      looks.push(timers.nowMs());
      return Promise.resolve(answer.why);
    },
    onState: (state, reason) => states.push(`${state}: ${reason}`),
    ...change,
  });
  return { timers, looks, states, answer, poll };
}

test('looks at the interval and reports only changes', async () => {
  const { timers, looks, states, answer } = setup();
  await timers.advance(3250);
  assert.deepEqual(looks, [250, 1250, 2250, 3250]);
  assert.deepEqual(states, ['up: answers']);
  answer.why = 'refused';
  await timers.advance(2000);
  answer.why = null;
  await timers.advance(1000);
  assert.deepEqual(states, ['up: answers', 'down: refused', 'up: answers']);
});

test('checks of one period are spread by a tenth', async () => {
  for (const [chance, looks] of [
    [0, [0, 900, 1800]],
    [0.999, [499.5, 1599.3, 2699.1]],
  ] as const) {
    const timers = new ManualTimers();
    timers.chance = chance;
    const seen: number[] = [];
    startPolling({
      intervalMs: 1000,
      timeoutMs: 200,
      failures: 1,
      timers,
      probe: () => {
        seen.push(timers.nowMs());
        return Promise.resolve(null);
      },
      onState: () => undefined,
    });
    await timers.advance(2699.5);
    assert.deepEqual(
      seen.map((at) => Math.round(at * 10) / 10),
      looks,
    );
  }
});

test('down needs failures in a row, the first state too', async () => {
  const { timers, states, answer } = setup({ failures: 3, promptly: true });
  answer.why = 'refused';
  await timers.advance(1999);
  assert.deepEqual(states, []);
  answer.why = null;
  await timers.advance(1000);
  assert.deepEqual(states, ['up: answers']);
  answer.why = 'refused';
  await timers.advance(2000);
  answer.why = null;
  await timers.advance(1000);
  answer.why = 'refused';
  await timers.advance(2000);
  assert.deepEqual(states, ['up: answers']);
  await timers.advance(1000);
  assert.deepEqual(states, ['up: answers', 'down: refused']);
});

test('while not up it looks eagerly', async () => {
  const { timers, looks, answer } = setup({ eagerMs: 100, promptly: true });
  answer.why = 'not yet';
  await timers.advance(350);
  assert.deepEqual(looks, [0, 100, 200, 300]);
  answer.why = null;
  await timers.advance(1150);
  assert.deepEqual(looks, [0, 100, 200, 300, 400, 1400]);
});

test('a look that hangs is a failure at its timeout, and no second one runs beside it', async () => {
  let running = 0;
  let most = 0;
  const release: (() => void)[] = [];
  const { timers, states, looks } = setup({
    promptly: true,
    probe: (signal) => {
      most = Math.max(most, ++running);
      return new Promise((resolve) => {
        // Ends late: the signal alone does not end it.
        release.push(() => {
          running--;
          resolve(signal.aborted ? null : 'signal missing');
        });
      });
    },
  });
  await timers.advance(199);
  assert.deepEqual(states, []);
  await timers.advance(1);
  assert.deepEqual(states, ['down: no answer within 200 ms']);
  await timers.advance(10_000);
  assert.deepEqual([running, most], [1, 1]);
  release.shift()?.();
  await timers.advance(0);
  assert.deepEqual([running, most], [1, 1]);
  assert.equal(release.length, 1);
  assert.deepEqual(states, ['down: no answer within 200 ms']);
  assert.deepEqual(looks, []);
});

test('a probe that throws is a failure with its errno', async () => {
  const { timers, states } = setup({
    probe: () => Promise.reject(Object.assign(new Error('x'), { code: 'EMFILE' })),
  });
  await timers.advance(500);
  assert.deepEqual(states, ['down: EMFILE']);
});

test('poke looks now, once more when a look is under way', async () => {
  let finish = (): void => undefined;
  let count = 0;
  const { timers, poll } = setup({
    promptly: true,
    probe: () => {
      count++;
      return new Promise((resolve) => {
        finish = () => resolve(null);
      });
    },
  });
  await timers.advance(0);
  poll.poke();
  poll.poke();
  assert.equal(count, 1);
  finish();
  await timers.advance(0);
  assert.equal(count, 2);
  finish();
  await timers.advance(500);
  assert.equal(count, 2);
  poll.poke();
  await timers.advance(0);
  assert.equal(count, 3);
});

test('stop aborts the look under way, waits for it, and nothing comes after', async () => {
  const seen: boolean[] = [];
  const { timers, states, poll } = setup({
    promptly: true,
    probe: (signal) =>
      new Promise((resolve) => {
        signal.addEventListener('abort', () => {
          seen.push(signal.aborted);
          resolve('aborted');
        });
      }),
  });
  await timers.advance(0);
  await poll.stop();
  assert.deepEqual(seen, [true]);
  poll.poke();
  await timers.advance(10_000);
  assert.deepEqual(states, []);
  assert.equal(timers.pending(), 0);
});
