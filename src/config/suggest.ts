/** "; did you mean "addr"?" for the nearest of some names, or nothing when none is near. */
export function suggestion(wrong: string, names: Iterable<string>): string {
  const name = nearest(wrong, names);
  return name === null ? '' : `; did you mean "${name}"?`;
}

/** Below this the words only look alike by chance: "adress" and "addr" have 0.80. */
const similarMin = 0.79;

/** The name most like what was written, without regard to case; null when none is much like it. */
export function nearest(wrong: string, names: Iterable<string>): string | null {
  // A word this long is no slip of the pen.
  if (wrong.length > 64) return null;
  let best: string | null = null;
  let most = similarMin;
  for (const name of names) {
    const similarity = likeness(wrong.toLowerCase(), name.toLowerCase());
    if (similarity > most) {
      best = name;
      most = similarity;
    }
  }
  return best;
}

function likeness(a: string, b: string): number {
  // Jaro-Winkler does not see swapped letters in words of three.
  const letters = (word: string) => word.split('').toSorted().join('');
  return letters(a) === letters(b) ? Math.max(0.9, jaroWinkler(a, b)) : jaroWinkler(a, b);
}

/**
 * Jaro-Winkler similarity, 0 to 1. It forgives what counting edits does not: words cut short or
 * written out, as long as they begin alike.
 */
function jaroWinkler(a: string, b: string): number {
  const reach = Math.max(0, Math.floor(Math.max(a.length, b.length) / 2) - 1);
  const used = new Set<number>();
  const fromA: string[] = [];
  for (let i = 0; i < a.length; i += 1) {
    const last = Math.min(b.length - 1, i + reach);
    for (let j = Math.max(0, i - reach); j <= last; j += 1) {
      if (a[i] !== b[j] || used.has(j)) continue;
      used.add(j);
      fromA.push(a[i] ?? '');
      break;
    }
  }
  const same = fromA.length;
  if (same === 0) return 0;
  const fromB = [...used].toSorted((x, y) => x - y).map((j) => b[j]);
  const swapped = fromA.filter((letter, index) => letter !== fromB[index]).length / 2;
  const jaro = (same / a.length + same / b.length + (same - swapped) / same) / 3;
  let prefix = 0;
  while (prefix < 4 && prefix < a.length && a[prefix] === b[prefix]) prefix += 1;
  return jaro + prefix * 0.1 * (1 - jaro);
}
