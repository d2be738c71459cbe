/** What the two agents of a mirror tell each other, checked: a peer may be of another version. */
import { z } from 'zod';
import type { ArbiterRecord, CopyState, Message, StatusMessage } from '../core/mirror.ts';

/** Sentences and the like; longer ones are nobody's. */
const textMax = 4096;
const count = z.int().min(0);
const node = z.int().min(0).max(63);

export const recordSchema: z.ZodType<ArbiterRecord> = z.object({
  incarnation: count,
  epoch: count,
  primary: node,
  inSync: z.array(node).max(2),
  leaseMs: count,
});

export const copySchema: z.ZodType<CopyState> = z.enum([
  'none',
  'inSync',
  'stale',
  'inconsistent',
  'failed',
]);

export const statusSchema: z.ZodType<StatusMessage> = z.object({
  kind: z.literal('status'),
  state: z.enum(['STOP', 'WAIT', 'ALONE', 'PRIM', 'SECOND']),
  readiness: z.enum(['NotReady', 'Transient', 'Ready']),
  role: z.enum(['none', 'primary', 'secondary']),
  record: recordSchema.nullable(),
  promised: count,
  incarnation: count,
  copy: copySchema,
  released: count,
  leaving: z.boolean(),
  handOver: z.boolean(),
  refuses: z.string().max(textMax).nullable(),
  home: node.nullable(),
  failover: z.boolean(),
  hello: z.boolean(),
});

const messageSchema: z.ZodType<Message> = z.union([
  statusSchema,
  z.object({ kind: z.literal('swap'), sync: z.boolean() }),
]);

/** A mirror's message from a peer, or null when it is not one (another version, a damaged frame). */
export function parsePairMessage(value: unknown): Message | null {
  const parsed = messageSchema.safeParse(value);
  return parsed.success ? parsed.data : null;
}
