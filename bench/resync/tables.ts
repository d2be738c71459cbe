/** The figures of the resync bench as tables, and beside the targets. */
import { percentile } from '../failover/figures.ts';
import { type Cost, sideTitles } from './cost.ts';
import { p99, type Row, verdictsOf } from './figures.ts';

const number = (value: number, digits: number) =>
  Number.isFinite(value) ? value.toFixed(digits) : '-';

function line(cells: readonly string[], widths: readonly number[]): void {
  const text = cells.map((cell, at) =>
    at === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[at] ?? 10),
  );
  console.log(text.join('').trimEnd());
}

const backWidths = [9, 18, 9, 10, 10, 9, 9, 9];
const loadWidths = [9, 9, 9, 10, 12, 12, 13, 9];

export function printRows(rows: readonly Row[]): void {
  console.log('the way back, the application idle');
  const head = ['changed', 'kind', 'MiB', 'sent x', 'read x', 'back s', 'MB/s', 'of link'];
  line(head, backWidths);
  for (const row of rows) {
    const cells = [
      `${(row.part * 100).toFixed(1)} %`,
      row.kind,
      number(row.changedBytes / 2 ** 20, 1),
      number(row.sentShare, 3),
      number(row.readShare, 3),
      number(row.backMs / 1000, 2),
      number(row.bytesPerS / 1e6, 1),
      number(row.ofLink, 2),
    ];
    line(cells, backWidths);
  }
  console.log('\nthe way back under 4 KiB writes, fdatasync after each; p99 in us');
  line(
    ['changed', 'took s', 'MB/s', 'writes', 'p99 alone', 'during', 'in sync', 'x alone'],
    loadWidths,
  );
  for (const row of rows) {
    const cells = [
      `${(row.part * 100).toFixed(1)} %`,
      number(row.loadedMs / 1000, 2),
      number(row.loadedBytesPerS / 1e6, 1),
      String(row.writes),
      number(row.p99Alone, 1),
      number(row.p99During, 1),
      number(row.p99After, 1),
      number(row.p99Ratio, 2),
    ];
    line(cells, loadWidths);
  }
  console.log('');
}

const costWidths = [14, 18, 18, 18, 14, 14];

const both = (waits: readonly number[]) =>
  `${number(percentile(waits, 0.5), 1)} / ${number(p99(waits), 1)}`;

export function printCosts(costs: readonly Cost[]): void {
  console.log('noting what changes: 4 KiB writes, p50 / p99 in us; writes of marks to disk');
  line(
    ['', 'first in its MiB', 'further ones', 'not synced', 'marks first', 'further'],
    costWidths,
  );
  for (const title of sideTitles) {
    const of = costs.filter(({ side }) => side === title);
    const sum = (pick: (cost: Cost) => number) =>
      String(of.reduce((total, cost) => total + pick(cost), 0));
    const cells = [
      title,
      both(of.flatMap(({ first }) => first)),
      both(of.flatMap(({ further }) => further)),
      both(of.flatMap(({ buffered }) => buffered)),
      sum(({ firstMarks }) => firstMarks),
      sum(({ furtherMarks }) => furtherMarks),
    ];
    line(cells, costWidths);
  }
  console.log('');
}

export function printVerdicts(rows: readonly Row[]): void {
  for (const { what, value, target, isMet } of verdictsOf(rows)) {
    const verdict = isMet === null ? 'not measured' : isMet ? 'met' : 'MISSED';
    console.log(
      `${what.padEnd(52)}${number(value, 3).padStart(9)}  ${target.padEnd(10)}${verdict}`,
    );
  }
  console.log('');
}
