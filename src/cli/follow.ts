/**
 * The lines of `now` that come after those of `seen`, where both are the last lines of a log that only
 * grows. The last line seen may occur several times, so the place is found by the longest tail of
 * `seen` that ends there; where nothing fits, the log was cut and all of `now` is new.
 */
export function newLines(seen: readonly string[], now: readonly string[]): readonly string[] {
  if (seen.length === 0) return now;
  let best = { length: 0, end: 0 };
  for (let end = now.length; end > 0; end -= 1) {
    const length = commonTail(seen, now, end);
    if (length > best.length) best = { length, end };
    // A tail that reaches back to the first line of either cannot be beaten.
    if (length === seen.length || (length > 0 && length === end)) break;
  }
  return now.slice(best.end);
}

/** How many lines before now[end] equal the last lines of `seen`. */
function commonTail(seen: readonly string[], now: readonly string[], end: number): number {
  let length = 0;
  while (
    length < seen.length &&
    length < end &&
    seen[seen.length - 1 - length] === now[end - 1 - length]
  ) {
    length += 1;
  }
  return length;
}
