/** "; did you mean "addr"?" for the nearest of some names, or nothing when none is near. */
export function suggestion(wrong: string, names: Iterable<string>): string {
  const name = nearest(wrong, names);
  return name === null ? '' : `; did you mean "${name}"?`;
}

/**
 * The name nearest to what was written, by edits (insert, delete, replace, swap of neighbours)
 * without regard to case; null when none is within a third of its length, at least 1.
 */
export function nearest(wrong: string, names: Iterable<string>): string | null {
  // A word this long is no slip of the pen, and the table below grows with its square.
  if (wrong.length > 64) return null;
  let best: string | null = null;
  let bestEdits = Infinity;
  for (const name of names) {
    const limit = Math.max(1, Math.floor(Math.max(name.length, wrong.length) / 3));
    const edits = distance(wrong.toLowerCase(), name.toLowerCase());
    if (edits <= limit && edits < bestEdits) {
      best = name;
      bestEdits = edits;
    }
  }
  return best;
}

/** Optimal string alignment distance. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1];
      let edits = Math.min(at(last, j) + 1, at(row, j - 1) + 1, at(last, j - 1) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        edits = Math.min(edits, at(before, j - 2) + 1);
      }
      row.push(edits);
    }
    before = last;
    last = row;
  }
  return at(last, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}
