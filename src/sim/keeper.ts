/**
 * Model of native/beat on one node: heartbeats with echo and proof of boot, detection, leases. The
 * rules are those of native/beat/engine.cc and lease.h, for one module and one network; times are
 * milliseconds of the node's own clock.
 */
import { type FarmTiming, type Reach, summaryFlag } from '../core/farm.ts';

/** The module part of a heartbeat, and whether its lease is to be renewed. */
export interface Summary {
  readonly flags: number;
  readonly epoch: number;
  readonly members: bigint;
  readonly serving: boolean;
}

export interface Heartbeat {
  readonly from: number;
  readonly to: number;
  readonly boot: number;
  readonly seq: number;
  /** On the sender's clock. */
  readonly sentMs: number;
  readonly hung: boolean;
  readonly summary: Summary;
  /** What the sender heard last of the receiver. */
  readonly echoBoot: number;
  readonly echoSeq: number;
  readonly echoSentMs: number;
  /** A boot of the receiver that was heard and is not believed yet. */
  readonly challengeBoot: number;
  readonly challengeSeq: number;
}

export type KeeperEvent =
  | {
      readonly kind: 'peer';
      readonly node: number;
      readonly reach: Reach;
      readonly boot: number;
      readonly hung: boolean;
    }
  | { readonly kind: 'summary'; readonly node: number; readonly summary: Summary }
  | { readonly kind: 'hung' };

interface KeeperPeer {
  boot: number;
  candidate: number;
  candidateSeq: number;
  seq: number;
  sentMs: number;
  provenSeq: number;
  heardMs: number;
  /** After it was declared silent, its heartbeats are not echoed until then. */
  muteUntilMs: number;
  echoedMs: number;
  known: boolean;
  up: boolean;
  reach: Reach;
  hung: boolean;
  changed: boolean;
  summary: Summary;
}

/** Guards of the heartbeat thread; each off is a planted bug. */
export interface KeeperGuards {
  /** The lease is capped by what members echo. */
  readonly echoCap: boolean;
  /** … and by what nodes echo that are no members here, but take this one for a member. */
  readonly strangersCap: boolean;
  /** … also when it is not heard any more, if it did not hear this one before. */
  readonly deafCap: boolean;
  /** After a hang no lease before the agent says that the filter is shut. */
  readonly shutFirst: boolean;
  /** A lease that has lapsed waits for the newest view to be enforced here, and for rivals to end. */
  readonly noRevival: boolean;
  /** A peer just declared silent is not echoed while the agent acts upon it. */
  readonly mute: boolean;
}

export const allGuards: KeeperGuards = {
  echoCap: true,
  strangersCap: true,
  deafCap: true,
  shutFirst: true,
  noRevival: true,
  mute: true,
};

const never = Number.NEGATIVE_INFINITY;
export const noSummary: Summary = { flags: 0, epoch: 0, members: 0n, serving: false };

export class Keeper {
  readonly me: number;
  readonly nodes: readonly number[];
  readonly boot: number;
  readonly timing: FarmTiming;
  readonly guards: KeeperGuards;
  readonly peers = new Map<number, KeeperPeer>();
  readonly emit: (event: KeeperEvent) => void;
  readonly send: (beat: Heartbeat) => void;
  summary = noSummary;
  seq = 0;
  nextSendMs: number;
  lastSendMs = never;
  plannedMs = 0;
  doubtUntilMs = never;
  hung = false;
  /** Its agent hung while its filter was open: no lease before the agent says that it is shut. */
  mustShut = false;
  everHung = false;
  excludedEpoch = 0;
  leaseEndMs = 0;
  listenUntilMs = never;

  constructor(
    me: number,
    nodes: readonly number[],
    boot: number,
    nowMs: number,
    timing: FarmTiming,
    guards: KeeperGuards,
    send: (beat: Heartbeat) => void,
    emit: (event: KeeperEvent) => void,
  ) {
    this.me = me;
    this.nodes = nodes;
    this.boot = boot;
    this.timing = timing;
    this.guards = guards;
    this.send = send;
    this.emit = emit;
    this.nextSendMs = nowMs;
    for (const node of nodes) if (node !== me) this.peers.set(node, newPeer());
  }

  announce(summary: Summary, nowMs: number): void {
    this.summary = summary;
    if ((summary.flags & summaryFlag.open) === 0) this.mustShut = false;
    if (summary.epoch >= this.excludedEpoch) this.excludedEpoch = 0;
    for (const peer of this.peers.values()) this.#checkExcluded(peer.summary);
    this.#sendAll(nowMs);
    this.#renew(nowMs);
  }

  /** Time passed: judges, sends when due, renews. Returns when to be called next. */
  tick(nowMs: number, agentAliveMs: number): number {
    this.noteLateness(nowMs);
    const hung = nowMs - agentAliveMs > this.timing.agentDeadlineMs;
    if (hung && !this.hung) {
      this.everHung = true;
      this.emit({ kind: 'hung' });
    }
    if (this.guards.shutFirst && hung && (this.summary.flags & summaryFlag.open) !== 0)
      this.mustShut = true;
    this.hung = hung;
    this.#judgeAll(nowMs, true);
    if (nowMs >= this.nextSendMs) {
      this.nextSendMs += this.timing.heartbeatMs;
      if (this.nextSendMs <= nowMs) this.nextSendMs = nowMs + this.timing.heartbeatMs;
      this.#sendAll(nowMs);
    }
    this.#renew(nowMs);
    return this.#plan();
  }

  receive(beat: Heartbeat, arrivedMs: number, nowMs: number): boolean {
    const peer = this.peers.get(beat.from);
    if (peer === undefined) return false;
    if (beat.boot !== peer.boot && !this.#prove(peer, beat)) return false;
    if (beat.seq <= peer.seq) return false;
    peer.seq = beat.seq;
    peer.sentMs = beat.sentMs;
    peer.heardMs = Math.max(peer.heardMs, arrivedMs);
    peer.up = peer.known = true;
    if (beat.echoBoot === this.boot) {
      peer.provenSeq = Math.max(peer.provenSeq, beat.echoSeq);
      peer.echoedMs = Math.max(peer.echoedMs, beat.echoSentMs);
    }
    if (beat.hung !== peer.hung) peer.changed = true;
    peer.hung = beat.hung;
    if (beat.summary !== peer.summary) {
      peer.summary = beat.summary;
      this.emit({ kind: 'summary', node: beat.from, summary: beat.summary });
    }
    this.#checkExcluded(beat.summary);
    this.#judgeAll(nowMs, false);
    this.#renew(nowMs);
    return true;
  }

  /** Tells a new agent everything that is known. */
  resync(): void {
    for (const [node, peer] of this.peers) {
      if (peer.summary !== noSummary) this.emit({ kind: 'summary', node, summary: peer.summary });
      if (peer.known) this.#emitPeer(node, peer);
    }
  }

  #prove(peer: KeeperPeer, beat: Heartbeat): boolean {
    const echoed = beat.echoBoot === this.boot ? beat.echoSeq : 0;
    const challenged = beat.challengeBoot === this.boot ? beat.challengeSeq : 0;
    if (Math.max(echoed, challenged) <= peer.provenSeq) {
      peer.candidate = beat.boot;
      peer.candidateSeq = beat.seq;
      return false;
    }
    peer.boot = beat.boot;
    peer.candidate = 0;
    peer.seq = 0;
    peer.changed = true;
    return true;
  }

  noteLateness(nowMs: number): void {
    if (this.plannedMs === 0 || nowMs - this.plannedMs <= this.timing.heartbeatMs) return;
    this.doubtUntilMs = nowMs + this.timing.heartbeatMs;
    if (this.leaseEndMs > 0 && this.leaseEndMs <= nowMs) {
      this.listenUntilMs = nowMs + 2 * this.timing.heartbeatMs;
    }
  }

  #judgeAll(nowMs: number, maySuspect: boolean): void {
    for (const [node, peer] of this.peers) {
      if (!peer.known) continue;
      const silentMs = peer.heardMs + this.timing.suspectMs;
      if (peer.up && maySuspect && nowMs >= silentMs && nowMs >= this.doubtUntilMs) {
        peer.up = false;
        peer.muteUntilMs = nowMs + 2 * this.timing.heartbeatMs;
      }
      const echoed = peer.heardMs < peer.echoedMs + this.timing.suspectMs;
      const reach = !peer.up ? 'silent' : echoed ? 'both' : 'heard';
      if (reach === peer.reach && !peer.changed) continue;
      peer.reach = reach;
      peer.changed = false;
      this.#emitPeer(node, peer);
    }
  }

  #emitPeer(node: number, peer: KeeperPeer): void {
    const { reach, boot, hung } = peer;
    this.emit({ kind: 'peer', node, reach, boot, hung });
  }

  #sendAll(nowMs: number): void {
    this.lastSendMs = nowMs;
    this.seq++;
    for (const [to, peer] of this.peers) {
      // The agent acts upon its silence just now: to be echoed would give it its lease back.
      const mute = this.guards.mute && nowMs < peer.muteUntilMs;
      this.send({
        from: this.me,
        to,
        boot: this.boot,
        seq: this.seq,
        sentMs: nowMs,
        hung: this.hung,
        summary: this.summary,
        echoBoot: mute ? 0 : peer.boot,
        echoSeq: peer.seq,
        echoSentMs: peer.sentMs,
        challengeBoot: peer.candidate,
        challengeSeq: peer.candidateSeq,
      });
    }
  }

  #checkExcluded(theirs: Summary): void {
    if ((this.summary.flags & 1) === 0 || theirs.members === 0n) return;
    if (has(theirs.members, this.me)) return;
    // As farm-state.ts isBetter: of two views with one epoch the one with the lower leader.
    const tie = theirs.epoch === this.summary.epoch && lowest(theirs) < lowest(this.summary);
    if (theirs.epoch > this.summary.epoch || tie) {
      this.excludedEpoch = Math.max(this.excludedEpoch, tie ? theirs.epoch + 1 : theirs.epoch);
    }
  }

  #renew(nowMs: number): void {
    if (!this.summary.serving || this.hung || this.mustShut) return;
    if (this.excludedEpoch > this.summary.epoch) {
      this.leaseEndMs = 0;
      return;
    }
    if (nowMs < this.listenUntilMs) return;
    const { suspectMs, leaseMs } = this.timing;
    // Silent by now: others may have its clients by a later view, which its filter has not yet.
    if (this.guards.noRevival && this.leaseEndMs <= nowMs && this.#isBehind(nowMs)) return;
    let end = this.lastSendMs + leaseMs;
    const margin = Math.min(20, suspectMs / 10);
    for (const [node, peer] of this.peers) {
      if (this.guards.echoCap && this.#mayTakeOver(node, peer, nowMs)) {
        end = Math.min(end, peer.echoedMs + suspectMs - margin);
      }
    }
    this.leaseEndMs = end;
  }

  /**
   * Could this node be taken for dead by that one? A node that counts it as a member and is heard,
   * or was when it had not echoed for a while: then it lives, but does not hear. One that is
   * simply dead echoed to the end.
   */
  #mayTakeOver(node: number, peer: KeeperPeer, nowMs: number): boolean {
    const { heartbeatMs, suspectMs } = this.timing;
    const silentMs = nowMs - peer.heardMs;
    const deaf = this.guards.deafCap && peer.echoedMs < peer.heardMs - 2 * heartbeatMs;
    const heard = silentMs <= 2 * heartbeatMs;
    if (has(this.summary.members, node)) return heard || deaf;
    const counts = this.guards.strangersCap && has(peer.summary.members, this.me);
    return counts && (heard || (deaf && silentMs <= suspectMs));
  }

  /** Is a node heard that announces a later view, or serves by a view without this one? */
  #isBehind(nowMs: number): boolean {
    for (const peer of this.peers.values()) {
      const { epoch, members, flags } = peer.summary;
      if (nowMs - peer.heardMs > this.timing.suspectMs || peer.hung || members === 0n) continue;
      const rival = (flags & summaryFlag.open) !== 0 && !has(members, this.me);
      if (rival || epoch > this.summary.epoch) return true;
    }
    return false;
  }

  #plan(): number {
    let wake = this.nextSendMs;
    for (const peer of this.peers.values()) {
      if (peer.up)
        wake = Math.min(wake, Math.max(peer.heardMs + this.timing.suspectMs, this.doubtUntilMs));
    }
    this.plannedMs = wake;
    return wake;
  }
}

function has(members: bigint, node: number): boolean {
  return ((members >> BigInt(node)) & 1n) === 1n;
}

/** Lowest bit of the members, as a number that compares. */
function lowest(summary: Summary): bigint {
  return summary.members & -summary.members;
}

function newPeer(): KeeperPeer {
  return {
    boot: 0,
    candidate: 0,
    candidateSeq: 0,
    seq: 0,
    sentMs: 0,
    provenSeq: 0,
    heardMs: never,
    muteUntilMs: never,
    echoedMs: never,
    known: false,
    up: false,
    reach: 'silent',
    hung: false,
    changed: false,
    summary: noSummary,
  };
}
