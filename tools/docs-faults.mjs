/** docs/reference/faults.md: the fault table, with what `npm run bench -- faults` measured. */
import { readFileSync } from 'node:fs';
import { rows, scenarios } from '../dist/test/lab/rows/catalogue.js';
import { nameOf } from '../dist/test/lab/rows/scenario.js';

const file = new URL('../docs/reference/faults.json', import.meta.url);

const head = `# Faults survived

What was done to a mirror, and what it cost. Every line is an automated test: two servers and a witness in network namespaces on one
machine, two networks, the profile \`default\`, an application behind the virtual IP that acknowledges a record once it is synced.
Before, during and after each fault

- three clients write, and keep account of what was acknowledged to them: **no acknowledged record is lost** (the column would say how many);
- each answer carries the start of the application that gave it and its time: **no two applications ever answer at the same time**;
- a sniffer and a prober watch the address: **no question is answered by two servers**;
- and **it comes back by itself**: one server primary, the other one in sync, without an order of an operator.

\`npm run bench -- faults\` does all of them and writes the figures; the tests \`test/lab/fault-rows-*.test.ts\` do those that are not marked
*long*, and ask for the behaviour, not for the figures.

- *told*: from the fault to the first line about it in a server's journal (a heartbeat that is missed is told long before it counts);
- *address*: the longest time in which nobody answered an echo request to the virtual IP;
- *application*: the longest time between two acknowledged records, of any client. Clients wait 400 ms for an answer before they ask anew, which is in it;
- *moved*: after how many of the rounds the other server was primary.

Times are in ms: median, and the worst round in brackets where it is another. What the application takes to start is in them.
`;

const words = (median, worst) => (median === worst ? String(median) : `${median} (${worst})`);

function costCells(cost) {
  if (cost === undefined) return ['', '', '', '', ''];
  return [
    cost.detectionMs === null ? 'nothing to tell' : String(cost.detectionMs),
    words(cost.addressMs, cost.addressMaxMs),
    words(cost.applicationMs, cost.applicationMaxMs),
    `${cost.moved} of ${cost.rounds}`,
    String(cost.lost),
  ];
}

const line = (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;

function measuredLines(faults) {
  return scenarios
    .toSorted((one, other) => one.row - other.row)
    .map((scenario) => {
      const done = `${scenario.title}${scenario.isLong === true ? ' *(long)*' : ''}`;
      const open = scenario.open === undefined ? '' : `; **open**: ${scenario.open}`;
      const cells = [String(scenario.row), done, `${scenario.expected}${open}`];
      return line([...cells, ...costCells(faults[nameOf(scenario)])]);
    });
}

/** One link to each file, with the titles of its tests. */
function proofText(proofs) {
  const byFile = Map.groupBy?.(proofs, ([path]) => path) ?? grouped(proofs);
  return [...byFile]
    .map(([path, found]) => {
      const titles = found.map(([, title]) => `“${title}”`).join(', ');
      return `[${path}](../../${path}): ${titles}`;
    })
    .join('; ');
}

function grouped(proofs) {
  const byFile = new Map();
  for (const proof of proofs) byFile.set(proof[0], [...(byFile.get(proof[0]) ?? []), proof]);
  return byFile;
}

function testLines() {
  return rows
    .filter(({ proofs }) => proofs !== undefined)
    .map(({ number, fault, proofs }) => line([String(number), fault, proofText(proofs)]));
}

export function faultReference(note) {
  const { facts, faults } = JSON.parse(readFileSync(file, 'utf8'));
  const measured = new Set(scenarios.map(({ row }) => row));
  const rest = rows.filter(({ note: why }) => why !== undefined);
  return [
    note,
    head,
    '| # | what is done | what comes of it | told | address | application | moved | lost |',
    '|---|---|---|---|---|---|---|---|',
    ...measuredLines(faults),
    '',
    `Measured on ${Object.entries(facts)
      .filter(([key, value]) => key !== 'peer' && value !== '')
      .map(([key, value]) => `${key} ${value}`)
      .join('; ')}.`,
    '',
    '## Rows of the table that other tests hold, too or alone',
    '',
    'Numbers are those of the table that Holdfast was designed by; words are of the titles of tests.',
    '',
    '| # | fault | tests |',
    '|---|---|---|',
    ...testLines(),
    '',
    '## What the lab cannot do, or does less of',
    '',
    '| # | fault | why |',
    '|---|---|---|',
    ...rest.map(({ number, fault, note: why }) =>
      line([String(number), `${fault}${measured.has(number) ? '' : ' (not measured)'}`, why]),
    ),
    '',
  ].join('\n');
}
