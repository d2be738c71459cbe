/** Rows of the fault table that happen to disks and wall clocks: rows/disks.ts, rows/clocks.ts. */
import { clockRows, clockWorld } from './rows/clocks.ts';
import { diskRows, diskWorld } from './rows/disks.ts';
import { rowsOf } from './rows/suite.ts';

rowsOf('disks and clocks of a mirror', [...clockRows, ...diskRows], {
  ...clockWorld,
  ...diskWorld,
});
