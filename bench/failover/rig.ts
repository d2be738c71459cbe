/** One contestant in a lab of its own, and one power pull of it seen by probing clients. */
import { setTimeout as delay } from 'node:timers/promises';
import type { LoadGenerator } from '../../src/lab/clients.ts';
import type { Host } from '../../src/lab/host.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { gapsOf, isOver, type Pull, servedBy } from './figures.ts';

/** UDP port of the server that both sides run: lab_tool, which answers with the server's name. */
export const port = 7000;

/** A set of servers behind one virtual IP. */
export interface Rig {
  readonly lab: Lab;
  readonly vip: string;
  /** The server whose power is pulled next. */
  victim(pull: number): Host;
  /** Switches it on again; resolves when it is a full member once more. */
  restore(host: Host): Promise<void>;
}

/**
 * Each client asks every 5 ms and asks again after 2 ms without answer. A third of 30 clients sees a
 * pull within 0.5 ms of its time, and its end within 2 ms.
 */
const probe = { kind: 'udp', count: 30, intervalMs: 5, timeoutMs: 2 } as const;

/** Time of undisturbed service that is watched before each pull. */
const quietMs = 1000;

/** A gap longer than this ends the bench: something is broken. */
const gapMaxMs = 20_000;

/** Pulls the power of one server of a rig that serves on all, and says what its clients saw. */
export async function pullOf(rig: Rig, number: number): Promise<Pull> {
  const load = await rig.lab.load({ ...probe, server: rig.vip, port });
  try {
    await load.until(
      ({ waiting, answers }) => waiting === 0 && answers >= 10 * probe.count,
      10_000,
    );
    await load.mark('quiet');
    await delay(quietMs);
    const victim = rig.victim(number);
    const quiet = await load.mark('pull');
    const hit = servedBy(await load.clients(), victim.name);
    await victim.power();
    const records = await overOf(load, hit, victim.name);
    const { worstTickUs } = await load.stats();
    return {
      victim: victim.name,
      ...gapsOf(records, hit),
      hit: hit.length,
      clients: records.length,
      quietMs: quiet.longestGapUs / 1000,
      lateMs: worstTickUs / 1000,
    };
  } finally {
    await load.stop();
  }
}

/** What the clients say once all that were hit have been answered by another server. */
async function overOf(load: LoadGenerator, hit: readonly number[], victim: string) {
  const end = performance.now() + gapMaxMs;
  for (;;) {
    const records = await load.clients();
    if (isOver(records, hit, victim)) return records;
    if (performance.now() > end) {
      throw new Error(`after the power of ${victim} was pulled, clients had no answer for 20 s`);
    }
    await delay(20);
  }
}
