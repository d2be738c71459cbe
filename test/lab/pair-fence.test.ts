/** A mirror of two servers without a third machine: each cuts the other's power before it goes on alone. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Host } from '../../src/lab/host.ts';
import { Pair } from './pair-support.ts';
import { eventually, skip } from './support.ts';

const longMs = 90_000;

/** Does what the agents order: takes servers their power, and gives it back where it is told to. */
class PowerStrip {
  readonly orders: string[] = [];
  readonly faults: string[] = [];
  /** False: nobody switches on again what was switched off. */
  gives = true;
  readonly #pair: Pair;
  #timer: NodeJS.Timeout | null = null;
  #busy: Promise<void> = Promise.resolve();
  #isBusy = false;
  #isOut = false;

  constructor(pair: Pair) {
    this.#pair = pair;
    this.#timer = setInterval(() => this.#look(), 50);
  }

  async end(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#busy;
  }

  file(host: Host, what: string): string {
    return join(this.#pair.lab.dir, 'fence', `${host.name}.${what}`);
  }

  isOn(host: Host): boolean {
    return readFileSync(this.file(host, 'power'), 'utf8') === 'on';
  }

  /** By hand. */
  async set(host: Host, on: boolean): Promise<void> {
    if (this.isOn(host) === on) return;
    if (on) await this.#pair.boot(host);
    else await host.power();
    writeFileSync(this.file(host, 'power'), on ? 'on' : 'off');
  }

  /** The mains: what was ordered by then is never done. */
  async blackout(): Promise<void> {
    await this.#busy;
    this.#isOut = true;
    const hosts = [this.#pair.a, this.#pair.b];
    await Promise.all(hosts.map((host) => host.power()));
    for (const host of hosts) {
      rmSync(this.file(host, 'order'), { force: true });
      writeFileSync(this.file(host, 'power'), 'off');
    }
    this.#isOut = false;
  }

  /** One order at a time. */
  #look(): void {
    if (this.#isBusy || this.#isOut) return;
    this.#isBusy = true;
    this.#busy = this.#carryOut()
      .catch((error: unknown) => void this.faults.push(String(error)))
      .finally(() => {
        this.#isBusy = false;
      });
  }

  async #carryOut(): Promise<void> {
    for (const host of [this.#pair.a, this.#pair.b]) {
      const path = this.file(host, 'order');
      if (!existsSync(path)) continue;
      const order = readFileSync(path, 'utf8').trim();
      if (order === '' || (order === 'on' && !this.gives)) continue;
      rmSync(path);
      this.orders.push(`${host.name} ${order}`);
      await this.set(host, order === 'on');
    }
  }
}

describe('a mirror whose servers fence each other', { skip, timeout: 600_000 }, () => {
  let mirror: Pair;
  let strip: PowerStrip;
  let a: Host;
  let b: Host;

  before(async () => {
    mirror = await Pair.up({ arbiter: { type: 'fence', delayMs: 3000 } });
    ({ a, b } = mirror);
    strip = new PowerStrip(mirror);
    await mirror.ready();
  });
  after(async () => {
    await strip?.end();
    await mirror?.down();
    assert.deepEqual(strip?.faults, []);
  });

  /** That server is not the only one any more that writes the register. */
  const met = (host: Host): Promise<true> =>
    eventually(
      'the servers to have spoken',
      async () => {
        const file = '/var/lib/holdfast/fence-register.json';
        return /"solo":false/.test(host.readFile(file)) ? true : null;
      },
      longMs,
    );

  test('a primary that loses its power: it is confirmed off before the other one serves', async () => {
    const writer = await mirror.writer(a);
    strip.gives = false;
    // By a cable that nobody has told the switch of: it says "on" until it is ordered off.
    await a.power();
    const count = writer.last();
    await mirror.becomes(b, 'ALONE Ready', longMs);
    assert.deepEqual(strip.orders.slice(0, 1), [`${a.name} off`]);
    await mirror.assertWritten(b, count);
  });

  test('who comes back speaks with the other one first, and follows', async () => {
    strip.gives = true;
    await mirror.becomes(a, 'SECOND Ready', longMs);
    await mirror.becomes(b, 'PRIM Ready', longMs);
    // Only now could either take over from the other again.
    await met(b);
    assert.deepEqual(strip.orders, [`${a.name} off`, `${a.name} on`]);
  });

  test('a cut: the primary is quicker, and the other one comes back as its secondary', async (t) => {
    t.after(() => mirror.lab.heal());
    const from = strip.orders.length;
    const writer = await mirror.writer(b, 'cut');
    strip.gives = false;
    await mirror.lab.cut(a.name, b.name);
    await mirror.becomes(b, 'ALONE Ready', longMs);
    assert.deepEqual(strip.orders.slice(from), [`${a.name} off`]);
    const count = writer.last();
    await eventually('writes to go on', async () => (writer.last() > count + 10 ? true : null));
    await mirror.lab.heal();
    strip.gives = true;
    await mirror.becomes(a, 'SECOND Ready', longMs);
    await mirror.becomes(b, 'PRIM Ready', longMs);
    await met(b);
    await mirror.assertWritten(a, count, 'cut');
  });

  test('both lose their power: neither goes first before it has spoken with the other', async () => {
    const from = strip.orders.length;
    await strip.blackout();
    await strip.set(b, true);
    await eventually('it to say for whom it waits', async () => {
      const { why } = await mirror.status(b);
      return /have not spoken since this one was started/.test(why.join()) ? true : null;
    });
    assert.equal(await mirror.shown(b), 'WAIT NotReady');
    await strip.set(a, true);
    await mirror.settled(longMs);
    assert.deepEqual(strip.orders.slice(from), [], 'nobody was fenced');
  });
});
