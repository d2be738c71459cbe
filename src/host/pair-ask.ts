/** A question to the register of mirrors, with an answer in any case. */
import type { Register } from '../arbiter/register.ts';
import type { ArbiterAnswer, MirrorEffect } from '../core/mirror.ts';

export type Question = Extract<MirrorEffect, { kind: 'arbiterRead' | 'arbiterSwap' }>;

/** A register answers within its own limit; one that breaks that counts as one that did not. */
const limitMs = 15_000;

export async function askRegister(
  register: Register,
  module: string,
  question: Question,
): Promise<ArbiterAnswer> {
  let timer: NodeJS.Timeout | null = null;
  const late = new Promise<ArbiterAnswer>((resolve) => {
    const answer = { outcome: 'unknown', why: 'no answer within its time limit' } as const;
    timer = setTimeout(() => resolve(answer), (register.limitMs ?? 0) + limitMs);
  });
  const asked =
    question.kind === 'arbiterRead'
      ? register.read(module)
      : register.swap(module, question.from, question.to);
  try {
    return await Promise.race([asked, late]);
  } finally {
    if (timer !== null) clearTimeout(timer);
  }
}
