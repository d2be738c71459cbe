/** Loaded before the agent (--import): takes one guard of the mirror's decisions away. */
import { type MirrorRule, mirrorRules } from '../../src/core/mirror-rules.ts';

const rule = (process.env['HOLDFAST_PLANTED'] ?? '') as MirrorRule;
if (!(rule in mirrorRules)) throw new Error(`no such guard: ${rule}`);
Object.assign(mirrorRules, { [rule]: false });
