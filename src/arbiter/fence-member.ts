/**
 * The register of two servers that fence each other: each has all records on its disk. A record counts
 * once both have it, or once the other server is confirmed off, and then on this one alone.
 *
 * - The server with the lower id is the head: it decides swaps, one after the other. It writes at the
 *   other one first, then at itself; only then the swap is done, and told to anybody. So what was ever
 *   told is on both disks.
 * - solo (durable): the other one was confirmed off, and has not joined since. Only the one that is left
 *   writes. At most one is solo: who was off must have joined before it may fence, and to join ends the
 *   other's solo first, durably.
 * - A server that has started, and is not solo, does nothing before it has spoken with the other one
 *   (wait-for-all): that one may be solo, or on the way to be.
 */
import { z } from 'zod';
import type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';
import {
  compare,
  isEqual,
  moduleForm,
  parseAnswer,
  questionForm,
  recordForm,
  type RegisterQuestion,
} from './record.ts';
import { NotAsked } from './static.ts';

export type Records = Readonly<Record<string, ArbiterRecord>>;

/** What is on the disk of a member. */
export interface MemberState {
  readonly solo: boolean;
  readonly records: Records;
}

export interface MemberPorts {
  /** True: the server with the lower id. */
  readonly isHead: boolean;
  /** Durable when it resolves; one at a time. */
  readonly save: (state: MemberState) => Promise<void>;
  /** Asks the other member. NotAsked: it surely did not leave. */
  readonly ask: (question: unknown) => Promise<unknown>;
  /** Cuts its power; null once it is confirmed off, else why not. `first`: this server was primary. */
  readonly fence: () => Promise<string | null>;
  /** What is allowed again once this server alone is recorded as the one that writes. */
  readonly fenced: () => void;
  /** Why it must not be fenced yet, where a question of that kind has waited so long; null: it may. */
  readonly whyNotYet: (isIncumbent: boolean, waitedMs: number) => string | null;
  /** Has this server spoken with the other one since it was started (the server, not the agent)? */
  readonly spoke: { get(): boolean; set(): void };
  readonly nowMs: () => number;
  readonly pause: (ms: number) => Promise<void>;
}

const recordsForm = z.record(moduleForm, recordForm);
const messageForm = z.union([
  questionForm,
  z.strictObject({ kind: z.literal('join'), records: recordsForm }),
  z.strictObject({
    kind: z.literal('store'),
    module: moduleForm,
    from: recordForm.nullable(),
    to: recordForm,
  }),
]);
/** ok: both have the same now. mine: it was alone, and what it has is what counts. */
const joinForm = z.strictObject({ ok: z.boolean(), mine: z.boolean(), records: recordsForm });
/** stored, or what is there instead; solo: it writes alone. */
const storeForm = z.strictObject({
  stored: z.boolean(),
  solo: z.boolean(),
  held: recordForm.nullable(),
});
interface Joined {
  readonly ok: boolean;
  readonly mine: boolean;
  readonly records: Records;
}
type Swap = Extract<RegisterQuestion, { kind: 'swap' }>;

/** Between two tries to reach the other one. */
const retryMs = 250;
/** A member whose record changes again and again while it joins is tried again later. */
const joinRounds = 5;

export class FenceMember {
  readonly #ports: MemberPorts;
  #state: MemberState;
  /** Both had the same, since this process began, and what was asked of the other one was answered. */
  #joined = false;
  /** Of a tail: modules with a record that is here, and may not be at the head yet. */
  readonly #open = new Set<string>();
  #operation: Promise<unknown> = Promise.resolve();
  #saving: Promise<unknown> = Promise.resolve();
  #fencing: Promise<string | null> | null = null;
  #fault = '';

  constructor(state: MemberState, ports: MemberPorts) {
    this.#state = state;
    this.#ports = ports;
  }

  get solo(): boolean {
    return this.#state.solo;
  }

  /** Answers by then, or soon after. */
  answer(question: RegisterQuestion, byMs: number): Promise<ArbiterAnswer> {
    return this.#inTurn(byMs, () =>
      question.kind === 'read'
        ? this.#read(question.module, byMs)
        : this.#ports.isHead || this.#state.solo
          ? this.#decide(question, byMs)
          : this.#forward(question, byMs),
    );
  }

  /**
   * Speaks with the other one, where that is still to be done. Nobody need ask the register for that: a
   * server that follows does not, and could not take over if it had never spoken.
   */
  async meet(byMs: number): Promise<void> {
    if (this.#state.solo || this.#joined) return;
    await this.#inTurn(byMs, async () => unreachable((await this.#ready(byMs, null)) ?? ''));
  }

  /** What the other member asks. Throws ZodError where it is no question. */
  async serve(message: unknown, byMs: number): Promise<unknown> {
    const asked = messageForm.parse(message);
    if (asked.kind === 'join') return this.#onJoin(asked.records);
    if (asked.kind === 'store') return this.#onStore(asked);
    if (!this.#ports.isHead) return unreachable('it is not the head of the register');
    return this.answer(asked, byMs);
  }

  async #read(module: string, byMs: number): Promise<ArbiterAnswer> {
    const why = await this.#ready(byMs, null);
    if (why !== null) return unreachable(why);
    if (this.#ports.isHead || this.#state.solo || !this.#open.has(module)) {
      return { outcome: 'record', record: this.#held(module) };
    }
    const answer = parseAnswer(await this.#tryAsk({ kind: 'read', module }));
    if (answer.outcome === 'record' && isEqual(answer.record, this.#held(module))) {
      this.#open.delete(module);
    }
    return answer;
  }

  /** As head, or as the only one that writes. */
  async #decide(swap: Swap, byMs: number): Promise<ArbiterAnswer> {
    const { module, from, to } = swap;
    const why = await this.#ready(byMs, swap);
    if (why !== null) return unreachable(why);
    const found = compare(this.#held(module), from, to);
    if (found === 'won') return { outcome: 'won' };
    if (found === 'lost') return { outcome: 'lost', record: this.#held(module) };
    const { solo } = this.#state;
    const left = solo ? null : await this.#storeThere(swap, byMs);
    if (left !== null) return left;
    const answer = await this.#putHere(swap, solo);
    // The other one has joined meanwhile, and is to have it first.
    return answer ?? (this.#ports.isHead ? this.#decide(swap, byMs) : this.#forward(swap, byMs));
  }

  /** Null: the other one has it, or is off. */
  async #storeThere(swap: Swap, byMs: number): Promise<ArbiterAnswer | null> {
    const { module, from, to } = swap;
    const beganMs = this.#ports.nowMs();
    for (;;) {
      const answer = await this.#askMember({ kind: 'store', module, from, to }, storeForm);
      if (answer?.stored === true) return null;
      if (answer !== null) {
        // It has another one, or none: what is right is found out by joining.
        this.#joined = false;
        return { outcome: 'unknown', why: 'the other server has another record' };
      }
      const why = await this.#fenceAfter(swap, beganMs);
      if (this.#state.solo) return null;
      if (this.#ports.nowMs() >= byMs) {
        this.#joined = false;
        return { outcome: 'unknown', why };
      }
      await this.#ports.pause(retryMs);
    }
  }

  /** As tail: the head decides, or is off. */
  async #forward(swap: Swap, byMs: number): Promise<ArbiterAnswer> {
    const why = await this.#ready(byMs, swap);
    if (why !== null) return unreachable(why);
    const beganMs = this.#ports.nowMs();
    let mayLand = false;
    for (;;) {
      if (this.#state.solo) return this.#decide(swap, byMs);
      try {
        const answer = parseAnswer(await this.#ports.ask(swap));
        const isDone = answer.outcome === 'won' || answer.outcome === 'lost';
        if (answer.outcome === 'won' && isEqual(this.#held(swap.module), swap.to)) {
          this.#open.delete(swap.module);
        }
        if (isDone) return answer;
        mayLand ||= answer.outcome === 'unknown';
        return mayLand ? { outcome: 'unknown', why: whyOf(answer) } : answer;
      } catch (error) {
        mayLand ||= !(error instanceof NotAsked);
      }
      const left = await this.#fenceAfter(swap, beganMs);
      if (this.#state.solo) continue;
      if (this.#ports.nowMs() >= byMs) {
        return mayLand ? { outcome: 'unknown', why: left } : unreachable(left);
      }
      await this.#ports.pause(retryMs);
    }
  }

  /** Null: it was to write alone, and does not any more. */
  #putHere({ module, from, to }: Swap, asSolo: boolean): Promise<ArbiterAnswer | null> {
    return this.#locked(async () => {
      if (asSolo && !this.#state.solo) return null;
      // A join may have brought it meanwhile.
      const found = compare(this.#held(module), from, to);
      if (found === 'lost') return { outcome: 'lost', record: this.#held(module) };
      if (found === 'write') {
        const why = await this.#save({ records: { ...this.#state.records, [module]: to } });
        if (why !== null) return { outcome: 'unknown', why };
      }
      return { outcome: 'won' };
    });
  }

  /** Null: this server may say what the register holds. A swap may have the other one fenced. */
  async #ready(byMs: number, swap: Swap | null): Promise<string | null> {
    const beganMs = this.#ports.nowMs();
    for (;;) {
      if (this.#state.solo || this.#joined) return null;
      if (await this.#join()) return null;
      let why = 'the other server does not answer';
      if (!this.#ports.spoke.get()) {
        why = 'waits for the other server: they have not spoken since this one was started';
      } else if (swap !== null) why = await this.#fenceAfter(swap, beganMs);
      if (this.#state.solo) return null;
      if (swap === null || this.#ports.nowMs() >= byMs) return why;
      await this.#ports.pause(retryMs);
    }
  }

  async #join(): Promise<boolean> {
    for (let round = 0; round < joinRounds; round += 1) {
      const { records } = this.#state;
      const answer = await this.#askMember({ kind: 'join', records }, joinForm);
      if (answer === null) return false;
      if (answer.ok) {
        this.#joined = true;
        this.#open.clear();
        this.#ports.spoke.set();
        return true;
      }
      const isSaved = await this.#locked(async () => {
        if (this.#state.solo) return false;
        const next = answer.mine ? answer.records : later(this.#state.records, answer.records);
        return (await this.#save({ records: next })) === null;
      });
      if (!isSaved) return false;
    }
    return false;
  }

  #onJoin(records: Records): Promise<Joined> {
    return this.#locked(async () => {
      // It is to be recorded as off first: who has started again since must find that.
      if (this.#fencing !== null) return { ok: false, mine: false, records: {} };
      const mine = this.#state.solo;
      const next = mine ? this.#state.records : later(this.#state.records, records);
      const isSame = sameRecords(next, records);
      const isChange = !sameRecords(next, this.#state.records) || (mine && isSame);
      const why = isChange ? await this.#save({ solo: mine && !isSame, records: next }) : null;
      const ok = isSame && why === null;
      if (ok) {
        this.#joined = true;
        this.#ports.spoke.set();
      }
      return { ok, mine, records: this.#state.records };
    });
  }

  #onStore(asked: Swap | { module: string; from: ArbiterRecord | null; to: ArbiterRecord }) {
    const { module, from, to } = asked;
    return this.#locked(async () => {
      const held = this.#held(module);
      const { solo } = this.#state;
      if (solo || this.#ports.isHead) return { stored: false, solo, held };
      const found = compare(held, from, to);
      if (found === 'write') {
        this.#open.add(module);
        const why = await this.#save({ records: { ...this.#state.records, [module]: to } });
        return { stored: why === null, solo, held: this.#held(module) };
      }
      return { stored: found === 'won', solo, held };
    });
  }

  /** Fences where that is due; why it is not, or what came of it. */
  async #fenceAfter(swap: Swap, beganMs: number): Promise<string> {
    const { from, to } = swap;
    const isIncumbent = from !== null && from.primary === to.primary;
    const why = this.#ports.whyNotYet(isIncumbent, this.#ports.nowMs() - beganMs);
    if (this.#fencing === null && why !== null) return why;
    this.#fencing ??= this.#fence();
    await this.#fencing;
    return this.#fault;
  }

  async #fence(): Promise<string | null> {
    try {
      this.#fault = (await this.#ports.fence()) ?? '';
      if (this.#fault !== '') return this.#fault;
      await this.#locked(async () => {
        const why = await this.#save({ solo: true });
        if (why !== null) this.#fault = why;
        else {
          this.#joined = false;
          this.#open.clear();
          this.#ports.fenced();
        }
      });
      return this.#fault;
    } finally {
      this.#fencing = null;
    }
  }

  #held(module: string): ArbiterRecord | null {
    return Object.hasOwn(this.#state.records, module)
      ? (this.#state.records[module] ?? null)
      : null;
  }

  /** Null once it is durable; else why not, and what holds is read from the disk at the next start. */
  async #save(change: Partial<MemberState>): Promise<string | null> {
    const next = { ...this.#state, ...change };
    try {
      await this.#ports.save(next);
      this.#state = next;
      return null;
    } catch (error) {
      return `its disk does not keep the register: ${String(error)}`;
    }
  }

  /** Null: no answer, or none that can be read. */
  async #askMember<T>(question: unknown, form: z.ZodType<T>): Promise<T | null> {
    try {
      const parsed = form.safeParse(await this.#ports.ask(question));
      return parsed.success ? parsed.data : null;
    } catch {
      return null;
    }
  }

  async #tryAsk(question: RegisterQuestion): Promise<unknown> {
    return this.#ports.ask(question).catch((error: unknown) => unreachable(String(error)));
  }

  /** Changes of the state, one after the other; nothing in them waits for the other server. */
  #locked<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#saving.then(work);
    this.#saving = next.catch(() => undefined);
    return next;
  }

  /** Questions, one after the other; one whose turn comes too late is not begun. */
  #inTurn(byMs: number, work: () => Promise<ArbiterAnswer>): Promise<ArbiterAnswer> {
    const next = this.#operation.then(() =>
      this.#ports.nowMs() >= byMs ? unreachable('other questions come first') : work(),
    );
    this.#operation = next.catch(() => undefined);
    return next.catch((error: unknown) => ({ outcome: 'unknown' as const, why: String(error) }));
  }
}

const unreachable = (why: string): ArbiterAnswer => ({ outcome: 'unreachable', why });
const whyOf = (answer: ArbiterAnswer): string => ('why' in answer ? answer.why : '');

/** Of each module the later record. */
function later(a: Records, b: Records): Records {
  const merged: Record<string, ArbiterRecord> = { ...a };
  for (const [module, record] of Object.entries(b)) {
    const own = Object.hasOwn(a, module) ? a[module] : undefined;
    const isLater =
      own === undefined ||
      record.incarnation > own.incarnation ||
      (record.incarnation === own.incarnation && record.epoch > own.epoch);
    if (isLater) merged[module] = record;
  }
  return merged;
}

function sameRecords(a: Records, b: Records): boolean {
  const names = Object.keys(a);
  if (names.length !== Object.keys(b).length) return false;
  return names.every((name) => Object.hasOwn(b, name) && isEqual(a[name] ?? null, b[name] ?? null));
}
