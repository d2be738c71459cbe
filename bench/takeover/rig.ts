/** One contestant in a lab of its own, and one takeover of it seen by probing clients. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ClientRecord, LoadGenerator } from '../../src/lab/clients.ts';
import type { Host } from '../../src/lab/host.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { gapsOf, isOver, servedBy } from '../failover/figures.ts';
import { answeredMs, type Round, type Stages, type Trigger, waitsOf } from './figures.ts';

/** Two servers, one of which answers on a virtual IP. */
export interface Contestant {
  readonly lab: Lab;
  readonly vip: string;
  /** UDP port of the server that the clients ask: lab_tool, which answers with its host's name. */
  readonly port: number;
  /** Resolves when one server serves and the other could take over now. */
  settled(): Promise<void>;
  /** Makes the other one take over; may resolve before it has. */
  fail(host: Host, trigger: Trigger): Promise<void>;
  /** Where the time went, from the journals. `faultMs`: a moment just before; CLOCK_BOOTTIME, ms. */
  stages(host: Host, trigger: Trigger, faultMs: number, firstMs: number): Promise<Stages | null>;
  /** Resolves when the failed server is the other one's full second again. */
  restore(host: Host, trigger: Trigger): Promise<void>;
}

/**
 * Each client asks every 5 ms and asks again after 2 ms without answer. A third of 30 clients sees a
 * fault within 0.5 ms of its time, and its end within 2 ms.
 */
const probe = { kind: 'udp', count: 30, intervalMs: 5, timeoutMs: 2 } as const;

/** Time of undisturbed service that is watched before each fault. */
const quietMs = 1000;

/** Answers to one question for the address come within this; a second answer, too. */
const answersMs = 500;

/** A gap longer than this ends the bench: something is broken. */
const gapMaxMs = 60_000;

/** Between two looks at the clients while a takeover is under way. */
const lookMs = 10;

/** One takeover, and what the clients saw of it; the failed server is not restored. */
export async function roundOf(contestant: Contestant, trigger: Trigger): Promise<Round> {
  const { lab, vip, port } = contestant;
  const load = await lab.load({ ...probe, server: vip, port });
  try {
    await load.until(
      ({ waiting, answers }) => waiting === 0 && answers >= 10 * probe.count,
      10_000,
    );
    await load.mark('quiet');
    await delay(quietMs);
    await contestant.settled();
    const quiet = await load.mark('fault');
    const before = await load.clients();
    const victim = lab.host(busiest(before));
    const hit = servedBy(before, victim.name);
    const [{ records, firstMs }] = await Promise.all([
      overOf(load, hit, `${trigger} of ${victim.name}`, victim.name),
      contestant.fail(victim, trigger),
    ]);
    const { worstTickUs } = await load.stats();
    const faultMs = quiet.atUs / 1000;
    const answerers = await answerersOf(lab, vip);
    return {
      trigger,
      victim: victim.name,
      gapMs: gapsOf(records, hit).gapMs,
      quietMs: quiet.longestGapUs / 1000,
      lateMs: worstTickUs / 1000,
      answerers,
      stages: firstMs === null ? null : await contestant.stages(victim, trigger, faultMs, firstMs),
    };
  } finally {
    await load.stop();
  }
}

/** The server that answered most of the clients last: all of them, unless it has just changed. */
function busiest(records: readonly ClientRecord[]): string {
  const names = [...new Set(records.flatMap(({ server }) => (server === null ? [] : [server])))];
  const most = names.toSorted((a, b) => servedBy(records, b).length - servedBy(records, a).length);
  if (most[0] === undefined) throw new Error('no client has an answer');
  return most[0];
}

/** What the clients say once all have been answered by the other server, and when the last one was. */
async function overOf(
  load: LoadGenerator,
  hit: readonly number[],
  what: string,
  victim: string,
): Promise<{ records: readonly ClientRecord[]; firstMs: number | null }> {
  const end = performance.now() + gapMaxMs;
  const seen = new Map<number, number>();
  for (;;) {
    const records = await load.clients();
    if (isOver(records, hit, victim)) return { records, firstMs: answeredMs(records, seen) };
    for (const [index, since] of waitsOf(records)) {
      if (records[index]?.server === victim) seen.set(index, since);
    }
    if (performance.now() > end) {
      throw new Error(`after the ${what}, clients had no answer of the other for 60 s`);
    }
    await delay(lookMs);
  }
}

/** How many servers answer the clients' question who has the address (ARP), asked now. */
async function answerersOf(lab: Lab, vip: string): Promise<number> {
  const sniffer = await lab.sniff();
  // The clients' next datagram asks anew.
  await lab.clients[0]?.exec(['ip', 'neigh', 'flush', 'to', vip]);
  await delay(answersMs);
  const { arpByMac } = await sniffer.stop();
  return lab.hosts.filter((host) => (arpByMac[host.mac()] ?? 0) > 0).length;
}
