/**
 * What the neighbours of a virtual IP make of it: does somebody else answer for it (RFC 5227), and does the
 * gateway know who has it now? Questions are asked one at a time, since each takes a thread for as long as it
 * waits. Nothing is decided here: it is recorded, told as an alert, and the address is defended.
 */
import type { FilterClaim } from '../native/filter.ts';
import type { Link } from '../native/link.ts';
import type { Alert } from './face.ts';

/** A virtual IP on a device. */
export interface Neighbour {
  readonly device: string;
  readonly addr: string;
}

export interface NeighbourPorts {
  readonly link: Pick<Link, 'probe' | 'ask'>;
  readonly nowMs: () => number;
  readonly serverOf: (mac: string) => string | null;
  readonly gatewayOf: (device: string, addr: string) => string | null;
  readonly record: (text: string, data: Readonly<Record<string, unknown>>) => void;
  readonly alert: (id: string, on: boolean, severity: Alert['severity'], message: string) => void;
  /** Who else spoke as the address, as its filter saw; null: nobody. */
  readonly claim: (addr: string) => FilterClaim | null;
  /** Says again where the addresses are. */
  readonly announce: () => void;
}

/** Waits of one question each. */
const probeMs = 300;
const askMs = 500;
/** The gateway is asked at these times after the address opened, until it answers. */
const askAtMs = [0, 1300, 5000, 20_000] as const;
/** Others are looked for this often; and while there are some, the address is defended (RFC 5227 2.4). */
const lookMs = 60_000;
const defendMs = 10_000;
/** What the filter has seen is looked at this often. */
const claimMs = 1000;

export class NeighbourWatch {
  readonly #module: string;
  readonly #list: readonly Neighbour[];
  readonly #ports: NeighbourPorts;
  /** Who answers for an address that is not theirs, by address. */
  readonly #foreign = new Map<string, string>();
  /** Addresses whose gateway has answered since they opened. */
  readonly #known = new Set<string>();
  #openedMs = 0;
  /** Not all addresses were asked for since they were to be. */
  #isProbing = false;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #looking: NodeJS.Timeout | null = null;
  #timers: NodeJS.Timeout[] = [];
  #work: Promise<void> = Promise.resolve();
  /** Grows with each start and stop: what was begun before counts no more. */
  #spell = 0;

  constructor(module: string, list: readonly Neighbour[], ports: NeighbourPorts) {
    this.#module = module;
    this.#list = list;
    this.#ports = ports;
  }

  /** Before the addresses are here: does somebody answer for them? */
  probe(): Promise<void> {
    this.#isProbing = true;
    return this.#enqueue(() => this.#lookAround(false));
  }

  /** The addresses are open since `openedMs`. */
  start(openedMs: number): void {
    this.stop();
    this.#openedMs = openedMs;
    this.#known.clear();
    const sinceMs = this.#ports.nowMs() - openedMs;
    // An agent that follows does not ask anew what was asked long ago.
    if (sinceMs < (askAtMs.at(-1) ?? 0)) {
      for (const atMs of askAtMs) {
        const isLast = atMs === askAtMs.at(-1);
        this.#later(atMs - sinceMs, () => this.#askGateways(isLast));
      }
    }
    // Whoever answered before, or was not asked yet, is looked for at once.
    this.#lookAgain(this.#foreign.size > 0 || this.#isProbing ? 0 : defendMs);
    this.#watchClaims();
  }

  stop(): void {
    this.#spell++;
    for (const timer of this.#timers.splice(0)) clearTimeout(timer);
  }

  /** The addresses are off: what was said of them is over. */
  forget(): void {
    this.stop();
    this.#isProbing = false;
    this.#foreign.clear();
    for (const { addr } of this.#list) {
      this.#ports.alert(this.#duplicateId(addr), false, 'critical', '');
      this.#ports.alert(this.#gatewayId(addr), false, 'warning', '');
    }
  }

  #duplicateId(addr: string): string {
    return `module.${this.#module}.duplicate.${addr}`;
  }

  #gatewayId(addr: string): string {
    return `module.${this.#module}.gateway.${addr}`;
  }

  #later(delayMs: number, work: () => Promise<void>): NodeJS.Timeout {
    const spell = this.#spell;
    const timer = setTimeout(
      () => {
        this.#timers = this.#timers.filter((one) => one !== timer);
        void this.#enqueue(async () => {
          if (spell === this.#spell) await work();
        });
      },
      Math.max(0, delayMs),
    );
    this.#timers.push(timer.unref());
    return timer;
  }

  #enqueue(work: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(work).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      this.#ports.record(`the neighbours of the virtual IP could not be asked: ${reason}`, {});
    });
    return this.#work;
  }

  async #look(): Promise<void> {
    const spell = this.#spell;
    try {
      await this.#lookAround(true);
      if (spell === this.#spell && this.#foreign.size > 0) this.#ports.announce();
    } finally {
      // Also when nobody could be asked: a device may be down for a while.
      if (spell === this.#spell) this.#lookAgain(this.#foreign.size > 0 ? defendMs : lookMs);
    }
  }

  #lookAgain(delayMs: number): void {
    const before = this.#looking;
    if (before !== null) clearTimeout(before);
    this.#timers = this.#timers.filter((one) => one !== before);
    this.#looking = this.#later(delayMs, () => this.#look());
  }

  /** A claim brings the next look forward, where none is due within the time of a defence anyway. */
  #watchClaims(): void {
    const nowMs = this.#ports.nowMs();
    const isNew = this.#list.some(({ addr }) => {
      const claim = this.#ports.claim(addr);
      return claim !== null && claim.atMs > nowMs - 2 * claimMs && !this.#foreign.has(addr);
    });
    if (isNew && nowMs - this.#lookedMs >= defendMs) this.#lookAgain(0);
    this.#later(claimMs, async () => this.#watchClaims());
  }

  async #lookAround(isOpen: boolean): Promise<void> {
    const spell = this.#spell;
    this.#lookedMs = this.#ports.nowMs();
    for (const { device, addr } of this.#list) {
      // oxlint-disable-next-line no-await-in-loop
      const mac = await this.#ports.link.probe(device, addr, probeMs);
      if (spell !== this.#spell) return;
      this.#note(addr, mac ?? this.#claimant(addr, isOpen ? defendMs : probeMs), isOpen);
    }
    this.#isProbing = false;
  }

  /** Who spoke as the address lately; the filter keeps most of it from the probe. */
  #claimant(addr: string, withinMs: number): string | null {
    const claim = this.#ports.claim(addr);
    return claim !== null && claim.atMs > this.#ports.nowMs() - withinMs ? claim.mac : null;
  }

  #note(addr: string, mac: string | null, isOpen: boolean): void {
    const { record, alert, serverOf } = this.#ports;
    const before = this.#foreign.get(addr) ?? null;
    const server = mac === null ? null : serverOf(mac);
    // Until its lease is over, the former primary may answer.
    if (!isOpen && server !== null) {
      record(`${addr} is still answered by ${server}`, { addr, mac });
      return;
    }
    if (mac === before) return;
    const text = mac === null ? '' : `${addr} is answered by ${server ?? `another host, ${mac}`}`;
    if (mac === null) this.#foreign.delete(addr);
    else this.#foreign.set(addr, mac);
    record(text === '' ? `nobody else answers for ${addr} any more` : text, { addr, mac });
    const id = this.#duplicateId(addr);
    // One condition has one message: another host is another one.
    alert(id, false, 'critical', '');
    if (mac !== null) alert(id, true, 'critical', `${text}, beside the primary of ${this.#module}`);
  }

  /** last: whoever has not answered by now is told of. */
  async #askGateways(isLast: boolean): Promise<void> {
    const spell = this.#spell;
    const { link, gatewayOf, record, alert } = this.#ports;
    let isMissing = false;
    for (const { device, addr } of this.#list) {
      const gateway = gatewayOf(device, addr);
      if (gateway === null || this.#known.has(addr)) continue;
      // The kernel refuses to ask as the address while its lease does not run: that is no answer either.
      // oxlint-disable-next-line no-await-in-loop
      const mac = await link.ask(device, addr, gateway, askMs).catch(() => null);
      if (spell !== this.#spell) return;
      const tookMs = Math.round(this.#ports.nowMs() - this.#openedMs);
      const id = this.#gatewayId(addr);
      if (mac !== null) {
        this.#known.add(addr);
        record(`gateway ${gateway} answers ${addr} ${tookMs} ms after it opened`, {
          addr,
          gateway,
          tookMs,
        });
        alert(id, false, 'warning', '');
      } else if (isLast) {
        isMissing = true;
        const text = `gateway ${gateway} does not answer ${addr}: it may not know that it is here`;
        if (tookMs < lookMs) record(text, { addr, gateway });
        alert(id, true, 'warning', text);
      }
    }
    if (isLast && isMissing) this.#later(lookMs, () => this.#askGateways(true));
  }
}
