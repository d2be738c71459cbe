/**
 * Planted bugs of the mirror: each takes one rule away, of the machine or of what it stands on. Each
 * must be found, or finding none in the product proves nothing.
 */
import { type MirrorRule, without } from '../core/mirror.ts';
import type { MirrorFault } from './mirror-faults.ts';
import type { MirrorSimOptions } from './mirror-run.ts';

export interface MirrorMutant {
  readonly name: string;
  readonly rule: MirrorRule;
  /**
   * What finds it. seeds: the simulator. walks: random ways through the explorer's states. Else one
   * such way, by the names of its moves: too long for an exhaustion, too rare for chance. With the
   * rule it cannot be gone.
   */
  readonly by: 'seeds' | 'walks' | readonly string[];
  /** Faults that bring it out, where all of them together would take long. */
  readonly faults?: readonly MirrorFault[];
}

/** A server takes over: its moves, as far as the arbiter's answer. */
const takeover = (i: number): string[] => [
  `silent ${i}`,
  `timer headStart ${i}`,
  `swap of ${i}`,
  `won ${i}`,
];

/** The engine of a primary brings the other's copy up to date, and requires it. */
const resync = (i: number): string[] => [
  'link up',
  `sync ${i}`,
  `take sync ${1 - i}`,
  `caught up ${i}`,
  `in sync ${i}`,
];

export const mirrorMutants: readonly MirrorMutant[] = [
  { name: 'acknowledged before the peer has it', rule: 'ackNeedsPeer', by: 'seeds' },
  { name: 'alone without the arbiter', rule: 'aloneNeedsSwap', by: 'seeds' },
  { name: 'takeover without the arbiter', rule: 'takeoverNeedsSwap', by: 'seeds' },
  { name: 'the arbiter only votes', rule: 'claimNeedsInSync', by: 'seeds' },
  {
    // The join is on its way when a read shows a record without the peer, and lands after that.
    name: 'the peer is given up on a read',
    rule: 'shrinkNeedsEpoch',
    by: [
      ...['silent 0', 'swap of 0', 'won 0', 'up 0', ...resync(0)],
      ...['no answer 0', 'silent 0', 'timer retry 0', 'read 0'],
      ...['write 0', 'ack 0', 'swap of 0'],
    ],
  },
  { name: 'joined before it is required', rule: 'joinNeedsRequired', by: 'seeds' },
  { name: 'joined before it is caught up', rule: 'joinNeedsCaughtUp', by: 'seeds' },
  { name: 'an old state is taken', rule: 'syncMustBeNewest', by: 'walks' },
  {
    // A change of the first epoch comes late, and takes the place of one of the last.
    name: 'neither epoch nor session are checked',
    rule: 'receiverChecksEpoch',
    by: [
      ...['write 0', ...takeover(1), 'lost 0', 'up 1', ...resync(1), 'swap of 1', 'won 1'],
      ...['read 0', ...takeover(0), 'lost 1', 'up 0', ...resync(0), 'swap of 0', 'won 0'],
      ...['write 0', 'take write 1 at 1', 'write 0', 'take write 3 at 1', 'have 0'],
      ...['ack 0', 'ack 0'],
    ],
  },
  {
    // A primary that was overtaken and does not know: the new one crashes and follows it.
    name: 'the promise is not durable',
    rule: 'promiseIsKept',
    by: [
      ...['write 0', 'silent 1', 'timer headStart 1', 'swap of 1', 'won 1, unheard'],
      ...['write 1', 'ack 1', 'crash 1', 'restart 1', 'up 1', 'link up'],
      ...['write 0', 'take write 3 at 1', 'have 0', 'ack 0'],
    ],
  },
  {
    name: 'the arbiter forgets',
    rule: 'registerNeverOlder',
    by: 'seeds',
    faults: ['restore', 'power', 'keeperKill', 'pairCut'],
  },
];

export function seedOptions({ rule, faults }: MirrorMutant): MirrorSimOptions {
  const options = { rules: without(rule), liveness: false };
  return faults === undefined ? options : { ...options, faults };
}
