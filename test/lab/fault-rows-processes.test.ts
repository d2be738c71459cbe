/** Rows of the fault table that happen to processes: rows/processes.ts. */
import { rowsOf } from './rows/suite.ts';
import { processRows } from './rows/processes.ts';

rowsOf('processes of a mirror', processRows);
