/** The tables of the mirror's failover bench. */
import type { Profile } from './holdfast.ts';
import {
  type Round,
  stageNames,
  type Summary,
  summaryOf,
  type Trigger,
  triggers,
} from './figures.ts';

/** One contestant under one kind of fault. */
export interface Row {
  readonly title: string;
  readonly profile: Profile;
  readonly trigger: Trigger;
  readonly isHoldfast: boolean;
  readonly summary: Summary;
  readonly rounds: readonly Round[];
}

export function rowsOf(
  title: string,
  profile: Profile,
  isHoldfast: boolean,
  rounds: readonly Round[],
): readonly Row[] {
  return triggers.map((trigger) => {
    const own = rounds.filter((round) => round.trigger === trigger);
    return { title, profile, trigger, isHoldfast, summary: summaryOf(own), rounds: own };
  });
}

/** Design targets, ms: power pulled, until the virtual IP answers on the other server. */
const powerMaxMs = { default: 1900, fast: 500 } as const satisfies Readonly<
  Record<Profile, number>
>;

const ms = (value: number | null | undefined) => value?.toFixed(1) ?? '';

/** Of the medians, keepalived of the same profile and fault below. */
function ratio(rows: readonly Row[], { profile, trigger, summary }: Row): number {
  const peer = rows.find(
    (one) => !one.isHoldfast && one.profile === profile && one.trigger === trigger,
  );
  return summary.p50Ms / (peer?.summary.p50Ms ?? Number.NaN);
}

const columns = ['p50', 'p95', 'max', 'x keepalived', 'less app', 'two answer', 'quiet max'];

export function print(rows: readonly Row[]): void {
  const nameOf = ({ title, trigger }: Row) => `${trigger}: ${title}`;
  const width = Math.max(...rows.map((row) => nameOf(row).length)) + 2;
  const line = (name: string, heads: readonly string[], cells: readonly string[]) =>
    console.log(
      name.padEnd(width) +
        cells.map((cell, at) => cell.padStart(Math.max(8, (heads[at] ?? '').length + 2))).join(''),
    );
  const sorted = inTurn(rows);
  line('', columns, columns);
  for (const row of sorted) {
    const { summary, isHoldfast } = row;
    line(nameOf(row), columns, [
      ms(summary.p50Ms),
      ms(summary.p95Ms),
      ms(summary.maxMs),
      isHoldfast ? ratio(rows, row).toFixed(2) : '',
      ms(summary.lessApplicationMs),
      `${summary.doubles}/${summary.rounds}`,
      ms(summary.quietMaxMs),
    ]);
  }
  const late = Math.max(...rows.map(({ summary }) => summary.lateMaxMs));
  console.log(`the prober itself was late by ${ms(late)} ms at worst\n`);

  console.log('where the time went, medians, ms');
  const heads = [...stageNames, 'rounds'];
  line('', heads, heads);
  for (const row of sorted.filter(({ isHoldfast }) => isHoldfast)) {
    const { stages, told, rounds } = row.summary;
    line(nameOf(row), heads, [
      ...stageNames.map((name) => ms(stages?.[name])),
      `${told}/${rounds}`,
    ]);
  }
  console.log('');
}

/** Of each profile, by fault, Holdfast above keepalived. */
function inTurn(rows: readonly Row[]): readonly Row[] {
  return [...new Set(rows.map(({ profile }) => profile))].flatMap((profile) =>
    triggers.flatMap((trigger) =>
      rows.filter((row) => row.profile === profile && row.trigger === trigger),
    ),
  );
}

export function printTargets(rows: readonly Row[]): void {
  const say = (what: string, here: string, target: string, isMet: boolean) =>
    console.log(
      `${what.padEnd(48)}${here.padStart(8)}  ${target.padEnd(10)}${isMet ? 'met' : 'MISSED'}`,
    );
  for (const row of rows) {
    if (!row.isHoldfast || row.trigger !== 'power') continue;
    const { maxMs } = row.summary;
    const most = powerMaxMs[row.profile];
    say(`${row.profile}: power pulled, max, ms`, ms(maxMs), `< ${most}`, maxMs < most);
    const value = ratio(rows, row);
    const what = `${row.profile}: power pulled, p50 / p50 of keepalived`;
    say(what, value.toFixed(2), '<= 1', value <= 1);
  }
  const own = rows.filter(({ isHoldfast }) => isHoldfast);
  const doubles = own.reduce((sum, { summary }) => sum + summary.doubles, 0);
  say('rounds after which two servers answered', `${doubles}`, '0', doubles === 0);
}
