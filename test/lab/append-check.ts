/**
 * What clients that append values and read all of them may have seen (append-clients.ts): each single value must
 * look as if it was appended once, at one moment between its invocation and its end. Values do not depend on each
 * other, so this is all of linearizability but the order of two appends among themselves.
 */
import type { Answer } from './set-check.ts';

/** Times in nanoseconds of the clients' clock. */
export interface Append {
  readonly id: string;
  readonly invokedNs: number;
  /** ok: committed. fail: the server has undone it. unknown: no answer; it may still come to be. */
  outcome: 'ok' | 'fail' | 'unknown';
  endedNs: number;
}

export interface Read {
  readonly beganNs: number;
  readonly endedNs: number;
  readonly ids: readonly string[];
}

/** All that clients said. */
export class AppendHistory {
  readonly appends = new Map<string, Append>();
  readonly reads: Read[] = [];
  /** Who answered when, by the wall clock: no server has another one to tell. */
  readonly answers: Answer[] = [];
  acknowledged = 0;
  /** All that happened before is known. */
  untilNs = 0;

  /** Takes one line; one that says nothing is passed over. */
  add(line: string): void {
    const [verb, ...words] = line.split(' ');
    const [first = '', second = '', third = ''] = words;
    if (verb === 'invoked') {
      this.untilNs = Number(second);
      const open = { outcome: 'unknown', endedNs: Infinity } as const;
      this.appends.set(first, { id: first, invokedNs: this.untilNs, ...open });
    } else if (verb === 'ok' || verb === 'fail' || verb === 'unknown') this.#ended(verb, words);
    else if (verb === 'read') {
      const ids = (words[5] ?? '').split(',').filter(Boolean);
      this.reads.push({ beganNs: Number(first), endedNs: Number(second), ids });
      this.#answer('u', third, words[3], words[4]);
    } else if (verb === 'probe') this.#answer('u', first, second, third);
  }

  #ended(outcome: Append['outcome'], words: readonly string[]): void {
    const [id = '', endedNs, run = '', us, seenMs] = words;
    const append = this.appends.get(id);
    if (append === undefined) return;
    append.outcome = outcome;
    append.endedNs = Number(endedNs);
    if (outcome !== 'ok') return;
    this.acknowledged += 1;
    this.#answer('w', run, us, seenMs, id);
  }

  #answer(kind: Answer['kind'], run: string, us = '', seenMs = '', id?: string): void {
    const sentNs = Number(us) * 1e3;
    if (Number.isNaN(sentNs)) return;
    const name = id ?? `answer ${this.answers.length}`;
    this.answers.push({ kind, id: name, run, sentNs, seenNs: Number(seenMs) * 1e6 });
  }
}

/** What is wrong with one read. `seen`: what reads have shown that ended before this one began. */
function wrongRead(
  appends: ReadonlyMap<string, Append>,
  read: Read,
  seen: ReadonlySet<string>,
  name: string,
): readonly string[] {
  const problems: string[] = [];
  const there = new Set<string>();
  for (const id of read.ids) {
    const append = appends.get(id);
    if (there.has(id)) problems.push(`${id} is twice in ${name}`);
    there.add(id);
    if (append === undefined || append.invokedNs > read.endedNs)
      problems.push(`${id} is in ${name} and was not appended yet`);
    else if (append.outcome === 'fail') problems.push(`${id} is in ${name} and was undone`);
  }
  for (const { id, outcome, endedNs } of appends.values()) {
    if (there.has(id)) continue;
    if (outcome === 'ok' && endedNs < read.beganNs)
      problems.push(`${id} was acknowledged before and is not in ${name}`);
    else if (seen.has(id)) problems.push(`${id} was read before and is not in ${name}`);
  }
  return problems;
}

/** What is wrong with a read that begins now, when nothing is under way that was read before. */
export function wrongNow(
  history: AppendHistory,
  ids: readonly string[],
  nowNs: number,
): readonly string[] {
  const seen = new Set(history.reads.flatMap((read) => (read.endedNs < nowNs ? read.ids : [])));
  const read = { beganNs: nowNs, endedNs: Infinity, ids };
  return wrongRead(history.appends, read, seen, 'what the primary has');
}

/** What is wrong with the reads of the clients. */
export function wrongReads({ appends, reads }: AppendHistory): readonly string[] {
  const byBegin = reads.toSorted((a, b) => a.beganNs - b.beganNs);
  const byEnd = reads.toSorted((a, b) => a.endedNs - b.endedNs);
  const seen = new Set<string>();
  let ended = 0;
  return byBegin.flatMap((read, at) => {
    for (let older = byEnd[ended]; older !== undefined; older = byEnd[++ended]) {
      if (older.endedNs >= read.beganNs) break;
      for (const id of older.ids) seen.add(id);
    }
    return wrongRead(appends, read, seen, `read ${at + 1}`);
  });
}
