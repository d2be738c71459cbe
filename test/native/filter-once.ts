/** Attaches a filter with all buckets ours and ends, as an agent that is killed: nothing is detached. */
import { openFilter } from '../../src/native/filter.ts';
import type { Hook } from '../../src/native/filter.ts';
import { config, device, pinDir } from './filter-pair.ts';

const filter = openFilter({ device, pinDir, hook: process.argv[2] as Hook });
filter.commit(config(1));
process.kill(process.pid, 'SIGKILL');
