/** From a sentence of a mirror's machine to its code in the registry, and what to do next. */
import { mirrorErrors } from './mirror.ts';
import { refusalErrors } from './refusal.ts';

export interface Explained {
  readonly code: keyof typeof refusalErrors | keyof typeof apart;
  readonly text: string;
  /** The next step, for this module. */
  readonly hint: string;
  /** What stands in the places of the sentence. */
  readonly values: Readonly<Record<string, string>>;
}

interface Form {
  readonly code: keyof typeof refusalErrors | keyof typeof apart;
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
  'dir',
]);

/** Said by `why`, too: what no rule decides. */
const apart = {
  'HF-MIRROR-016': mirrorErrors['HF-MIRROR-016'],
  'HF-MIRROR-017': mirrorErrors['HF-MIRROR-017'],
  'HF-MIRROR-018': mirrorErrors['HF-MIRROR-018'],
} as const;

const all = Object.entries({ ...refusalErrors, ...apart });

const forms: readonly Form[] = all.map(([code, { sentence, hint }]) => ({
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
    const next = hint.replace(/\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
    return { code, text, hint: next, values };
  }
  return null;
}
