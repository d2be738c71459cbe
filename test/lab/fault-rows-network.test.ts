/** Rows of the fault table that happen to networks: rows/network.ts. */
import { networkRows } from './rows/network.ts';
import { rowsOf } from './rows/suite.ts';

rowsOf('networks of a mirror', networkRows);
