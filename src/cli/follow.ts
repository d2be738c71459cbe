/**
 * The lines of `now` that are not in `seen`, where both are the last lines (of the same number at the
 * most) of a log that only grows. `now` then begins with what is left of `seen` after its first lines
 * have gone; the smallest loss that fits is taken. Nothing fits: all of `now` is new.
 */
export function newLines(seen: readonly string[], now: readonly string[]): readonly string[] {
  for (let gone = 0; gone < seen.length; gone += 1) {
    const kept = seen.length - gone;
    if (kept <= now.length && beginsWith(now, seen, gone)) return now.slice(kept);
  }
  return now;
}

function beginsWith(now: readonly string[], seen: readonly string[], gone: number): boolean {
  for (let index = gone; index < seen.length; index += 1) {
    if (seen[index] !== now[index - gone]) return false;
  }
  return true;
}
