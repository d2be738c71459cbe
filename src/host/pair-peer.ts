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
  readonly news: (news: PeerNews) => void;
}

export class PeerGate {
  readonly #ports: PeerGatePorts;
  #timer: NodeJS.Timeout | null = null;

  constructor(ports: PeerGatePorts) {
    this.#ports = ports;
  }

  onPeer(news: PeerNews): void {
    this.end();
    const leftMs = news.heardMs + this.#ports.suspectMs() - this.#ports.nowMs();
    if (news.reach !== 'silent' || news.heardMs < 0 || leftMs <= 0) return this.#ports.news(news);
    const timer = setTimeout(() => {
      // Its heartbeats may have come while this process was not running.
      this.#ports.poll();
      if (this.#timer !== timer) return;
      this.#timer = null;
      this.#ports.news(news);
    }, Math.ceil(leftMs));
    this.#timer = timer;
  }

  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
