/** Rows of the fault table that happen to whole servers: rows/power.ts. */
import { powerRows } from './rows/power.ts';
import { rowsOf } from './rows/suite.ts';

rowsOf('servers of a mirror', powerRows);
