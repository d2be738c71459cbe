/**
 * The guards of the farm, each a line that keeps two servers from answering one client or a
 * connection from being reset. The machine takes them as an argument for one reason: the simulator
 * replaces one at a time by its opposite and must then find the harm (src/sim/mutants.ts).
 */
import {
  type FarmState,
  holdMinMs,
  isBetter,
  isBoth,
  lapseMarginMs,
  nameOf,
  patienceBeats,
  type Peer,
} from './farm-state.ts';
import type { FarmTiming, View, ViewName } from './farm-types.ts';
import { buildTable } from './table.ts';

export interface FarmRules {
  readonly table: typeof buildTable;
  /** May a bucket get a new owner while another node may own it? */
  readonly mayTake: (claimedByOther: boolean) => boolean;
  /** Does an owner stay silent for flows it does not know? `held`: another may hold them. */
  readonly isQuiet: (held: boolean) => boolean;
  /** How long after a peer said it hangs, or came back with a new boot, its lease may last. */
  readonly lapseAfterMs: (timing: FarmTiming) => number;
  /** Does a member take this view, sent by the node that it follows? */
  readonly mayAdopt: (state: FarmState, view: View) => boolean;
  /** Does a view without this node, announced by a node it hears, make it own nothing? */
  readonly excludes: (rival: ViewName, own: View, oneWay: boolean) => boolean;
  /** Can a peer be a member, as far as this node's own hearing goes? */
  readonly mayInclude: (peer: Peer) => boolean;
  /** Does a holder's report say anything of what it gave up by the view `since`? */
  readonly reportCounts: (reportEpoch: number, since: number) => boolean;
  /** Does a walk over the sockets show all connections of buckets given up at `installedMs`? */
  readonly walkCounts: (beganMs: number, installedMs: number) => boolean;
  /** For how long a claim is announced before it is used. */
  readonly settleMs: (timing: FarmTiming) => number;
  /** May a leader issue a view although something speaks against it? */
  readonly mayIssue: (refusal: string | null) => boolean;
  /** May a node own buckets while its application does not answer? */
  readonly mayOwnUnready: () => boolean;
}

export const farmRules: FarmRules = {
  table: buildTable,
  mayTake: (claimedByOther) => !claimedByOther,
  isQuiet: (held) => held,
  // The heartbeat that says so left after the last renewal; 2 % for the rates of the two clocks.
  lapseAfterMs: (timing) => Math.ceil(timing.leaseMs * 1.04) + lapseMarginMs,
  // Not older than what it has, and made after it told the leader what it owns.
  mayAdopt: (state, view) =>
    isBetter(view, nameOf(state.view)) && (view.marks[state.config.me] ?? -1) >= state.followMark,
  // One that does not hear us cannot give way: we must. Where both hear, the better view wins.
  excludes: (rival, own, oneWay) =>
    (oneWay && rival.leader !== own.leader) || isBetter(rival, nameOf(own)),
  mayInclude: (peer) => isBoth(peer),
  reportCounts: (reportEpoch, since) => reportEpoch >= since,
  // A client that was let in just before may still be in its handshake, without a socket.
  walkCounts: (beganMs, installedMs) => beganMs >= installedMs + holdMinMs,
  // Time for a node that hears the claim, but is not heard, to find that out and to give way.
  settleMs: (timing) => timing.suspectMs + patienceBeats * timing.heartbeatMs,
  mayIssue: (refusal) => refusal === null,
  mayOwnUnready: () => false,
};
