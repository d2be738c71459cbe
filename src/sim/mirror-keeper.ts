/**
 * Model of native/beat and of the kernel's lease for a mirror: heartbeats with echo and consent,
 * detection, the renewal of the lease by what the agent announced last. It lives on when the agent
 * does not. A peer's new boot is believed at once here; that boots prove themselves is tested with
 * the farm (keeper.ts). Times are milliseconds of the node's own clock.
 */
import type { MirrorEffect, Reach } from '../core/mirror-types.ts';

export type Announced = Omit<Extract<MirrorEffect, { readonly kind: 'announce' }>, 'kind'>;

export interface MirrorBeat {
  readonly from: number;
  readonly boot: number;
  readonly seq: number;
  /** On the sender's clock. */
  readonly sentMs: number;
  readonly hung: boolean;
  /** Lets the lease of the addressee live, if that knows of this epoch. */
  readonly consent: boolean;
  readonly epoch: number;
  /** What the sender heard last of the addressee. */
  readonly echoBoot: number;
  readonly echoSentMs: number;
}

export interface KeeperTiming {
  readonly heartbeatMs: number;
  readonly suspectMs: number;
  readonly leaseMs: number;
  readonly agentDeadlineMs: number;
}

export interface PeerNews {
  readonly reach: Reach;
  readonly boot: string;
  readonly hung: boolean;
  readonly heardMs: number;
}

const never = Number.NEGATIVE_INFINITY;
/** Before an agent has said anything. */
export const silent: Announced = {
  epoch: 0,
  running: false,
  serving: false,
  consent: false,
  lease: 'off',
};

export class MirrorKeeper {
  readonly me: number;
  readonly boot: number;
  readonly timing: KeeperTiming;
  readonly send: (beat: MirrorBeat) => void;
  readonly emit: (news: PeerNews) => void;
  announced = silent;
  leaseEndMs = 0;
  nextSendMs: number;
  hung = false;
  #seq = 0;
  #lastSendMs = never;
  nextWakeMs = never;
  #doubtUntilMs = never;
  readonly #sinceMs: number;
  #peerBoot = 0;
  #peerSeq = 0;
  #peerSentMs = 0;
  #peerHung = false;
  #heardMs = never;
  /** Send time of the newest own heartbeat that the peer echoed; with its consent. */
  #echoedMs = never;
  #consentedMs = never;
  #up = false;
  #told = '';

  constructor(
    me: number,
    boot: number,
    nowMs: number,
    timing: KeeperTiming,
    send: (beat: MirrorBeat) => void,
    emit: (news: PeerNews) => void,
  ) {
    this.me = me;
    this.boot = boot;
    this.timing = timing;
    this.send = send;
    this.emit = emit;
    this.nextSendMs = this.#sinceMs = nowMs;
  }

  announce(announced: Announced, nowMs: number): void {
    this.announced = announced;
    if (announced.lease === 'off') this.leaseEndMs = 0;
    this.#sendNow(nowMs);
    this.#renew();
  }

  /** Judges, sends when due, renews. Returns when to be called next. */
  tick(nowMs: number, agentAliveMs: number): number {
    this.noteLateness(nowMs);
    this.hung = nowMs - agentAliveMs > this.timing.agentDeadlineMs;
    this.#judge(nowMs, true);
    if (nowMs >= this.nextSendMs) this.#sendNow(nowMs);
    this.#renew();
    this.nextWakeMs = this.nextSendMs;
    const silentMs = Math.max(this.#heardMs + this.timing.suspectMs, this.#doubtUntilMs);
    if (this.#up && silentMs > nowMs) this.nextWakeMs = Math.min(this.nextWakeMs, silentMs);
    return this.nextWakeMs;
  }

  receive(beat: MirrorBeat, arrivedMs: number, nowMs: number): void {
    if (beat.boot < this.#peerBoot) return;
    if (beat.boot === this.#peerBoot && beat.seq <= this.#peerSeq) return;
    this.#peerBoot = beat.boot;
    this.#peerSeq = beat.seq;
    this.#peerSentMs = beat.sentMs;
    this.#peerHung = beat.hung;
    this.#heardMs = Math.max(this.#heardMs, arrivedMs);
    this.#up = true;
    if (beat.echoBoot === this.boot) {
      this.#echoedMs = Math.max(this.#echoedMs, beat.echoSentMs);
      const counts = beat.consent && beat.epoch <= this.announced.epoch;
      if (counts) this.#consentedMs = Math.max(this.#consentedMs, beat.echoSentMs);
    }
    this.#judge(nowMs, false);
    this.#renew();
  }

  /** Tells a new agent what is known. */
  resync(): void {
    if (this.#told === '') return;
    this.#told = '';
    this.#judge(never, false);
  }

  noteLateness(nowMs: number): void {
    if (nowMs - this.nextWakeMs > this.timing.heartbeatMs && this.nextWakeMs !== never) {
      this.#doubtUntilMs = nowMs + this.timing.heartbeatMs;
    }
  }

  #judge(nowMs: number, maySuspect: boolean): void {
    const { suspectMs, heartbeatMs } = this.timing;
    if (maySuspect && nowMs >= this.#doubtUntilMs && nowMs >= this.#heardMs + suspectMs) {
      this.#up = false;
      // Never heard: nothing is known before it could have been.
      if (this.#heardMs === never && nowMs < this.#sinceMs + suspectMs + heartbeatMs) return;
    }
    if (this.#heardMs === never && !maySuspect && this.#told === '') return;
    const echoed = this.#heardMs < this.#echoedMs + suspectMs;
    const reach = !this.#up ? 'silent' : echoed ? 'both' : 'heard';
    const told = `${reach} ${this.#peerBoot} ${this.#peerHung}`;
    if (told === this.#told) return;
    this.#told = told;
    const heardMs = this.#heardMs === never ? -1 : this.#heardMs;
    this.emit({ reach, boot: `${this.#peerBoot}`, hung: this.#peerHung, heardMs });
  }

  #sendNow(nowMs: number): void {
    this.#lastSendMs = nowMs;
    this.nextSendMs = nowMs + this.timing.heartbeatMs;
    this.send({
      from: this.me,
      boot: this.boot,
      seq: ++this.#seq,
      sentMs: nowMs,
      hung: this.hung,
      consent: this.announced.consent,
      epoch: this.announced.epoch,
      echoBoot: this.#peerBoot,
      echoSentMs: this.#peerSentMs,
    });
  }

  #renew(): void {
    const { lease } = this.announced;
    if (lease === 'off' || this.hung) return;
    const from = lease === 'own' ? this.#lastSendMs : this.#consentedMs;
    this.leaseEndMs = from + this.timing.leaseMs;
  }
}
