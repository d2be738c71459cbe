/** The rows of one kind as a suite: one lab, one test each. */
import { after, before, describe, test } from 'node:test';
import { skip } from '../support.ts';
import type { Measured } from './measure.ts';
import { nameOf, type Scenario } from './scenario.ts';
import { World, type WorldOptions } from './world.ts';

const shown = ({ detectionMs, addressMs, applicationMs, lost, moved }: Measured): string => {
  const detected = detectionMs === null ? '-' : Math.round(detectionMs);
  const silent = `address ${Math.round(addressMs)}, application ${Math.round(applicationMs)}`;
  return `told after ${detected} ms; silent, ms: ${silent}; lost ${lost}${moved ? '; moved' : ''}`;
};

/** Rows for long runs are those of `npm run bench -- faults`. */
export function rowsOf(
  what: string,
  scenarios: readonly Scenario[],
  options: WorldOptions = {},
): void {
  describe(`faults survived: ${what}`, { skip, timeout: 600_000 }, () => {
    let world: World;
    before(async () => {
      world = await World.up(options);
    });
    after(async () => world?.down());

    const only = process.env['HOLDFAST_ROW'];
    const wanted = ({ row, isLong }: Scenario) =>
      only === undefined ? isLong !== true : only.split(',').includes(String(row));
    for (const scenario of scenarios.filter(wanted)) {
      // One that is asked for is done, whatever is known of it.
      const open = only === undefined ? scenario.open : undefined;
      test(nameOf(scenario), { skip: open ?? false }, async (t) => {
        t.diagnostic(shown(await world.run(scenario.act)));
      });
    }

    test('afterwards both copies are equal', () => world.equal());
  });
}
