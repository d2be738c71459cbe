/** The checks of contract.ts find registers that break a promise, and pass one that keeps all. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compare, whyNotAsked } from '../../src/arbiter/record.ts';
import type { ArbiterAnswer, ArbiterRecord, Register } from '../../src/arbiter/register.ts';
import type { RegisterQuestion } from '../../src/arbiter/register.ts';
import { checks, type World } from './contract.ts';

/** What a register may do wrong. */
const bugs = [
  'compares the epoch only',
  'compares all but the lease',
  'answers before it is durable',
  'compares, waits, then writes',
  'tells now and then what it held before',
  'says unreachable for what may be done',
  'says lost for what it did itself',
  'takes an older record',
  'takes what is no record',
  'has one record for all modules',
  'never answers',
  'never answers when it is closed',
  'makes what is there already',
] as const;
type Bug = (typeof bugs)[number];

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A register in memory, with one bug or none. What is in `disk` survives a crash. */
class MemoryWorld implements World {
  readonly bug: Bug | null;
  memory = new Map<string, ArbiterRecord>();
  disk = new Map<string, ArbiterRecord>();
  before = new Map<string, ArbiterRecord>();
  state: 'good' | 'silent' | 'away' = 'good';
  reads = 0;
  /** Counts crashes: what was under way in an earlier life gets no answer. */
  life = 0;

  constructor(bug: Bug | null) {
    this.bug = bug;
  }

  open(_node: number, timeLimitMs = 20_000): Register {
    return new MemoryRegister(this, timeLimitMs);
  }

  crash(): Promise<void> {
    this.life += 1;
    this.memory = new Map(this.disk);
    return Promise.resolve();
  }

  readonly hang = (): Promise<void> => {
    this.state = 'silent';
    return Promise.resolve();
  };

  resume(): Promise<void> {
    return this.up();
  }

  down(): Promise<void> {
    this.state = 'away';
    return Promise.resolve();
  }

  up(): Promise<void> {
    this.state = 'good';
    return Promise.resolve();
  }

  compare(held: ArbiterRecord | null, from: ArbiterRecord | null, to: ArbiterRecord) {
    const found = compare(held, from, to);
    switch (this.bug) {
      case 'compares the epoch only':
        return found === 'lost' && held?.epoch === from?.epoch ? 'write' : found;
      case 'compares all but the lease':
        return held && from && compare({ ...held, leaseMs: from.leaseMs }, from, to) === 'write'
          ? 'write'
          : found;
      case 'says lost for what it did itself':
        return found === 'won' ? 'lost' : found;
      case 'makes what is there already':
        return from === null && found === 'lost' ? 'write' : found;
      default:
        return found;
    }
  }

  put(key: string, to: ArbiterRecord): void {
    const held = this.memory.get(key);
    if (held !== undefined) this.before.set(key, held);
    this.memory.set(key, to);
    if (this.bug !== 'answers before it is durable') this.disk.set(key, to);
    else setTimeout(() => this.disk.set(key, to), 20);
  }
}

class MemoryRegister implements Register {
  readonly text = 'memory';
  readonly #world: MemoryWorld;
  readonly #limitMs: number;
  #isClosed = false;

  constructor(world: MemoryWorld, limitMs: number) {
    this.#world = world;
    this.#limitMs = limitMs;
  }

  read(module: string): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'read', module });
  }

  swap(...[module, from, to]: Parameters<Register['swap']>): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'swap', module, from, to });
  }

  close(): Promise<void> {
    this.#isClosed = true;
    return Promise.resolve();
  }

  async #ask(question: RegisterQuestion): Promise<ArbiterAnswer> {
    const world = this.#world;
    const { bug, life } = world;
    if (this.#isClosed) {
      if (bug === 'never answers when it is closed') return await new Promise(() => undefined);
      return { outcome: 'unreachable', why: 'closed' };
    }
    const bad = whyNotAsked(question);
    const isOld = bad?.includes('not later') === true;
    const isLetIn = bug === (isOld ? 'takes an older record' : 'takes what is no record');
    if (bad !== null && !isLetIn) return { outcome: 'unreachable', why: bad };
    if (world.state === 'away') return { outcome: 'unreachable', why: 'away' };
    const isUnsure = question.kind === 'swap' && bug !== 'says unreachable for what may be done';
    const none: ArbiterAnswer = { outcome: isUnsure ? 'unknown' : 'unreachable', why: 'no answer' };
    await tick();
    if (world.life !== life) return none;
    const answer = await this.#carryOut(question);
    await tick();
    if (world.life !== life || this.#isClosed) return none;
    // The state may have become another while the question was under way.
    if ((world.state as string) !== 'silent') return answer;
    if (bug === 'never answers') return await new Promise(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, this.#limitMs));
    return none;
  }

  async #carryOut(question: RegisterQuestion): Promise<ArbiterAnswer> {
    const world = this.#world;
    const key = world.bug === 'has one record for all modules' ? '' : question.module;
    if (question.kind === 'read') {
      world.reads += 1;
      const isOld = world.bug === 'tells now and then what it held before' && world.reads % 2 === 0;
      const held = (isOld ? world.before : world.memory).get(key) ?? world.memory.get(key);
      return { outcome: 'record', record: held ?? null };
    }
    const { from, to } = question;
    const held = world.memory.get(key) ?? null;
    const found = world.compare(held, from, to);
    if (found === 'lost') return { outcome: 'lost', record: held };
    if (world.bug === 'compares, waits, then writes') await tick();
    if (found === 'write') world.put(key, to);
    return { outcome: 'won' };
  }
}

/** What the checks say of a register with that bug; null: nothing is wrong with it. */
async function verdict(bug: Bug | null, only = ''): Promise<string | null> {
  for (const { name, run } of checks) {
    if (!name.includes(only)) continue;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error('the check does not end')), 5000);
    });
    try {
      await Promise.race([run(new MemoryWorld(bug)), late]);
    } catch (error) {
      return `${name}: ${error instanceof Error ? error.message : String(error)}`;
    } finally {
      clearTimeout(timer);
    }
  }
  return null;
}

describe('the checks of registers', () => {
  it('pass one that keeps every promise', async () => {
    assert.equal(await verdict(null), null);
  });
  it('find by the history of two clients alone what breaks it', async () => {
    for (const bug of [
      'answers before it is durable',
      'compares, waits, then writes',
      'tells now and then what it held before',
    ] as const) {
      assert.match((await verdict(bug, 'linearizable')) ?? '', /epoch \d+/, bug);
    }
  });
  for (const bug of bugs) {
    it(`find one that ${bug}`, async (t) => {
      const said = await verdict(bug);
      assert.ok(said !== null, 'nothing was found');
      t.diagnostic(said.split('\n')[0] ?? '');
    });
  }
});
