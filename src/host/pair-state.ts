/**
 * What a mirror that decides for itself keeps: on disk what it promised, in /run all that the next
 * agent of the same boot of the server needs to go on.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { blankDurable, type Durable, type MirrorState } from '../core/mirror.ts';
import type { HoldfastError } from '../errors.ts';
import { copySchema, recordSchema, statusSchema } from './pair-wire.ts';
import { Kept } from './runtime.ts';
import { DurableFile, type StoreKind } from './store.ts';

const count = z.int().min(0);
const time = z.number();
const text = z.string();
const node = z.int().min(0).max(63);

const durableSchema: z.ZodType<Durable> = z.object({
  promised: count,
  record: recordSchema.nullable(),
  incarnation: count,
  failover: z.boolean(),
  home: node.nullable(),
});

const kind: StoreKind<Durable> = {
  kind: 'pair',
  version: 1,
  parse: (content) => durableSchema.parse(content),
};

/** The file of what is durable before anything that assumes it. */
export class PairRecord {
  readonly #file: DurableFile<Durable>;
  /** What was there when it was opened. */
  readonly value: Durable;

  private constructor(file: DurableFile<Durable>, value: Durable) {
    this.#file = file;
    this.value = value;
  }

  /** `failover`: as configured, for a server on which nothing was ever promised. */
  static async open(
    stateFolder: string,
    failover: boolean,
    onTrouble: (error: HoldfastError | null) => void,
  ): Promise<PairRecord> {
    const { file, stored } = await DurableFile.open(join(stateFolder, 'pair.json'), kind);
    onTrouble(stored.damage);
    return new PairRecord(file, stored.value ?? { ...blankDurable, failover });
  }

  /** Null once it is durable; else why it is not: the former content stays. */
  async write(durable: Durable): Promise<string | null> {
    const outcome = await this.#file.write(durable);
    return outcome.ok ? null : outcome.error.message;
  }
}

const phaseSchema = z.enum([
  'stopped',
  'prestart',
  'waiting',
  'secondOpening',
  'secondStarting',
  'second',
  'secondStopping',
  'secondForcing',
  'secondClosing',
  'primOpening',
  'primGrace',
  'primStarting',
  'primGate',
  'prim',
  'primStopping',
  'primForcing',
  'primClosing',
  'poststop',
]);
const afterSchema = z.enum(['stop', 'start', 'wait', 'prim', 'restart']);
const actionSchema = z.enum([
  'start',
  'stop',
  'stopstart',
  'stopwait',
  'restart',
  'swap',
  'failover',
]);
const orderSchema = z.enum([
  'start',
  'prim',
  'primforce',
  'second',
  'secondFullsync',
  'secondDiscard',
]);
const engineOrderSchema = z.union([
  z.object({ what: z.literal('prim'), epoch: count, force: z.boolean() }),
  z.object({ what: z.literal('alone'), epoch: count }),
  z.object({ what: z.literal('joined'), epoch: count }),
  z.object({
    what: z.literal('second'),
    floor: count,
    way: z.enum(['plain', 'fullsync', 'discard']),
  }),
  z.object({ what: z.literal('close') }),
]);
const timerSchema = z.enum(['ask', 'headStart', 'grace', 'retry', 'leave', 'status', 'look']);

/** The state of core/mirror-types.ts, but for the configuration: that is the new agent's own. */
const stateSchema = z.object({
  nowMs: time,
  bootMs: time,
  phase: phaseSchema,
  after: afterSchema,
  action: actionSchema,
  order: orderSchema,
  durable: durableSchema,
  unsaved: z.boolean(),
  copy: copySchema,
  read: z.boolean(),
  arbiterWhy: text.nullable(),
  arbiterBad: text.nullable(),
  seen: recordSchema.nullable(),
  asked: z
    .object({
      id: count,
      what: z.enum(['read', 'create', 'claim', 'degrade', 'join']),
      from: recordSchema.nullable(),
      to: recordSchema.nullable(),
    })
    .nullable(),
  unsure: z.array(recordSchema),
  arbiterId: count,
  peer: z.object({
    reach: z.enum(['silent', 'heard', 'both', 'unknown']),
    boot: text,
    hung: z.boolean(),
    heardMs: time,
    status: statusSchema.nullable(),
  }),
  engine: z.object({
    role: z.enum(['none', 'prim', 'second']),
    pending: z.object({ id: count, order: engineOrderSchema }).nullable(),
    next: engineOrderSchema.nullable(),
    peer: z.enum(['unknown', 'connected', 'lost', 'left']),
    peerCopy: z.enum(['none', 'resync', 'caughtUp', 'inSync']),
    permit: count,
    alone: z.boolean(),
  }),
  engineId: count,
  released: count,
  handOver: z.boolean(),
  leaving: z.boolean(),
  suspecting: z.boolean(),
  dissentMs: time.nullable(),
  lapsed: z.boolean(),
  swapTried: z.boolean(),
  hold: text.nullable(),
  // Of an agent that did not know it: nothing.
  data: text.nullable().default(null),
  parked: z.object({ why: text, follow: z.boolean() }).nullable(),
  veto: text.nullable(),
  health: z.boolean().nullable(),
  pendingDown: z
    .object({
      after: afterSchema,
      action: actionSchema,
      forced: z.boolean(),
      forHold: z.literal(true).optional(),
    })
    .nullable(),
  loops: z.array(time).max(1000),
  timers: z.partialRecord(timerSchema, time),
  refusal: text.nullable(),
  why: z.array(text),
  told: z.object({ status: text, announce: text, shown: text }),
});

export type PairMemory = Omit<MirrorState, 'config'>;

interface PairRuntime {
  /** Of the server: /run may be kept over a restart of it, what runs is not. */
  readonly boot: string;
  readonly leaseSlot: number;
  readonly state: PairMemory;
}

const runtimeSchema = z.object({
  boot: text,
  leaseSlot: z.int().min(0).max(63),
  state: stateSchema,
}) as unknown as z.ZodType<PairRuntime>;

/** Where the mirror was, for the agent that follows on the same boot. */
export class PairRuntimeFile {
  readonly #kept: Kept<PairRuntime>;
  readonly #boot: string;

  constructor(runFolder: string, module: string) {
    this.#kept = new Kept(join(runFolder, 'modules', `${module}.pair`), runtimeSchema);
    this.#boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  }

  /** Null where there is none of this boot, or it cannot be understood. */
  read(): Omit<PairRuntime, 'boot'> | null {
    const found = this.#kept.read();
    return found?.boot === this.#boot ? found : null;
  }

  /** @throws when /run cannot be written. */
  write(leaseSlot: number, state: PairMemory): void {
    this.#kept.write({ boot: this.#boot, leaseSlot, state });
  }

  remove(): void {
    this.#kept.remove();
  }
}
