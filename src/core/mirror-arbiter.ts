/**
 * What this server asks of the arbiter's register, and what it makes of the answers. One question at
 * a time. A swap whose outcome is not known is asked again, the same, until an answer says what is:
 * it may land at any time, and so it counts as done for all that it would forbid.
 */
import {
  doubt,
  has,
  isLater,
  isSame,
  isSet,
  mayWrite,
  nameOf,
  noteRecord,
  say,
  setTimer,
  settleDoubts,
  type Work,
} from './mirror-state.ts';
import type { ArbiterAnswer, ArbiterRecord, Asked } from './mirror-types.ts';

/** No question may be put now: one is not answered, or the last one failed a moment ago. */
export const isBusy = (work: Work): boolean => work.asked !== null || isSet(work, 'retry');

export function askRead(work: Work): void {
  if (isBusy(work)) return;
  work.arbiterId += 1;
  work.asked = { id: work.arbiterId, what: 'read', from: work.durable.record, to: null };
  work.out.effects.push({ kind: 'arbiterRead', id: work.arbiterId });
}

export function askSwap(
  work: Work,
  what: Exclude<Asked['what'], 'read'>,
  from: ArbiterRecord | null,
  to: ArbiterRecord,
): void {
  if (isBusy(work)) return;
  work.arbiterId += 1;
  work.asked = { id: work.arbiterId, what, from, to };
  work.out.effects.push({ kind: 'arbiterSwap', id: work.arbiterId, from, to });
}

/** What an answer comes to. */
export type Found =
  /** Not for this machine, or nothing was learned. */
  | { readonly what: 'nothing' }
  /** The register holds what this server asked it to. */
  | { readonly what: 'done'; readonly asked: Asked; readonly record: ArbiterRecord }
  /** It holds this; a swap was not done and will not be, unless `unsure` says so. */
  | { readonly what: 'holds'; readonly asked: Asked; readonly record: ArbiterRecord | null };

export function onAnswer(work: Work, id: number, answer: ArbiterAnswer): Found {
  const { asked } = work;
  if (asked === null || asked.id !== id) return { what: 'nothing' };
  work.asked = null;
  switch (answer.outcome) {
    case 'unreachable':
    case 'unknown':
      if (answer.outcome === 'unknown' && asked.to !== null) doubt(work, asked.to);
      work.read = false;
      if (work.arbiterWhy === null) {
        say(work, 'arbiter', `the arbiter does not answer: ${answer.why}`, { asked: asked.what });
      }
      work.arbiterWhy = answer.why;
      setTimer(work, 'retry', work.config.timing.retryMs);
      return { what: 'nothing' };
    case 'won':
      answered(work);
      if (asked.to === null) return { what: 'nothing' };
      settleDoubts(work, asked.to);
      return done(asked, asked.to);
    case 'lost':
    case 'record':
      answered(work);
      return judged(work, asked, answer.record);
  }
}

const done = (asked: Asked, record: ArbiterRecord): Found => ({ what: 'done', asked, record });

function answered(work: Work): void {
  if (work.arbiterWhy !== null) say(work, 'arbiter', 'the arbiter answers again');
  work.arbiterWhy = null;
  work.arbiterBad = null;
}

/** The register as it is, held against what this server knows of it. */
function judged(work: Work, asked: Asked, record: ArbiterRecord | null): Found {
  if (isOvertakenAnswer(work, asked, record)) return { what: 'nothing' };
  work.seen = record;
  if (record !== null) {
    const own = work.unsure.find((one) => isSame(one, record));
    settleDoubts(work, record);
    if (own !== undefined) return done({ ...asked, to: own }, own);
  }
  const bad = badness(work, record);
  if (bad !== work.arbiterBad && bad !== null) say(work, 'arbiter', bad, { record });
  work.arbiterBad = bad;
  if (bad !== null) {
    setTimer(work, 'retry', work.config.timing.pollMs);
    return { what: 'nothing' };
  }
  return { what: 'holds', asked, record };
}

/** The primary's word of a later epoch came while the answer was under way. */
function isOvertakenAnswer(work: Work, asked: Asked, record: ArbiterRecord | null): boolean {
  const known = work.durable.record;
  if (record === null || known === null || !isLater(known, record)) return false;
  return asked.from === null || !isLater(asked.from, record);
}

/** Why a register cannot be believed; null: it can. */
function badness(work: Work, record: ArbiterRecord | null): string | null {
  const known = work.durable.record;
  if (known === null || !work.out.rules.registerNeverOlder) return null;
  if (record === null) {
    return `the arbiter's register is empty, and this server knows epoch ${known.epoch}`;
  }
  const { incarnation } = work.durable;
  if (record.incarnation < incarnation) {
    return `the arbiter's register is an abandoned one (${record.incarnation} of ${incarnation})`;
  }
  if (isLater(known, record)) {
    return `the arbiter's register is older than what this server knows: epoch ${record.epoch} of ${known.epoch}`;
  }
  if (record.epoch === known.epoch && !isSame(record, known)) {
    return `the arbiter's register was changed by another hand in epoch ${known.epoch}`;
  }
  return null;
}

/** It may still be that the record names the peer: the lease must be the peer's to cut. */
export function mayNamePeer(work: Work): boolean {
  const { peer } = work.config;
  const { durable, asked, unsure } = work;
  const swaps = [durable.record, asked?.to ?? null, ...unsure];
  return swaps.some((record) => has(record, peer));
}

/** Says what a record means to this server, for the log. */
export function noteFound(work: Work, record: ArbiterRecord): void {
  if (isLater(record, work.durable.record)) {
    const members = record.inSync.map((node) => nameOf(work, node)).join(', ');
    say(
      work,
      'arbiter',
      `epoch ${record.epoch}: ${nameOf(work, record.primary)}; in sync: ${members}`,
      {
        record,
      },
    );
  }
  noteRecord(work, record);
}

/** Another server holds the epoch now, and this one still acts as the primary. */
export function isOvertaken(work: Work, record: ArbiterRecord): boolean {
  return mayWrite(work) && record.primary !== work.config.me;
}
