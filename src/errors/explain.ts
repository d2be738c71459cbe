/** From a sentence of a mirror's machine to its code in the registry, and what to do next. */
import { refusalErrors } from './refusal.ts';

export interface Explained {
  readonly code: keyof typeof refusalErrors;
  readonly text: string;
  /** The next step, for this module. */
  readonly hint: string;
}

interface Form {
  readonly code: keyof typeof refusalErrors;
  readonly pattern: RegExp;
  readonly hint: string;
}

/** A word where one name or number stands; anything where a reason does. */
const wide: ReadonlySet<string> = new Set([
  'reason',
  'cause',
  'copy',
  'verb',
  'state',
  'by',
  'node',
]);

const forms: readonly Form[] = Object.entries(refusalErrors).map(([code, { sentence, hint }]) => ({
  code: code as Form['code'],
  pattern: new RegExp(
    `^${sentence
      .split(/\{(\w+)\}/)
      .map((part, at) =>
        at % 2 === 0
          ? part.replace(/[.*+?^$()[\]\\|{}]/g, '\\$&')
          : `(?<${part}>${wide.has(part) ? '.+?' : '\\S+?'})`,
      )
      .join('')}$`,
    's',
  ),
  hint,
}));

/** Null: a sentence of another part, of the replication engine, say, which has its own code or none. */
export function explainRefusal(text: string, module: string): Explained | null {
  for (const { code, pattern, hint } of forms) {
    const found = pattern.exec(text);
    if (found === null) continue;
    const values: Readonly<Record<string, string>> = { ...found.groups, module };
    return {
      code,
      text,
      hint: hint.replace(/\{(\w+)\}/g, (all, name: string) => values[name] ?? all),
    };
  }
  return null;
}
