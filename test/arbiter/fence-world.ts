/**
 * Two members of a register that fence each other, under faults that a seed picks: cuts, lost answers,
 * servers that lose their power and return, agents that start again. Time is a count of turns.
 */
import assert from 'node:assert/strict';
import { FenceMember, type MemberState } from '../../src/arbiter/fence-member.ts';
import type { ArbiterAnswer, ArbiterRecord } from '../../src/arbiter/register.ts';
import { NotAsked } from '../../src/arbiter/static.ts';
import { next } from './contract.ts';

/** Small, seeded; enough for choices. */
export function chance(seed: number): () => number {
  let state = seed * 2_654_435_761 + 1;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
    const mixed = Math.imul(state ^ (state >>> 12), 0x297a2d39);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

interface Server {
  disk: MemberState;
  spoke: boolean;
  /** Null: its power is off. */
  member: FenceMember | null;
  /** Of this process: what an earlier one has begun goes nowhere. */
  life: number;
}

/** Rules that are taken away, to see that the checks see it. */
export type Mutant = 'none' | 'no wait-for-all' | 'fence lies';

export class FenceWorld {
  readonly servers: Server[] = [0, 1].map(() => ({
    disk: { solo: false, records: {} },
    spoke: false,
    member: null,
    life: 0,
  }));
  /** cut[from] : what this server sends is lost. */
  readonly cut = [false, false];
  /** Every record that was told to anybody as what the register holds, by epoch. */
  readonly told = new Map<number, ArbiterRecord>();
  wins = 0;
  fences = 0;
  readonly #random: () => number;
  readonly #mutant: Mutant;
  #nowMs = 0;
  readonly #sleeping: { readonly atMs: number; readonly wake: () => void }[] = [];

  constructor(seed: number, mutant: Mutant = 'none') {
    this.#random = chance(seed);
    this.#mutant = mutant;
    this.boot(0);
    this.boot(1);
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** The server, or only its agent. */
  boot(id: number, isAgent = false): void {
    const server = this.#server(id);
    server.life += 1;
    if (!isAgent) server.spoke = this.#mutant === 'no wait-for-all';
    const { life } = server;
    const other = 1 - id;
    const isDead = (): boolean => server.life !== life;
    const never = new Promise<never>(() => undefined);
    server.member = new FenceMember(server.disk, {
      isHead: id === 0,
      save: async (state) => {
        await this.#turns(2);
        if (isDead()) return never;
        server.disk = state;
        await this.#turns(2);
        if (isDead()) return never;
      },
      ask: (question) => this.#ask(id, other, life, question),
      fence: async () => {
        await this.#turns(20);
        if (isDead()) return never;
        if (this.#mutant !== 'fence lies') this.#off(other);
        this.fences += 1;
        await this.#turns(10);
        return isDead() ? never : null;
      },
      fenced: () => undefined,
      whyNotYet: (isIncumbent, waited) => (waited > (isIncumbent ? 20 : 80) ? null : 'not yet'),
      spoke: { get: () => server.spoke, set: () => void (server.spoke = true) },
      nowMs: () => this.#nowMs,
      pause: (ms) => this.#turns(ms / 25),
    });
  }

  #off(id: number): void {
    const server = this.#server(id);
    server.life += 1;
    server.member = null;
  }

  async #ask(from: number, to: number, life: number, question: unknown): Promise<unknown> {
    const isDead = (): boolean => this.#server(from).life !== life;
    if (this.cut[from] === true && this.#random() < 0.5) throw new NotAsked('no connection');
    await this.#turns(1 + Math.floor(this.#random() * 4));
    const lost = (): boolean => this.cut[from] === true || this.#random() < 0.03;
    const { member, life: theirs } = this.#server(to);
    if (lost() || member === null) {
      await this.#turns(30);
      throw new Error('no answer');
    }
    const serving = member.serve(JSON.parse(JSON.stringify(question)), this.#nowMs + 60);
    const late = this.#turns(90).then(() => 'late' as const);
    const answer = await Promise.race([serving, late]);
    const isGone = this.#server(to).life !== theirs || this.cut[to] === true;
    if (isDead()) return new Promise<never>(() => undefined);
    if (answer === 'late' || isGone || this.#random() < 0.03) {
      await this.#turns(30);
      throw new Error('no answer');
    }
    return JSON.parse(JSON.stringify(answer));
  }

  /** Somebody at that server asks for the next record, or what there is. */
  async client(id: number): Promise<void> {
    const server = this.#server(id);
    const { member, life } = server;
    if (member === null) return;
    const isDead = (): boolean => server.life !== life;
    let record = server.disk.records['db'] ?? null;
    // Or by what is remembered, as a secondary claims.
    if (this.#random() < 0.6) {
      const question = { kind: 'read', module: 'db' } as const;
      const read = await this.#until(member.answer(question, this.#nowMs + 100), isDead);
      if (read?.outcome !== 'record') return;
      this.#tell(read.record);
      ({ record } = read);
    }
    const to =
      record === null
        ? { incarnation: 1, epoch: 1, primary: id, inSync: [id], leaseMs: 1500 }
        : next(record, {
            primary: this.#random() < 0.7 ? record.primary : id,
            // So that two that are asked for at one time differ.
            leaseMs: 1000 + Math.floor(this.#random() * 1e6),
          });
    const swap = { kind: 'swap', module: 'db', from: record, to } as const;
    const answer = await this.#until(member.answer(swap, this.#nowMs + 400), isDead);
    if (answer?.outcome === 'won') {
      this.#tell(to);
      this.wins += 1;
    }
    if (answer?.outcome === 'lost') this.#tell(answer.record);
  }

  /** Null: the server has died meanwhile, and nobody hears it. */
  async #until(
    asked: Promise<ArbiterAnswer>,
    isDead: () => boolean,
  ): Promise<ArbiterAnswer | null> {
    const late = this.#turns(2000).then(() => null);
    const answer = await Promise.race([asked, late]);
    return isDead() ? null : answer;
  }

  /** Of an epoch there is one record; and what was told is never gone. */
  #tell(record: ArbiterRecord | null): void {
    const newest = Math.max(0, ...this.told.keys());
    if (record === null) return;
    const known = this.told.get(record.epoch);
    if (known === undefined) this.told.set(record.epoch, record);
    else assert.deepEqual(record, known, `two records of epoch ${record.epoch}`);
    assert.ok(record.epoch >= newest - 1, `epoch ${record.epoch} after ${newest} was told`);
  }

  /** One fault, or the end of one. */
  disturb(): void {
    const id = this.#random() < 0.5 ? 0 : 1;
    const what = this.#random();
    const { member } = this.#server(id);
    if (member === null) {
      if (what < 0.7) this.boot(id);
    } else if (what < 0.25) this.cut[id] = this.cut[id] !== true;
    else if (what < 0.35) this.cut[0] = this.cut[1] = true;
    else if (what < 0.6) this.cut[0] = this.cut[1] = false;
    else if (what < 0.75) this.#off(id);
    else if (what < 0.9) this.boot(id, true);
  }

  heal(): void {
    this.cut[0] = this.cut[1] = false;
    for (const id of [0, 1]) if (this.#server(id).member === null) this.boot(id);
  }

  /** Lets time pass: each turn wakes who waited for it, and lets all of that settle. */
  async pass(turns: number): Promise<void> {
    for (let turn = 0; turn < turns; turn += 1) {
      this.#nowMs += 1;
      const due = this.#sleeping.filter(({ atMs }) => atMs <= this.#nowMs);
      for (const one of due) this.#sleeping.splice(this.#sleeping.indexOf(one), 1);
      for (const { wake } of due) wake();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #turns(count: number): Promise<void> {
    return new Promise((wake) =>
      this.#sleeping.push({ atMs: this.#nowMs + Math.max(1, count), wake }),
    );
  }

  #server(id: number): Server {
    const server = this.servers[id];
    assert.ok(server !== undefined);
    return server;
  }
}
