/**
 * What a mirror hears of its peer's heartbeats. The detector of the cluster may be quicker than the
 * mirror's own pace (`<heart timing=…>`): its silence counts only when it has lasted for that. That the
 * peer is heard, or hangs, counts at once.
 */
import type { MirrorEvent } from '../core/mirror.ts';

export type PeerNews = Omit<Extract<MirrorEvent, { kind: 'peer' }>, 'nowMs' | 'kind'>;

export interface PeerGatePorts {
  readonly nowMs: () => number;
  readonly suspectMs: () => number;
  /** Delivers what the heartbeat thread has heard meanwhile. */
  readonly poll: () => void;
  /** Its silence counts from now on: for the journal, where a takeover's time begins here. */
  readonly suspect: (times: SuspectTimes) => void;
  readonly news: (news: PeerNews) => void;
}

/** When its newest heartbeat arrived (CLOCK_BOOTTIME, ms), and the silence that counts. */
export interface SuspectTimes extends Readonly<Record<string, number>> {
  readonly heardMs: number;
  readonly suspectMs: number;
}

export class PeerGate {
  readonly #ports: PeerGatePorts;
  #timer: NodeJS.Timeout | null = null;

  constructor(ports: PeerGatePorts) {
    this.#ports = ports;
  }

  onPeer(news: PeerNews): void {
    this.end();
    const { reach, heardMs } = news;
    if (reach !== 'silent' || heardMs < 0) return this.#ports.news(news);
    const suspectMs = this.#ports.suspectMs();
    const leftMs = heardMs + suspectMs - this.#ports.nowMs();
    if (leftMs <= 0) return this.#lost(news, suspectMs);
    const timer = setTimeout(() => {
      // Its heartbeats may have come while this process was not running.
      this.#ports.poll();
      if (this.#timer !== timer) return;
      this.#timer = null;
      this.#lost(news, suspectMs);
    }, Math.ceil(leftMs));
    this.#timer = timer;
  }

  #lost(news: PeerNews, suspectMs: number): void {
    this.#ports.suspect({ heardMs: news.heardMs, suspectMs });
    this.#ports.news(news);
  }

  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
