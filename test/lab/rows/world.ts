/**
 * A mirror in a lab to which the faults of the table are done, one after the other: clients record what
 * was acknowledged, a probe asks who answers for the virtual IP, a sniffer looks for two that do.
 *
 * After each fault the mirror must be whole again by itself (I4), with every record that was
 * acknowledged (I1), of one application at a time (I2), behind an address of one server (I3).
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { LoadGenerator, Sniffer } from '../../../src/lab/clients.ts';
import type { Host, HostProcess } from '../../../src/lab/host.ts';
import { portName } from '../../../src/lab/plan.ts';
import { dir, module, Pair } from '../pair-support.ts';
import { type Answer, parseAnswer, twoAnswerers, wrongRecords } from '../set-check.ts';
import { eventually } from '../support.ts';
import { type Measured, measuredOf } from './measure.ts';

export const programs = {
  agent: /^\S*node \S*agent\.js/,
  holdfastd: /^\S*holdfastd /,
  engine: /holdfast-replica/,
  worker: /holdfast-replica --worker/,
  application: /^\S*node \S*set-server\.js/,
  /** All that is Holdfast's, but not the application. */
  holdfast: /^\S*node \S*agent\.js|^\S*holdfastd |holdfast-replica/,
} as const;

/** Comes within this on a machine on which much else runs. */
const awaitMs = 60_000;
const mostTold = 20;
/** An agent acts upon what it was told within this. */
const quietMs = 500;
/** What a fault of a given time, or a program of the lab, may be late by and still count. */
const lateMs = 150;
/** Who waits longer for an answer asks anew; what waits that long is a longer outage by so much. */
const patienceMs = 400;

export interface WorldOptions {
  /** Something to do on a server before its data is mounted, and each time that it was switched on. */
  readonly mount?: (pair: Pair, host: Host) => Promise<void>;
  /** Makes something that is in the environment of all agents, and says how it is removed. */
  readonly preload?: () => {
    readonly env: Readonly<Record<string, string>>;
    readonly remove: () => void;
  };
}

export class World {
  readonly pair: Pair;
  /** Who is primary when a fault begins, and who follows it. */
  primary: Host;
  secondary: Host;
  #answers: Answer[] = [];
  #clients: HostProcess | null = null;
  #probe!: LoadGenerator;
  #sniffer!: Sniffer;
  #undo: (() => Promise<unknown>)[] = [];
  readonly #told = new Set<string>();
  /** The epoch when the fault began. */
  #epoch = 0;
  /** A fault lasted longer than it should have. */
  #isLate = false;

  readonly #remove: () => void;

  private constructor(pair: Pair, remove: () => void) {
    this.pair = pair;
    this.#remove = remove;
    this.primary = pair.a;
    this.secondary = pair.b;
  }

  static async up(options: WorldOptions = {}): Promise<World> {
    const made = options.preload?.();
    const pair = await Pair.up({
      lans: 2,
      tool: (lab) => {
        const path = join(lab.dir, 'set-server');
        const program = join(import.meta.dirname, '../set-server.js');
        const text = `#!/bin/sh\nexec ${process.execPath} ${program} "$@"\n`;
        writeFileSync(path, text, { mode: 0o755 });
        return path;
      },
      // Two networks; the second carries the data. Faults in a row are what this is about.
      edit: (xml) =>
        xml
          .replace('loop_interval="24h"', 'loop_interval="0"')
          .replace(
            '<heartbeat name="net1" ident="flow"/>',
            '<heartbeat name="net1"/><heartbeat name="net2" ident="flow"/>',
          ),
      agent: { waitMs: awaitMs, ...(made === undefined ? {} : { env: made.env }) },
      ...(options.mount === undefined ? {} : { mount: options.mount }),
    });
    try {
      const world = new World(pair, () => made?.remove());
      await pair.ready();
      world.#sniffer = await pair.lab.sniff();
      world.#probe = await pair.lab.load({
        kind: 'icmp',
        server: pair.lab.vip(1),
        count: 4,
        intervalMs: 20,
        timeoutMs: 20,
      });
      await world.clients();
      return world;
    } catch (error) {
      await pair.down();
      throw error;
    }
  }

  async down(): Promise<void> {
    await this.pair.down();
    this.#remove();
  }

  /** Clients that write and wait so long for an answer take the place of those that were there. */
  async clients(answerMs: number = patienceMs): Promise<void> {
    const former = this.#clients;
    former?.kill('SIGKILL');
    await former?.ended;
    const [space] = this.pair.lab.clients;
    assert.ok(space !== undefined);
    const program = join(import.meta.dirname, '../set-clients.js');
    const name = String(this.#answers.length);
    const argv = [process.execPath, program, this.pair.lab.vip(1), String(answerMs), name];
    this.#clients = await space.spawn(argv);
    let rest = '';
    this.#clients.child.stdout?.on('data', (data: Buffer) => {
      const lines = (rest + data.toString()).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const answer = parseAnswer(line);
        if (answer !== null) this.#answers.push(answer);
      }
    });
    await this.served();
  }

  get begunEpoch(): number {
    return this.#epoch;
  }

  get lab(): Pair['lab'] {
    return this.pair.lab;
  }

  /** Done once the fault is over, the last that was given first. */
  undo(work: () => Promise<unknown>): void {
    this.#undo.push(work);
  }

  /** A record more is acknowledged, that of a server where one is given. */
  async served(by?: Host): Promise<void> {
    const before = this.#answers.length;
    const isOne = ({ kind, run }: Answer) =>
      kind === 'w' && (by === undefined || run.startsWith(`${by.name}@`));
    await eventually(
      `a record to be acknowledged by ${by?.name ?? 'somebody'}`,
      async () => (this.#answers.slice(before).some(isOne) ? true : null),
      awaitMs,
    );
  }

  /** The other server has taken over, and clients write there. */
  async moves(): Promise<void> {
    await this.served(this.secondary);
    const shown = await this.pair.shown(this.secondary);
    assert.match(shown, /^(PRIM|ALONE)/, shown);
  }

  /** The primary goes on without the other one, with a new epoch. */
  async alone(): Promise<void> {
    await this.pair.becomes(this.primary, 'ALONE Ready', awaitMs);
    await this.served(this.primary);
  }

  /** Clients are served, and nobody has taken over. */
  async keeps(): Promise<void> {
    await this.served();
    if (!(await this.#isCalm())) return;
    // Its agent may be on its way back.
    const shown = await eventually(`${this.primary.name} to tell its state`, () =>
      this.pair.shown(this.primary).catch(() => null),
    );
    if (!/^(PRIM|ALONE)/.test(shown)) assert.fail(`${shown}\n${await this.#stories()}`);
  }

  /** Nothing moves for so long: clients are served, and no epoch has begun. */
  async stays(ms = 0): Promise<void> {
    await delay(ms);
    await this.keeps();
    const epoch = await this.epoch();
    if (epoch !== this.#epoch && (await this.#isCalm()))
      assert.fail(`epoch ${epoch}, not ${this.#epoch}\n${await this.#stories()}`);
  }

  /**
   * Has the machine time for the lab? Where it has not, heartbeats may be late by more than the fault, and
   * only service, its data and its coming back are asked for.
   */
  async #isCalm(): Promise<boolean> {
    const { worstTickUs } = await this.#probe.stats();
    const isBusy = (os.loadavg()[0] ?? 0) > 3 * os.cpus().length;
    return !this.#isLate && !isBusy && worstTickUs / 1000 <= lateMs;
  }

  /**
   * Processes of the primary, all where not said, stand still for so long. On a machine that is busy that
   * may be longer than it was meant to be, and something may move.
   */
  async pausedFor(ms: number, match?: RegExp): Promise<void> {
    const beganMs = performance.now();
    if (match === undefined) await this.lab.pause(this.primary.name);
    else await this.pause(this.primary, match);
    await delay(ms);
    await this.lab.heal();
    this.#isLate = performance.now() - beganMs > ms + lateMs;
  }

  /** Until a server says something of why it waits. */
  async says(host: Host, text: RegExp): Promise<void> {
    let last = '';
    const look = async (): Promise<true | null> => {
      const status = await this.pair.status(host).catch(() => null);
      last = status?.why.join('\n') ?? '';
      return text.test(last) ? true : null;
    };
    await eventually(`${host.name} to say ${text.source}`, look, awaitMs).catch(
      (error: unknown) => {
        throw new Error(`${String(error)}: ${last}`);
      },
    );
  }

  /** The epoch as a server knows it, once its agent answers. */
  epoch(host: Host = this.primary): Promise<number> {
    return eventually(`${host.name} to tell its epoch`, async () => {
      const status = await this.pair.status(host).catch(() => null);
      return status?.pair?.record?.epoch ?? null;
    });
  }

  async #stories(): Promise<string> {
    const hosts = [this.pair.a, this.pair.b];
    const told = await Promise.all(hosts.map((host) => this.pair.story(host).catch(String)));
    return hosts.map(({ name }, at) => `${name}:\n${told[at]}`).join('\n');
  }

  /** Processes of a server stand still until the fault is over. */
  async pause(host: Host, match: RegExp): Promise<void> {
    const found = host.processes().filter(({ command }) => match.test(command));
    assert.ok(found.length > 0, `${match.source} of ${host.name}`);
    const ids = found.map(({ id }) => id);
    await this.lab.pause(host.name, ids);
  }

  /** The plug of a server is pulled; it is switched on when the fault is over. */
  async power(host: Host): Promise<void> {
    await host.power();
    this.undo(() => this.boot(host));
  }

  async boot(host: Host): Promise<void> {
    if (!host.isOn) await this.pair.boot(host);
  }

  /** holdfastd is killed; what a service manager does follows when the fault is over. */
  killDaemon(host: Host): void {
    assert.equal(host.kill(programs.holdfastd), 1);
    this.undo(() => this.startDaemon(host));
  }

  /** As a service manager does it: once all of the former is gone. */
  async startDaemon(host: Host): Promise<void> {
    await eventually('the agent of a holdfastd that ended to end', async () =>
      host.processes().some(({ command }) => programs.agent.test(command)) ? null : true,
    );
    await this.pair.cluster.startAgent(host);
  }

  /** Kills what a program of a server consists of; resolves when as much of it runs anew. */
  async killed(host: Host, match: RegExp): Promise<void> {
    const found = () => host.processes().filter(({ command }) => match.test(command));
    const former = found().map(({ id }) => id);
    assert.ok(former.length > 0, `${match.source} of ${host.name}`);
    // Stopped first: one may start the other again.
    host.kill(match, 'SIGSTOP');
    host.kill(match);
    await eventually(`${match.source} of ${host.name} to run again`, async () => {
      const fresh = found().filter(({ id }) => !former.includes(id));
      return fresh.length >= former.length ? true : null;
    });
  }

  /**
   * Rules of nft for frames that hosts send on both networks, in force until the fault is over.
   * `others`: of frames for these hosts only.
   */
  async frames(host: Host, others: readonly Host[], rule: string): Promise<void> {
    const chains = [0, 1].map((lan) => {
      const to = others.map((other) => other.address(lan)).join(', ');
      const device = portName(host.state, lan);
      const head = `type filter hook ingress device ${device} priority 10; policy accept;`;
      return `chain ${device} {\n${head}\nip daddr { ${to} } ${rule}\n}`;
    });
    const table = `rows_${host.name}`;
    await this.lab.switchExec(['nft', `table netdev ${table} {\n${chains.join('\n')}\n}`]);
    this.undo(() => this.lab.switchExec(['nft', 'delete', 'table', 'netdev', table]));
  }

  /** Does a fault, waits for what is expected, undoes it, waits until all is well, and checks. */
  async run(act: (world: World) => Promise<void>): Promise<Measured> {
    await this.#begin();
    const from = this.#answers.length - 1;
    const { atUs } = await this.#probe.mark('fault');
    const faultNs = Number(process.hrtime.bigint());
    try {
      await act(this);
    } finally {
      await this.#heal();
    }
    await this.pair.settled(awaitMs);
    await this.served();
    const endNs = Number(process.hrtime.bigint());
    const stats = await this.#probe.stats();
    const events = await Promise.all(
      [this.pair.a, this.pair.b].map((host) =>
        this.pair.cluster.client(host).events({ limit: 200 }),
      ),
    );
    const lost = await this.#check();
    return measuredOf({
      answers: this.#answers.slice(Math.max(0, from - 1000)),
      faultNs,
      endNs,
      faultBootMs: atUs / 1000,
      silentMs: stats.longestGapUs / 1000,
      events: events.flat(),
      lost,
      moved: (await this.pair.status(this.secondary)).state === 'PRIM',
    });
  }

  /** What one fault brought about is over when no epoch has begun for a while. */
  async #quiet(): Promise<void> {
    const hosts = [this.pair.a, this.pair.b];
    const epochs = () => Promise.all(hosts.map((host) => this.epoch(host)));
    await eventually(
      'an epoch that lasts',
      async () => {
        await this.pair.settled(awaitMs);
        const before = await epochs();
        await delay(quietMs);
        const after = await epochs();
        return new Set([...before, ...after]).size === 1 ? true : null;
      },
      awaitMs,
    );
    await this.pair.settled(awaitMs);
  }

  async #begin(isServed = true): Promise<void> {
    await this.#quiet();
    const isPrimary = (await this.pair.status(this.pair.a)).state === 'PRIM';
    [this.primary, this.secondary] = isPrimary
      ? [this.pair.a, this.pair.b]
      : [this.pair.b, this.pair.a];
    if (isServed) await this.served(this.primary);
    this.#epoch = await this.epoch();
    this.#isLate = false;
  }

  async #heal(): Promise<void> {
    // What stands still cannot end, and what is cut off cannot answer.
    await this.lab.heal();
    const works = this.#undo.toReversed();
    this.#undo = [];
    for (const work of works) await work();
  }

  /** How many records are lost: none. Rejects with all that is wrong. */
  async #check(): Promise<number> {
    const answers = [...this.#answers];
    const primary =
      (await this.pair.status(this.pair.a)).state === 'PRIM' ? this.pair.a : this.pair.b;
    const { stdout } = await this.pair.sh(primary, `cat ${dir}/set`);
    const { doubles } = await this.#sniffer.mark();
    const problems = [
      ...wrongRecords(answers, stdout.trimEnd().split('\n')),
      ...twoAnswerers(answers),
      ...(doubles > 0 ? [`${doubles} connections were answered by two servers`] : []),
    ].filter((problem) => !this.#told.has(problem));
    // Each fault answers for itself.
    for (const problem of problems) this.#told.add(problem);
    if (problems.length > 0)
      assert.fail([...problems.slice(0, mostTold), await this.#stories()].join('\n'));
    return 0;
  }

  /** Both copies are equal: at the end of all. */
  async equal(): Promise<void> {
    this.#clients?.kill('SIGKILL');
    await this.#clients?.ended;
    await this.#begin(false);
    const { differing, differences } = await this.pair.cluster.client(this.primary).verify(module);
    assert.equal(differing, 0, JSON.stringify(differences));
  }
}
