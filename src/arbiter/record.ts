/** The forms of what registers keep, are asked and answer, and the compare-and-swap itself. */
import { z } from 'zod';
import type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';

/** What a node asks of a register that another one serves (`static`). */
export type RegisterQuestion =
  | { readonly kind: 'read'; readonly module: string }
  | {
      readonly kind: 'swap';
      readonly module: string;
      readonly from: ArbiterRecord | null;
      readonly to: ArbiterRecord;
    };

/** What a compare-and-swap comes to on what the register holds. write: `to` is to be put there. */
export function compare(
  held: ArbiterRecord | null,
  from: ArbiterRecord | null,
  to: ArbiterRecord,
): 'won' | 'lost' | 'write' {
  // The question was heard twice: it was done the first time.
  if (isEqual(held, to)) return 'won';
  return isEqual(held, from) ? 'write' : 'lost';
}

/** All of a record counts. */
export function isEqual(a: ArbiterRecord | null, b: ArbiterRecord | null): boolean {
  if (a === null || b === null) return a === b;
  return (
    a.incarnation === b.incarnation &&
    a.epoch === b.epoch &&
    a.primary === b.primary &&
    a.leaseMs === b.leaseMs &&
    a.inSync.length === b.inSync.length &&
    a.inSync.every((node, at) => node === b.inSync[at])
  );
}

/**
 * Why a question cannot be put to any register; null: it can. A record that is not later than the one
 * whose place it takes could come a second time, and a compare-and-swap would not see it.
 */
export function whyNotAsked(question: RegisterQuestion): string | null {
  const parsed = questionForm.safeParse(question);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    return `the question is not valid: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`;
  }
  if (question.kind === 'read' || question.from === null) return null;
  const { from, to } = question;
  const isLater =
    to.incarnation > from.incarnation ||
    (to.incarnation === from.incarnation && to.epoch > from.epoch);
  return isLater ? null : 'the new record is not later than the one whose place it takes';
}

/** A question of another node, from whatever carries it; throws ZodError where it is none. */
export function parseQuestion(message: unknown): RegisterQuestion {
  return questionForm.parse(message);
}

/** An answer of another node; throws ZodError where it is none. */
export function parseAnswer(message: unknown): ArbiterAnswer {
  return answerForm.parse(message);
}

/** A record that was read; throws ZodError where it is none. */
export function parseRecord(content: unknown): ArbiterRecord {
  return recordForm.parse(content);
}

const count = z.int().min(0);
const node = z.int().min(0).max(63);

export const recordForm = z
  .strictObject({
    incarnation: count,
    epoch: count,
    primary: node,
    inSync: z.array(node).min(1).max(64),
    leaseMs: count.max(86_400_000),
  })
  .refine(({ inSync }) => inSync.every((one, at) => at === 0 || one > (inSync[at - 1] ?? -1)), {
    error: 'inSync is not ascending',
  });

/** Names of modules, as module/name.ts has them; they become names of files and keys. */
export const moduleForm = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$/);

export const questionForm = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('read'), module: moduleForm }),
  z.strictObject({
    kind: z.literal('swap'),
    module: moduleForm,
    from: recordForm.nullable(),
    to: recordForm,
  }),
]);

const sentence = z.string().max(1000);
const answerForm = z.discriminatedUnion('outcome', [
  z.strictObject({ outcome: z.literal('record'), record: recordForm.nullable() }),
  z.strictObject({ outcome: z.literal('won') }),
  z.strictObject({ outcome: z.literal('lost'), record: recordForm.nullable() }),
  z.strictObject({ outcome: z.literal('unknown'), why: sentence }),
  z.strictObject({ outcome: z.literal('unreachable'), why: sentence }),
]);
