/** How values look on a terminal: tables, colours by state, durations. */
import { styleText } from 'node:util';
import type { ModuleStatus, Readiness } from '../host/face.ts';

const stateColors: Readonly<Record<Readiness, 'red' | 'magenta' | 'green'>> = {
  NotReady: 'red',
  Transient: 'magenta',
  Ready: 'green',
};

/** A cell of a table; `color` does not count for its width. */
export type Cell = string | { readonly text: string; readonly readiness: Readiness };

function widthOf(cell: Cell): number {
  return (typeof cell === 'string' ? cell : cell.text).length;
}

function show(cell: Cell, color: boolean): string {
  if (typeof cell === 'string') return cell;
  // The caller has decided for its own stream; styleText must not decide again by stdout.
  const always = { validateStream: false };
  return color ? styleText(stateColors[cell.readiness], cell.text, always) : cell.text;
}

/** Rows with aligned columns, each line indented; nothing where there are no rows. */
export function table(
  head: readonly string[],
  rows: readonly (readonly Cell[])[],
  color: boolean,
  indent = '',
): string {
  if (rows.length === 0) return '';
  const all: readonly (readonly Cell[])[] = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => widthOf(row[column] ?? ''))));
  const line = (row: readonly Cell[]): string => {
    const cells = head.map((_, column) => {
      const cell = row[column] ?? '';
      return show(cell, color) + ' '.repeat((widths[column] ?? 0) - widthOf(cell));
    });
    return `${indent}${cells.join('  ').trimEnd()}\n`;
  };
  return all.map(line).join('');
}

/** `UP (Ready)`, red, magenta or green. */
export function stateCell(module: Pick<ModuleStatus, 'state' | 'readiness'>): Cell {
  return { text: `${module.state} (${module.readiness})`, readiness: module.readiness };
}

/** A module's state in one line and what keeps it there: what a command prints when it is done. */
export function moduleLine(
  module: Pick<ModuleStatus, 'name' | 'state' | 'readiness' | 'why'>,
  color: boolean,
): string {
  const why = module.why.map((reason) => `  ${reason}\n`).join('');
  return `${module.name}  ${show(stateCell(module), color)}\n${why}`;
}

/** `850 ms`, `12 s`, `3 min 20 s`, `5 h 10 min`, `12 d 4 h`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = Math.floor(ms / 1000);
  const units = [
    ['d', 86_400],
    ['h', 3600],
    ['min', 60],
    ['s', 1],
  ] as const;
  const first = units.findIndex(([, size]) => seconds >= size);
  const parts: string[] = [];
  let rest = seconds;
  for (const [unit, size] of units.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    if (count > 0) parts.push(`${count} ${unit}`);
    rest -= count * size;
  }
  return parts.join(' ');
}

/** Round-trip time: `85 us`, `1.2 ms`. */
export function microseconds(us: number): string {
  return us < 1000 ? `${Math.round(us)} us` : `${(us / 1000).toFixed(1)} ms`;
}

/** Local date and time with milliseconds: `2026-03-04 05:06:07.089`. */
export function timestamp(wallMs: number): string {
  const at = new Date(wallMs);
  const two = (value: number): string => String(value).padStart(2, '0');
  const date = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return `${date} ${time}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
