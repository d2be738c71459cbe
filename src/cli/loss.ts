/** What `primforce` gives up, as far as the two servers can say. */
import type { ModuleStatus, PairStatus } from '../host/face.ts';
import { plural } from './format.ts';
import { copyWords } from './pair-text.ts';

/** The mirror's other server; status null: it does not answer. */
export interface Other {
  readonly node: string;
  readonly status: ModuleStatus | null;
}

/** Several lines: both copies, the newest record, then what is given up. */
export function lossText(node: string, own: ModuleStatus, other: Other | null): string {
  const record = newest(own.pair?.record ?? null, other?.status?.pair?.record ?? null);
  const peer = other?.node ?? 'the other server';
  const there = other?.status ?? null;
  const lines = [
    `${node} becomes primary of ${own.name} with the copy that it has.`,
    `  here, ${node}: ${copyText(own)}`,
    `  there, ${peer}: ${there === null ? 'does not answer' : copyText(there)}`,
    `  register: ${record === null ? 'no record is known' : recordText(record)}`,
    ...given(node, peer, own, there, record),
    ...ownCopy(own.pair?.copy ?? 'inSync'),
  ];
  return `${lines.join('\n')}\n`;
}

/** What the copy needs before anything can be served from it. */
function ownCopy(copy: PairStatus['copy']): readonly string[] {
  switch (copy) {
    case 'none':
      return ['There is no copy on this server: what lies in its directories becomes the data.'];
    case 'inconsistent':
      return [
        'This copy goes back to its last whole state first, from before the resynchronisation.',
      ];
    case 'failed':
      return ['This copy has failed: files may be damaged. Mend the disk first.'];
    default:
      return [];
  }
}

type Known = NonNullable<PairStatus['record']>;

function newest(one: Known | null, two: Known | null): Known | null {
  if (one === null || two === null) return one ?? two;
  const age = (record: Known): number => record.incarnation * 2 ** 40 + record.epoch;
  return age(two) > age(one) ? two : one;
}

function recordText({ epoch, primary, inSync }: Known): string {
  return `epoch ${epoch}, primary ${primary}, up to date: ${inSync.join(' and ')}`;
}

function copyText({ state, readiness, replica, pair }: ModuleStatus): string {
  const epoch = replica?.epoch ?? pair?.promised;
  const last = lastChange(replica);
  return [
    `${state} (${readiness})`,
    ...(epoch === undefined ? [] : [`epoch ${epoch}`]),
    ...(pair === null ? [] : [`copy: ${copyWords[pair.copy]}`]),
    ...(last === null ? [] : [`last change ${last}`]),
    ...(replica?.alone === true ? ['acknowledged alone'] : []),
  ].join(', ');
}

/** Of a primary its newest change, of a secondary the newest that is durable. */
function lastChange(replica: ModuleStatus['replica']): number | null {
  const text = replica?.engine[replica.role === 'prim' ? 'last' : 'durable'];
  return text === undefined ? null : Number(text);
}

function given(
  node: string,
  peer: string,
  own: ModuleStatus,
  there: ModuleStatus | null,
  record: Known | null,
): readonly string[] {
  const role = there?.pair?.role ?? null;
  if (role === 'primary') {
    return [`${peer} is primary now: this order will be refused. Stop it there first.`];
  }
  if (record === null) {
    return ['Which copy is the right one is not known: what the other one has more is given up.'];
  }
  if (record.inSync.includes(node)) {
    return [
      `Nothing that was acknowledged is given up: ${node} is up to date in epoch ${record.epoch}. \`holdfast prim\` does the same.`,
    ];
  }
  const holders = record.inSync.join(' and ');
  const lines = [
    `GIVEN UP: all that ${holders} acknowledged alone, from epoch ${record.epoch} on or earlier; ${node} lacks it.`,
  ];
  const [mine, theirs] = [lastChange(own.replica), lastChange(there?.replica ?? null)];
  if (mine !== null && theirs !== null && theirs > mine) {
    lines.push(`  That is ${plural(theirs - mine, 'change')}, as far as both say.`);
  } else if (there === null) lines.push('  How much that is cannot be asked.');
  const missing = Number(there?.replica?.engine['dirty_bytes'] ?? 0);
  if (missing > 0) lines.push(`  ${missing} bytes of files differ by what ${peer} noted.`);
  lines.push(
    `  When ${peer} is back it is not brought up to date until \`holdfast second discard\` is ordered there: its changes`,
    '  are taken back by that, and files that it alone had are kept in its quarantine.',
    `  To keep them, start ${peer} instead and wait until it is there.`,
  );
  return lines;
}
