/**
 * The mirror: PostgreSQL on two servers that decide for themselves, with a witness as third; a client
 * commits without pause while the primary loses its power, comes back, and gets the service again.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { EventRecord } from '../host/face.ts';
import type { LoadGenerator } from '../lab/clients.ts';
import { LabCluster } from '../lab/cluster.ts';
import { postgresBin } from '../lab/databases.ts';
import type { Host } from '../lab/host.ts';
import type { Lab } from '../lab/lab.ts';
import { repoRoot } from '../lab/tool.ts';
import { Committer, type Database } from './client.ts';
import { conclude, mark, say, type Verdict, verdict } from './report.ts';

export const mirrorHosts = ['s1', 's2', 'w1'] as const;

const module = 'db';
const dir = '/run/db';
/** Silence of the virtual IP that the default profile aims at, and what no busy machine explains. */
const gapAimMs = 1900;
const gapLimitMs = 10_000;
/** Time that each phase is watched, and that a change may take on a busy machine. */
const watchMs = 4000;
const changeMs = 90_000;
const askEveryMs = 100;
/** Commits after a change that show that the client is served again. */
const servedRows = 20;

/** Shows it on the lab's servers; true when every promise was kept. */
export async function showMirror(lab: Lab): Promise<boolean> {
  say('');
  say('two servers that decide by a witness, each with its own disk; PostgreSQL on a mirror');
  const demo = await MirrorDemo.make(lab);
  try {
    return conclude(await demo.run());
  } finally {
    await demo.end();
  }
}

/** Command lines to try while the lab is up. */
export function mirrorLines(lab: Lab): readonly string[] {
  const { name } = lab.summary();
  return [
    `  bin/holdfast lab exec --lab ${name} s1 -- holdfast status ${module} -H '*'`,
    `  bin/holdfast lab exec --lab ${name} s1 -- holdfast events -m ${module} -H '*'`,
    `  bin/holdfast lab exec --lab ${name} s1 -- holdfast swap ${module}`,
    `  bin/holdfast lab power --lab ${name} s2`,
  ];
}

class MirrorDemo {
  readonly #lab: Lab;
  readonly #cluster: LabCluster;
  readonly #s1: Host;
  readonly #s2: Host;
  readonly #vip: string;
  readonly #watch: Watch;
  readonly #client: Committer;
  /** Asks the virtual IP all the time whether anybody answers. */
  readonly #probe: LoadGenerator;

  private constructor(
    cluster: LabCluster,
    [s1, s2]: readonly [Host, Host],
    client: Committer,
    probe: LoadGenerator,
  ) {
    this.#lab = cluster.lab;
    this.#cluster = cluster;
    this.#s1 = s1;
    this.#s2 = s2;
    this.#vip = cluster.lab.vip();
    this.#watch = new Watch(cluster, s1, s2);
    this.#client = client;
    this.#probe = probe;
  }

  /** Both servers in sync, s1 primary, the client at work. */
  static async make(lab: Lab): Promise<MirrorDemo> {
    const vip = lab.vip();
    const cluster = await LabCluster.start(lab, {}, ['s1', 's2']);
    const [s1, s2] = cluster.hosts as [Host, Host];
    await addWitness(cluster, s1);
    for (const host of cluster.hosts) await mountData(lab, host);
    await cluster.install(module, 'modules/postgresql', { VIP: vip, DIR: dir, LAN: 'net2' });
    await cluster.startModule(module);
    const startMs = performance.now();
    // Once in the life of a mirror: nobody was primary yet.
    await cluster.client(s1).prim(module, false);
    await becomes(cluster, s1, 'PRIM Ready');
    await becomes(cluster, s2, 'SECOND Ready');
    say(`PostgreSQL on ${vip}: s1 is primary, s2 follows, ${secondsSince(startMs)} after prim`);
    const database = await makeTable(s1, vip);
    const [space] = lab.clients as [Host];
    const client = new Committer(space, database);
    const probe = await lab.load({
      kind: 'icmp',
      server: vip,
      count: 1,
      intervalMs: 20,
      timeoutMs: 50,
    });
    return new MirrorDemo(cluster, [s1, s2], client, probe);
  }

  async end(): Promise<void> {
    this.#watch.stop();
    await this.#probe.stop().catch(() => undefined);
    await this.#client.stop();
  }

  async run(): Promise<readonly Verdict[]> {
    const sniffer = await this.#lab.sniff();
    await this.#phase('a client commits', () => this.#served());
    const { atUs } = await this.#probe.stats();
    const gapMs = await this.#phase('power of s1 pulled', async () => {
      await this.#s1.power();
      await this.#served();
    });
    const events = await this.#cluster.client(this.#s2).events({ module, limit: 100 });
    say(`  ${takeoverText(events, atUs / 1000)}`);
    const early = await this.#lost();
    say(`  of ${early.rows} rows acknowledged so far, s2 has all but ${early.lost}`);
    const isBack = await this.#tried('s1 returns', async () => {
      await this.#s1.boot();
      await mountData(this.#lab, this.#s1);
      await this.#cluster.startAgent(this.#s1);
      await becomes(this.#cluster, this.#s1, 'SECOND Ready');
      await becomes(this.#cluster, this.#s2, 'PRIM Ready');
    });
    const isSwapped =
      isBack &&
      (await this.#tried('swap back to s1', async () => {
        await this.#cluster.client(this.#s2).swap(module, true);
        await becomes(this.#cluster, this.#s1, 'PRIM Ready');
        await becomes(this.#cluster, this.#s2, 'SECOND Ready');
      }));
    await this.#client.stop();
    const late = await this.#lost();
    const seen = await sniffer.stop();
    return [
      gapVerdict(gapMs),
      verdict(
        `acknowledged rows of ${late.rows} that were lost (${late.open} in doubt, ${late.strange} that nobody sent)`,
        early.lost + late.lost + late.strange,
        0,
        '',
      ),
      oneVerdict(this.#watch.most),
      verdict('connections that two servers answered', seen.doubles, 0, ''),
      { isGood: isBack, text: `${mark(isBack)} s1 came back and is in sync` },
      { isGood: isSwapped, text: `${mark(isSwapped)} swap done: s1 is primary, s2 follows` },
    ];
  }

  /** Does the work, watches what follows; returns how long the virtual IP did not answer, in ms. */
  async #phase(name: string, work: () => Promise<void>): Promise<number> {
    this.#client.mark();
    await this.#probe.mark(name);
    const startMs = performance.now();
    await work();
    const took = secondsSince(startMs);
    await delay(watchMs);
    const { rows, connections, longestMs } = this.#client.waits;
    const { longestGapUs, oldestWaitUs } = await this.#probe.stats();
    const gapMs = Math.round(Math.max(longestGapUs, oldestWaitUs) / 1000);
    say(
      `${name.padEnd(20)} ${took}; ${rows} rows acknowledged, ${connections} new connections; ` +
        `the client waited ${Math.round(longestMs)} ms at most, ${this.#vip} was silent for ${gapMs} ms`,
    );
    return gapMs;
  }

  /** A phase that fails by not coming to its end. */
  async #tried(name: string, work: () => Promise<void>): Promise<boolean> {
    let isDone = false;
    await this.#phase(name, async () => {
      try {
        await work();
        await this.#served();
        isDone = true;
      } catch (error) {
        say(`${name}: ${error instanceof Error ? error.message : String(error)}`);
      }
    });
    return isDone;
  }

  /** The client's commits are acknowledged. */
  async #served(): Promise<void> {
    if (await this.#client.more(servedRows, changeMs)) return;
    throw new Error(`the client's commits were not acknowledged within ${changeMs / 1000} s`);
  }

  /** What the client was told against what it finds by the virtual IP. */
  async #lost(): Promise<Account> {
    const told = [...this.#client.acknowledged];
    const found = await this.#client.found();
    return account(told, found, this.#client.sent);
  }
}

export interface Account {
  /** Rows whose COMMIT was acknowledged, and those of them that are not there. */
  readonly rows: number;
  readonly lost: number;
  /** Rows that are there without an acknowledgement: sent, but the answer never came. */
  readonly open: number;
  /** Rows that are there and were never sent, or are there twice. */
  readonly strange: number;
}

/** What was acknowledged against what is found; numbers from 1 to `sent` were sent. */
export function account(told: readonly number[], found: readonly number[], sent: number): Account {
  const there = new Set(found);
  const acknowledged = new Set(told);
  const isSent = (row: number): boolean => Number.isInteger(row) && row >= 1 && row <= sent;
  return {
    rows: told.length,
    lost: told.filter((row) => !there.has(row)).length,
    open: found.filter((row) => isSent(row) && !acknowledged.has(row)).length,
    strange: found.filter((row) => !isSent(row)).length + found.length - there.size,
  };
}

/** The third place, by the commands of docs/operate/arbiter.md. */
async function addWitness(cluster: LabCluster, server: Host): Promise<void> {
  const witness = cluster.lab.host('w1');
  const state = '/var/lib/holdfast/witness';
  const { token } = await cluster.client(server).issueToken();
  const words = ['witness', 'join', server.address(), '--token', token, '--name', 'w1'];
  await cluster.cli(witness, [...words, '--state', state]);
  const listen = `${witness.address()}:9530`;
  await witness.spawn(
    [join(repoRoot, 'build/Release/holdfast-witness'), '--state', state, '--listen', listen],
    { stdio: 'ignore' },
  );
  const xml = await cluster.cli(server, ['cluster', 'config']);
  const line = `<arbiter type="witness" name="w1" addr="${witness.address()}"/>`;
  await cluster.client(server).applyClusterXml(xml.replace('</lans>', `</lans>\n  ${line}`));
}

/** A folder that outlives the server's power. */
async function mountData(lab: Lab, host: Host): Promise<void> {
  const disk = join(lab.dir, `data-${host.name}`);
  await host.exec(['mkdir', '-p', disk, dir]);
  await host.exec(['mount', '--bind', disk, dir]);
}

/** A user with a password, a table, and the clients' networks in pg_hba.conf. */
async function makeTable(primary: Host, vip: string): Promise<Database> {
  const database = { addr: vip, user: 'demo', password: randomBytes(12).toString('hex') };
  const hba = `${dir}/data/pg_hba.conf`;
  await primary.exec(['sh', '-c', `echo 'host demo demo 10.0.0.0/8 scram-sha-256' >>${hba}`]);
  const user = ['setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups'];
  const psql = [...user, `${postgresBin()}/psql`, '-XAtq', '-v', 'ON_ERROR_STOP=1'];
  const input = [
    `CREATE USER demo PASSWORD '${database.password}';`,
    'CREATE DATABASE demo OWNER demo;',
    '\\connect demo',
    'SET ROLE demo;',
    'CREATE TABLE t (n bigint PRIMARY KEY);',
    'RESET ROLE;',
    'SELECT pg_reload_conf();',
    // As in one that has run for a while: its making is no part of a recovery.
    'CHECKPOINT;',
  ].join('\n');
  await primary.exec([...psql, '-h', '/run/postgresql', 'postgres'], { input });
  return database;
}

/** Waits until the module is so on a host, as "PRIM Ready"; throws with what the host says last. */
async function becomes(cluster: LabCluster, host: Host, wanted: string): Promise<void> {
  const end = performance.now() + changeMs;
  for (;;) {
    const found = await cluster
      .client(host)
      .module(module)
      .catch(() => null);
    const shown = found === null ? 'no answer' : `${found.state} ${found.readiness}`;
    if (shown === wanted) return;
    if (performance.now() > end) {
      throw new Error(
        `${module} on ${host.name} is ${shown}, not ${wanted}: ${found?.why.join('; ')}`,
      );
    }
    await delay(askEveryMs);
  }
}

/** Asks both servers all the time who is primary. */
class Watch {
  /** Most that were primary at the same time. */
  most = 0;
  #isStopped = false;

  constructor(cluster: LabCluster, s1: Host, s2: Host) {
    const isPrimary = async (host: Host): Promise<boolean> => {
      if (!host.isOn) return false;
      const found = await cluster
        .client(host)
        .module(module)
        .catch(() => null);
      return found?.pair?.role === 'primary';
    };
    const look = async (): Promise<void> => {
      while (!this.#isStopped) {
        const before = await isPrimary(s1);
        const other = await isPrimary(s2);
        // At once only where the first one still is: between two questions they may have changed.
        const both = before && other && (await isPrimary(s1));
        this.most = Math.max(this.most, both ? 2 : before || other ? 1 : 0);
        await delay(askEveryMs);
      }
    };
    void look();
  }

  stop(): void {
    this.#isStopped = true;
  }
}

/** The steps of a takeover in the journal of the server that took over, in ms after `fromMs` (CLOCK_BOOTTIME). */
export function takeoverText(events: readonly EventRecord[], fromMs: number): string {
  const after = (phase: string): string => {
    const step = events.find(({ bootMs, data }) => bootMs >= fromMs && data['to'] === phase);
    return step === undefined ? 'never' : `${Math.round(step.bootMs - fromMs)} ms`;
  };
  return (
    `after the pull: s2 primary by the witness's word ${after('secondStopping')}, s1's lease surely over ` +
    `${after('primStarting')}, PostgreSQL recovered and open to clients ${after('prim')}`
  );
}

/** 0 were a watch that saw nothing. */
function oneVerdict(most: number): Verdict {
  return { isGood: most === 1, text: `${mark(most === 1)} primaries at once: ${most}` };
}

/** Only what is far beyond the promise is a failure: the machine that shows it may be busy. */
export function gapVerdict(gapMs: number): Verdict {
  const isGood = gapMs <= gapLimitMs;
  const isMet = gapMs < gapAimMs;
  return {
    isGood,
    text:
      `${isMet ? 'ok  ' : isGood ? 'late' : 'FAIL'} virtual IP answered by s2, after s1 lost its power: ${gapMs} ms ` +
      `(aim of the default profile: ${gapAimMs} ms, ${isMet ? 'met' : 'missed'})`,
  };
}

function secondsSince(startMs: number): string {
  return `${((performance.now() - startMs) / 1000).toFixed(1)} s`;
}
