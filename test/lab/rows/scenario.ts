/** One way in which a row of the fault table is done to a mirror. */
import type { World } from './world.ts';

export interface Scenario {
  /** Row of the table. */
  readonly row: number;
  /** What tells it from the others of its row; how it is injected. */
  readonly title: string;
  /** What must come of it, for the table. */
  readonly expected: string;
  /** Only in long runs: `npm run bench -- faults`. */
  readonly isLong?: true;
  /** What is known to be wrong there: it is not done until that is mended. */
  readonly open?: string;
  /** Does it and waits for what is expected; what it begins ends by World.undo, or Lab.heal. */
  readonly act: (world: World) => Promise<void>;
}

/** The name of its test, and of what it cost in docs/reference/faults.json. */
export const nameOf = ({ row, title }: Scenario): string => `row ${row}: ${title}`;

/** What comes of a primary that stands still for longer than heartbeats may stay away, and not long enough
 * for a takeover: when it goes on it learns first that the other server does not hear it. */
export const aloneForAMoment =
  'the primary stays; where it is told first that it is not heard, it is alone for a moment, by a new epoch';
