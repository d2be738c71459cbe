/**
 * `npm run bench -- faults [--rounds N] [--rows 1,2,…]`: does the faults of the fault table to a mirror in a lab,
 * those for long runs too, and writes what each cost to docs/reference/faults.json; `node tools/docs.mjs`
 * makes the table of it. A fault that is not survived ends it with exit code 1, after the others.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/version.ts';

import { clockRows, clockWorld } from '../test/lab/rows/clocks.ts';
import { diskRows, diskWorld } from '../test/lab/rows/disks.ts';
import { type Cost, costOf, type Measured } from '../test/lab/rows/measure.ts';
import { networkRows } from '../test/lab/rows/network.ts';
import { powerRows } from '../test/lab/rows/power.ts';
import { processRows } from '../test/lab/rows/processes.ts';
import { nameOf, type Scenario } from '../test/lab/rows/scenario.ts';
import { World, type WorldOptions } from '../test/lab/rows/world.ts';
import { environment, progress } from './environment.ts';

const file = join(packageRoot, 'docs/reference/faults.json');

interface Results {
  readonly facts: Readonly<Record<string, string>>;
  readonly faults: Readonly<Record<string, Cost>>;
}

function former(): Results['faults'] {
  if (!existsSync(file)) return {};
  return (JSON.parse(readFileSync(file, 'utf8')) as Results).faults;
}

/** Does faults of one kind in one lab, in turn; a lab that is not whole afterwards is given up. */
async function kind(
  scenarios: readonly Scenario[],
  options: WorldOptions,
  rounds: number,
  done: Map<string, Measured[]>,
): Promise<readonly string[]> {
  const failures: string[] = [];
  let world: World | null = null;
  try {
    for (let round = 1; round <= rounds; round++) {
      for (const scenario of scenarios) {
        const name = nameOf(scenario);
        if (scenario.isLong === true && round > 1) continue;
        progress(`${round}/${rounds} ${name}`);
        world ??= await World.up(options);
        try {
          const measured = await world.run(scenario.act);
          done.set(name, [...(done.get(name) ?? []), measured]);
        } catch (error) {
          failures.push(`${name}: ${String(error)}`);
          await world.down();
          world = null;
        }
      }
    }
  } finally {
    await world?.down();
  }
  return failures;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { rounds: { type: 'string', default: '3' }, rows: { type: 'string' } },
  });
  const rounds = Number(values.rounds);
  if (!(rounds >= 1)) throw new Error('--rounds N: 1 or more');
  if (process.getuid?.() !== 0) throw new Error('bench faults: needs root (network namespaces)');
  const wanted = values.rows?.split(',').map(Number);
  const chosen = (rows: readonly Scenario[]) =>
    rows.filter(({ row, open }) =>
      wanted === undefined ? open === undefined : wanted.includes(row),
    );
  const loadAtStart = os.loadavg()[0] ?? 0;
  const done = new Map<string, Measured[]>();
  const failures = [
    ...(await kind(chosen(processRows), {}, rounds, done)),
    ...(await kind(chosen(powerRows), {}, rounds, done)),
    ...(await kind(chosen(networkRows), {}, rounds, done)),
    ...(await kind(chosen(diskRows), diskWorld, rounds, done)),
    ...(await kind(chosen(clockRows), clockWorld, rounds, done)),
  ];
  progress('');
  const order = `${rounds} rounds each, those for long runs once; median and worst`;
  const measured = Object.fromEntries([...done].map(([name, costs]) => [name, costOf(costs)]));
  const results: Results = {
    facts: environment(loadAtStart, 'none', order),
    faults: { ...(wanted === undefined ? {} : former()), ...measured },
  };
  writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`);
  for (const [name, cost] of Object.entries(measured)) console.log(name, JSON.stringify(cost));
  for (const failure of failures) console.error(`NOT SURVIVED ${failure}`);
  process.exitCode = failures.length > 0 ? 1 : 0;
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
});
