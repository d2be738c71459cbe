/**
 * The guards of a mirror, each a line without which an acknowledged write is lost or two servers are
 * primary (reference: the model of the protocol and its eleven mutants). The machine takes them
 * as an argument for one reason: the simulator takes one away at a time and must then find the harm.
 */

export interface MirrorRules {
  /** Engine: an acknowledgement waits until the peer has it durably. */
  readonly ackNeedsPeer: boolean;
  /** Core: a primary goes on alone only after its swap of the epoch was done. */
  readonly aloneNeedsSwap: boolean;
  /** Core: a secondary takes over only after its swap of the epoch was done. */
  readonly takeoverNeedsSwap: boolean;
  /** Core: who claims must be in the record's inSync, not merely have the arbiter's vote. */
  readonly claimNeedsInSync: boolean;
  /** Core: the peer ceases to be needed by a new epoch only, never by what a read of this one shows. */
  readonly shrinkNeedsEpoch: boolean;
  /** Core: the peer is needed for each acknowledgement before the record names it. */
  readonly joinNeedsRequired: boolean;
  /** Core: the peer has everything before the record names it. */
  readonly joinNeedsCaughtUp: boolean;
  /** Engine: of a resync only the newest and longest counts. */
  readonly syncMustBeNewest: boolean;
  /** Engine: the receiver refuses an older epoch and another session. */
  readonly receiverChecksEpoch: boolean;
  /** Core: the promised epoch is durable before anything is served or taken under it. */
  readonly promiseIsKept: boolean;
  /** Core: a register that is older than what this server knows is refused. */
  readonly registerNeverOlder: boolean;
}

export type MirrorRule = keyof MirrorRules;

export const mirrorRules: MirrorRules = {
  ackNeedsPeer: true,
  aloneNeedsSwap: true,
  takeoverNeedsSwap: true,
  claimNeedsInSync: true,
  shrinkNeedsEpoch: true,
  joinNeedsRequired: true,
  joinNeedsCaughtUp: true,
  syncMustBeNewest: true,
  receiverChecksEpoch: true,
  promiseIsKept: true,
  registerNeverOlder: true,
};

/** All but one. */
export function without(rule: MirrorRule): MirrorRules {
  return { ...mirrorRules, [rule]: false };
}
