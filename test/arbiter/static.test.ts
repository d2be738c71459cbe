import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { openRegister, type Register, type RegisterPorts } from '../../src/arbiter/register.ts';
import { RegisterCalls } from '../../src/host/register-calls.ts';
import { checks, first, next, type World } from './contract.ts';
import { clusterId, workersOf } from './directory-world.ts';

const holder = 9;

/** Node 9 holds the register; all others ask it over a channel that takes JSON. */
class StaticWorld implements World {
  readonly folder = mkdtempSync(join(tmpdir(), 'holdfast-static-'));
  readonly #calls = new Map<number, RegisterCalls>();
  readonly #registers: Register[] = [];
  #channel: 'good' | 'silent' | 'away' = 'good';
  readonly held: Register;

  constructor(t: TestContext) {
    this.held = this.#open(holder, 20_000);
    this.#callsOf(holder).serve(() => this.held);
    t.after(async () => {
      await Promise.all(this.#registers.map((register) => register.close()));
      rmSync(this.folder, { recursive: true });
    });
  }

  open(node: number, timeLimitMs = 20_000): Register {
    return this.#open(node, timeLimitMs);
  }

  crash(): Promise<void> {
    for (const pid of workersOf(join(this.folder, 'register'))) process.kill(pid, 'SIGKILL');
    return Promise.resolve();
  }

  readonly hang = (): Promise<void> => {
    this.#channel = 'silent';
    return Promise.resolve();
  };

  resume(): Promise<void> {
    return this.up();
  }

  down(): Promise<void> {
    this.#channel = 'away';
    return Promise.resolve();
  }

  up(): Promise<void> {
    this.#channel = 'good';
    return Promise.resolve();
  }

  /** A message as another node would send it, and whether it was understood. */
  deliver(to: number, from: number, message: unknown): boolean {
    return this.#callsOf(to).onMessage(from, message);
  }

  #open(node: number, timeLimitMs: number): Register {
    const ports: RegisterPorts = {
      me: node,
      clusterId,
      keyFiles: { cert: '', key: '', caCert: '' },
      runFolder: this.folder,
      isSilent: () => false,
      stateFolder: this.folder,
      timeLimitMs,
      ask: (to, question, limitMs) => this.#callsOf(node).ask(to, question, limitMs),
      nameOf: (id) => `n${id}`,
    };
    const register = openRegister({ type: 'static', node: holder }, ports);
    assert.ok(register !== null);
    this.#registers.push(register);
    return register;
  }

  #callsOf(node: number): RegisterCalls {
    const made = this.#calls.get(node);
    if (made !== undefined) return made;
    const calls = new RegisterCalls((to, message) => this.#carry(node, to, message));
    this.#calls.set(node, calls);
    return calls;
  }

  #carry(from: number, to: number, message: unknown): boolean {
    if (this.#channel === 'away') return false;
    if (this.#channel === 'silent') return true;
    const text = JSON.stringify(message);
    setImmediate(() => {
      const { message: inner } = JSON.parse(text) as { readonly message: unknown };
      this.deliver(to, from, inner);
    });
    return true;
  }
}

describe('a register on the disk of one node', () => {
  for (const { name, run } of checks) {
    it(name, async (t) => await run(new StaticWorld(t)));
  }

  it('is the same for the node itself, which makes it', async (t) => {
    const world = new StaticWorld(t);
    assert.equal(world.held.text, 'disk of n9');
    assert.deepEqual(await world.held.swap('db', null, first), { outcome: 'won' });
    assert.deepEqual(await world.open(0).swap('db', first, next(first)), { outcome: 'won' });
    const found = await world.held.read('db');
    assert.deepEqual(found, { outcome: 'record', record: next(first) });
    assert.deepEqual(readdirSync(world.folder), ['register']);
  });

  it('is served by that node only, and to questions only', async (t) => {
    const world = new StaticWorld(t);
    const calls = new RegisterCalls(() => true);
    const sent: unknown[] = [];
    const other = new RegisterCalls((_to, message) => sent.push(message) > 0);
    assert.equal(calls.onMessage(1, { what: 'other', id: 1 }), false);
    assert.equal(calls.onMessage(1, null), false);
    assert.equal(calls.onMessage(1, { what: 'answer', id: 77, answer: {} }), true, 'too late');
    other.onMessage(1, { what: 'question', id: 5, question: { kind: 'read', module: 'db' } });
    await new Promise(setImmediate);
    const why = 'it does not hold the register';
    const message = { what: 'answer', id: 5, answer: { outcome: 'unreachable', why } };
    assert.deepEqual(sent, [{ kind: 'register', message }]);
    const wrong = { kind: 'swap', module: '../x', from: null, to: first };
    assert.equal(world.deliver(holder, 1, { what: 'question', id: 1, question: wrong }), true);
    assert.deepEqual(await world.held.read('db'), { outcome: 'record', record: null });
  });
});
