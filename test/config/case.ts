/** One mistake in a good file. */
export interface Case {
  /** "CODE:line", several where one edit makes several mistakes. */
  readonly at: readonly string[];
  readonly says: RegExp;
  readonly edits: readonly (readonly [string, string])[];
}

/** Codes and lines as one text, what the errors say, and the edits that make the mistake. */
export function one(
  at: string,
  says: RegExp,
  ...edits: readonly (readonly [string, string])[]
): Case {
  return { at: at.split(' '), says, edits };
}
