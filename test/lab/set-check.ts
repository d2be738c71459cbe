/** What clients of a set may have seen: nothing acknowledged is lost, and one server answers at a time. */

/** An answer that a client got. Times in nanoseconds of the clock that all hosts of a lab share. */
export interface Answer {
  /** w: a record that was synced. u: a datagram. */
  readonly kind: 'w' | 'u';
  readonly id: string;
  /** One start of the application on one server. */
  readonly run: string;
  readonly sentNs: number;
  readonly seenNs: number;
}

/** How much later than the first answer of a run one of an older run may reach a client. */
const underWayNs = 1e9;

export function parseAnswer(line: string): Answer | null {
  const [kind, id, run, sent, seen] = line.split(' ');
  if ((kind !== 'w' && kind !== 'u') || id === undefined || run === undefined) return null;
  return { kind, id, run, sentNs: Number(sent), seenNs: Number(seen) };
}

interface Span {
  readonly run: string;
  firstNs: number;
  lastNs: number;
  lastSeenNs: number;
}

function spansOf(answers: readonly Answer[]): readonly Span[] {
  const spans = new Map<string, Span>();
  for (const { run, sentNs, seenNs } of answers) {
    const known = spans.get(run) ?? { run, firstNs: sentNs, lastNs: sentNs, lastSeenNs: seenNs };
    known.firstNs = Math.min(known.firstNs, sentNs);
    known.lastNs = Math.max(known.lastNs, sentNs);
    known.lastSeenNs = Math.max(known.lastSeenNs, seenNs);
    spans.set(run, known);
  }
  return [...spans.values()].toSorted((a, b) => a.firstNs - b.firstNs);
}

/** Two starts of the application whose answers overlap in time; a datagram that both answered. */
export function twoAnswerers(answers: readonly Answer[]): readonly string[] {
  const spans = spansOf(answers);
  const overlaps = spans.flatMap((older, at) =>
    spans.slice(at + 1).flatMap((newer) => {
      const byMs = Math.round((older.lastNs - newer.firstNs) / 1e6);
      const lateMs = Math.round((older.lastSeenNs - newer.firstNs) / 1e6);
      if (older.lastNs > newer.firstNs)
        return [`${older.run} and ${newer.run} answered at the same time, for ${byMs} ms`];
      if (older.lastSeenNs > newer.firstNs + underWayNs)
        return [`an answer of ${older.run} came ${lateMs} ms after the first of ${newer.run}`];
      return [];
    }),
  );
  const firsts = new Map<string, string>();
  const doubles = answers.flatMap(({ kind, id, run }) => {
    const first = firsts.get(`${kind}${id}`);
    firsts.set(`${kind}${id}`, run);
    if (first === undefined || first === run) return [];
    return [`${kind} ${id} was answered by ${first} and by ${run}`];
  });
  return [...overlaps, ...doubles];
}

/** What is wrong with the set that is read in the end: "ID RUN" a line, in the order of the file. */
export function wrongRecords(
  answers: readonly Answer[],
  lines: readonly string[],
): readonly string[] {
  const problems: string[] = [];
  const runs = new Map<string, string>();
  const ended = new Set<string>();
  let writing = '';
  for (const line of lines) {
    const [id = '', run = ''] = line.split(' ');
    if (runs.has(id)) problems.push(`${id} is there twice: of ${runs.get(id)} and of ${run}`);
    runs.set(id, run);
    if (run === writing) continue;
    if (ended.has(run)) problems.push(`${run} wrote ${id} after ${writing} had begun`);
    ended.add(writing);
    writing = run;
  }
  for (const { kind, id, run } of answers) {
    if (kind !== 'w') continue;
    const found = runs.get(id);
    if (found === undefined) problems.push(`${id} is lost: ${run} acknowledged it`);
    else if (found !== run) problems.push(`${id} was acknowledged by ${run} and is of ${found}`);
  }
  return problems;
}
