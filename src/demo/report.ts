/** What the demo prints. */

export interface Verdict {
  readonly isGood: boolean;
  readonly text: string;
}

/** A count or a time that must not be above `most`. */
export function verdict(what: string, value: number, most: number, unit: string): Verdict {
  const isGood = value <= most;
  const limit = most === 0 ? '' : ` (at most ${most}${unit})`;
  return { isGood, text: `${mark(isGood)} ${what}: ${value}${unit}${limit}` };
}

export function mark(isGood: boolean): string {
  return isGood ? 'ok  ' : 'FAIL';
}

export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Prints them; true when all are good. */
export function conclude(verdicts: readonly Verdict[]): boolean {
  say('');
  for (const { text } of verdicts) say(text);
  return verdicts.every(({ isGood }) => isGood);
}
