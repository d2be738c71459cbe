/**
 * One long run of a mirror that decides: clients write behind its virtual IP (pair-workloads.ts), and a nemesis
 * picks by a seed what happens to the servers, their processes, their networks and the witness. Each
 * server comes back to its role within a time limit; what was acknowledged is there, once, at each read; two
 * servers never answered at the same time (set-check.ts, append-check.ts).
 *
 * Not done: jumps of the wall clock, since hosts of a lab share it; and a power cut loses no
 * page of the disk, since all hosts run on one kernel (the engine's own nemesis does that).
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, lstatSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Host } from '../../src/lab/host.ts';
import { builtFile } from '../../src/native/load.ts';
import { replicaProgram } from '../../src/native/replica.ts';
import { randomOf } from '../replica/prefix.ts';
import { module, Pair } from './pair-support.ts';
import type { Workload } from './pair-workloads.ts';
import { twoAnswerers } from './set-check.ts';
import { eventually } from './support.ts';

/** A bug that the run must find. */
export interface Planted {
  /** A guard of core/mirror-rules.ts that the agents go without. */
  readonly rule?: string;
  /** What holdfast-replica-faulty does wrong. */
  readonly engine?: string;
  /** Where it does harm: what is done to whom (s1 is the primary), and how long before the next. */
  readonly plan: readonly (readonly [fault: string, host: 's1' | 's2', ms: number])[];
}

export interface PairNemesisOptions {
  readonly workload: Workload;
  /** As many, or until the time is up. */
  readonly steps: number;
  readonly forMs?: number;
  readonly planted?: Planted;
  readonly say?: (text: string) => void;
}

export interface PairNemesisResult {
  readonly seed: number;
  readonly steps: readonly string[];
  readonly answers: number;
  readonly problems: readonly string[];
}

type Undo = () => Promise<void>;
type Random = (limit: number) => number;

interface Fault {
  readonly name: string;
  /** Can meet a server that is switched off. */
  readonly network?: true;
  /** Leaves a server without its agent. */
  readonly downs?: true;
  /** Does it; what undoes it. */
  readonly begin: (host: Host, other: Host) => Promise<Undo>;
}

interface Open {
  readonly key: string;
  readonly host: Host;
  /** No agent runs on it until that is undone. */
  readonly isDown: boolean;
  readonly undo: Undo;
}

const heldMs = [100, 400, 1200, 2500, 5000] as const;
const settledMs = 90_000;
const mostTold = 20;
const agent = /^\S*node \S*agent\.js/;
const holdfastd = /^\S*holdfastd /;
const engine = /holdfast-replica/;
const nothing: Undo = () => Promise.resolve();

class PairNemesis {
  readonly steps: string[] = [];
  readonly #pair: Pair;
  readonly #workload: Workload;
  readonly #random: Random;
  readonly #say: (text: string) => void;
  /** What is not undone yet, and to which server it was done. */
  #open: Open[] = [];

  constructor(pair: Pair, random: Random, options: PairNemesisOptions) {
    this.#pair = pair;
    this.#workload = options.workload;
    this.#random = random;
    this.#say = options.say ?? (() => undefined);
  }

  #pick<T>(of: readonly T[]): T {
    const chosen = of[this.#random(of.length)];
    if (chosen === undefined) throw new Error('nothing to pick from');
    return chosen;
  }

  #note(text: string): void {
    const line = `${Math.round(performance.now())} ${text}`;
    this.steps.push(line);
    this.#say(line);
  }

  async clients(): Promise<void> {
    await this.#workload.begin(this.#pair);
    await this.#served();
  }

  /** A write more is acknowledged. */
  async #served(): Promise<void> {
    const before = this.#workload.acknowledged;
    const look = async (): Promise<true | null> =>
      this.#workload.acknowledged > before ? true : null;
    await eventually('a write to be acknowledged', look, settledMs);
  }

  /** A fault of the lab: healed with all of them. */
  async #healing(ids: Promise<readonly number[]>): Promise<Undo> {
    await ids;
    return () => Promise.resolve();
  }

  async #pause(host: Host, match: RegExp): Promise<Undo> {
    const found = host.processes().filter(({ command }) => match.test(command));
    return this.#healing(
      this.#pair.lab.pause(
        host.name,
        found.map(({ id }) => id),
      ),
    );
  }

  #kill(host: Host, match: RegExp): Promise<Undo> {
    host.kill(match);
    return Promise.resolve(nothing);
  }

  async #power(host: Host): Promise<Undo> {
    await host.power();
    return () => this.#pair.boot(host);
  }

  /** As a service manager does it: what is killed is started again once all of it has ended. */
  async #killDaemon(host: Host): Promise<Undo> {
    host.kill(holdfastd);
    return async () => {
      await eventually('the agent of a killed holdfastd to end', async () =>
        host.processes().some(({ command }) => agent.test(command)) ? null : true,
      );
      await this.#pair.cluster.startAgent(host);
    };
  }

  async #killWitness(): Promise<Undo> {
    this.#pair.stopWitness();
    return () => this.#pair.startWitness();
  }

  async #pauseWitness(): Promise<Undo> {
    this.#pair.pauseWitness('SIGSTOP');
    return async () => this.#pair.pauseWitness('SIGCONT');
  }

  /** Refused, or without an answer when the time is up: both are as good. */
  async #order(work: Promise<unknown>): Promise<Undo> {
    await Promise.race([work.catch(() => undefined), delay(5000)]);
    return nothing;
  }

  /** One that still stops refuses to start, and is told again. */
  async #stopped(host: Host): Promise<Undo> {
    const client = this.#pair.cluster.client(host);
    await this.#order(client.command(module, 'stop'));
    const start = async (): Promise<true | null> => {
      const taken = client.command(module, 'start').then(
        () => true as const,
        () => null,
      );
      return Promise.race([taken, delay(5000, true as const)]);
    };
    return async () => {
      await eventually(`${host.name} to take a start`, start, settledMs);
    };
  }

  #faults(): readonly Fault[] {
    const { lab, cluster } = this.#pair;
    const cut = (ids: Promise<readonly number[]>): Promise<Undo> => this.#healing(ids);
    const way = (): 'to' | 'from' => this.#pick(['to', 'from']);
    return [
      {
        name: 'cut',
        network: true,
        begin: (host, other) => cut(lab.cut(host.name, other.name, way())),
      },
      {
        name: 'cut from witness',
        network: true,
        begin: (host) => cut(lab.cut(host.name, 'wit', way())),
      },
      { name: 'isolated', network: true, begin: (host) => cut(lab.cutAll(host.name, way())) },
      {
        name: 'loss',
        network: true,
        begin: (host) => cut(lab.loss(host.name, 5 + this.#random(60))),
      },
      {
        name: 'delay',
        network: true,
        begin: (host) => cut(lab.delay(host.name, 1 + this.#random(300))),
      },
      { name: 'unplug', network: true, begin: (host) => cut(lab.unplug(host.name)) },
      { name: 'pause agent', begin: (host) => this.#pause(host, agent) },
      { name: 'pause holdfastd', begin: (host) => this.#pause(host, holdfastd) },
      { name: 'pause engine', begin: (host) => this.#pause(host, engine) },
      { name: 'pause application', begin: (host) => this.#pause(host, this.#workload.application) },
      { name: 'pause all', begin: (host) => cut(lab.pause(host.name)) },
      { name: 'kill agent', begin: (host) => this.#kill(host, agent) },
      { name: 'kill holdfastd', downs: true, begin: (host) => this.#killDaemon(host) },
      { name: 'kill engine', begin: (host) => this.#kill(host, engine) },
      { name: 'kill worker', begin: (host) => this.#kill(host, /holdfast-replica --worker/) },
      { name: 'kill application', begin: (host) => this.#kill(host, this.#workload.application) },
      { name: 'power', downs: true, begin: (host) => this.#power(host) },
      { name: 'power', downs: true, begin: (host) => this.#power(host) },
      { name: 'witness killed', begin: () => this.#killWitness() },
      { name: 'witness paused', begin: () => this.#pauseWitness() },
      {
        name: 'swap',
        begin: (host) => this.#order(cluster.client(host).swap(module, true)),
      },
      { name: 'stop', begin: (host) => this.#stopped(host) },
    ];
  }

  /** Something happens to a server. */
  async #any(): Promise<void> {
    const { a, b } = this.#pair;
    const host = this.#random(2) === 0 ? a : b;
    await this.#begin(this.#pick(this.#faults()), host);
  }

  /** Nothing twice, and nothing to the processes of one that has no power. */
  async #begin(fault: Fault, host: Host): Promise<void> {
    const other = host.name === this.#pair.a.name ? this.#pair.b : this.#pair.a;
    const isWitness = fault.name.startsWith('witness');
    const key = isWitness ? 'witness' : `${fault.name} of ${host.name}`;
    if (this.#open.some((one) => one.key === key)) return;
    const isDown = this.#open.some((one) => one.host.name === host.name && one.isDown);
    if (isDown && !isWitness && fault.network !== true) return;
    this.#note(key === 'witness' ? fault.name : key);
    const undo = await fault.begin(host, other);
    const downs = fault.downs === true;
    if (undo !== nothing) this.#open.push({ key, undo, host, isDown: downs });
  }

  async planned(plan: Planted['plan']): Promise<void> {
    for (const [name, host, ms] of plan) {
      const fault = this.#faults().find((one) => one.name === name);
      if (fault === undefined) throw new Error(`no such fault: ${name}`);
      await this.#begin(fault, this.#pair.lab.host(host));
      await delay(ms);
    }
  }

  async heal(): Promise<void> {
    if (this.#open.length > 0) this.#note(`undone: ${this.#open.map(({ key }) => key).join(', ')}`);
    // Before anything is started again: what is paused cannot end.
    await this.#pair.lab.heal();
    // One without an agent takes no order.
    const inTurn = this.#open.toSorted((a, b) => Number(b.isDown) - Number(a.isDown));
    for (const { undo } of inTurn) await undo();
    this.#open = [];
  }

  /** One is primary, the other follows, a client is answered. */
  async settled(): Promise<void> {
    const beganMs = performance.now();
    await this.#pair.settled(settledMs);
    await this.#served();
    const lost = await this.wrong();
    if (lost.length > 0) throw new Error(lost.join('\n'));
    this.#note(`settled in ${Math.round(performance.now() - beganMs)} ms`);
  }

  async step(): Promise<void> {
    await delay(this.#random(800));
    const count = 1 + this.#random(3);
    for (let i = 0; i < count; i++) {
      await this.#any();
      await delay(this.#random(600));
    }
    await delay(this.#pick(heldMs));
    await this.heal();
    if (this.#random(3) > 0) await this.settled();
  }

  /** What is wrong with the data as the primary has them now. */
  async wrong(): Promise<readonly string[]> {
    return (await this.#workload.wrong(await this.#primary())).slice(0, mostTold);
  }

  async #primary(): Promise<Host> {
    const { a, b } = this.#pair;
    return (await this.#pair.status(a)).state === 'PRIM' ? a : b;
  }

  /** All that clients know against the data as each server has them. */
  async check(): Promise<readonly string[]> {
    const { lab, a, b, cluster } = this.#pair;
    const workload = this.#workload;
    await cluster.client(await this.#primary()).swap(module, true);
    await this.settled();
    await workload.end();
    const problems = [...(await this.wrong())];
    // What the application writes when it ends is on both too, where nobody takes over.
    const primary = await this.#primary();
    const secondary = primary === a ? b : a;
    await cluster.client(secondary).failover(module, false);
    for (const host of [primary, secondary]) await cluster.client(host).command(module, 'stop');
    problems.push(...(await workload.wrongAtRest(a)).slice(0, mostTold));
    problems.push(...workload.wrongEver().slice(0, mostTold), ...twoAnswerers(workload.answers));
    return [...problems, ...unlike(join(lab.dir, 'data-s1'), join(lab.dir, 'data-s2'))];
  }
}

/** What differs between the two copies, where nothing runs any more. */
function unlike(one: string, two: string): readonly string[] {
  const argv = ['-rq', '--no-dereference', '--exclude=.holdfast*', one, two];
  const { status, stdout, stderr } = spawnSync('diff', argv, { encoding: 'utf8' });
  if (status === 0) return [];
  return ['the two copies differ', ...`${stdout}${stderr}`.trim().split('\n').slice(0, mostTold)];
}

/** One run. Rejects only when something other than what is tested goes wrong. */
export async function pairNemesisRun(
  seed: number,
  options: PairNemesisOptions,
): Promise<PairNemesisResult> {
  const { planted, workload, forMs = Infinity } = options;
  const pair = await Pair.up({
    ...workload.mirror,
    // Faults in a row are what this is about.
    edit: (xml, lab) =>
      (workload.mirror.edit?.(xml, lab) ?? xml).replace('loop_interval="24h"', 'loop_interval="0"'),
    ...(planted === undefined ? {} : { agent: { env: plantedEnv(planted) } }),
  });
  const nemesis = new PairNemesis(pair, randomOf(seed), options);
  const problems: string[] = [];
  try {
    if (planted?.engine !== undefined) await faultyEngine(pair.a);
    await pair.ready();
    const sniffer = await pair.lab.sniff();
    await nemesis.clients();
    await nemesis.planned(planted?.plan ?? []);
    const untilMs = performance.now() + forMs;
    for (let i = 0; i < options.steps && performance.now() < untilMs; i++) await nemesis.step();
    const seen = twoAnswerers(workload.answers);
    if (seen.length > 0) throw new Error('two primaries');
    await nemesis.heal();
    await nemesis.settled();
    problems.push(...(await nemesis.check()));
    const { doubles } = await sniffer.stop();
    if (doubles > 0) problems.push(`${doubles} connections were answered by two servers`);
  } catch (error) {
    problems.push(...twoAnswerers(workload.answers), String(error));
  }
  if (problems.length > 0 && planted === undefined)
    problems.push(`kept in ${await keep(pair, workload, seed, [...nemesis.steps, ...problems])}`);
  await pair.down();
  return { seed, steps: nemesis.steps, answers: workload.answers.length, problems };
}

function plantedEnv({ rule, engine }: Planted): Readonly<Record<string, string>> {
  const program = join(import.meta.dirname, 'set-planted.js');
  return {
    ...(rule === undefined ? {} : { NODE_OPTIONS: `--import=${program}`, HOLDFAST_PLANTED: rule }),
    ...(engine === undefined ? {} : { HOLDFAST_FAULTS: engine }),
  };
}

/** Until it loses its power, a server's engine is the one that has bugs planted in it. */
async function faultyEngine(host: Host): Promise<void> {
  await host.exec(['mount', '--bind', builtFile('holdfast-replica-faulty'), replicaProgram]);
}

/** Copies what a run leaves to a place where it stays. */
async function keep(
  pair: Pair,
  workload: Workload,
  seed: number,
  lines: readonly string[],
): Promise<string> {
  const folder = `/tmp/holdfast-pair-nemesis-${seed}`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'steps'), `${lines.join('\n')}\n`);
  writeFileSync(join(folder, 'said'), `${workload.said.join('\n')}\n`);
  // Their sockets are no files.
  const filter = (path: string): boolean => !lstatSync(path).isSocket();
  const copy = { recursive: true, filter };
  for (const host of [pair.a, pair.b]) {
    const story = await pair.story(host, 1000).catch(String);
    writeFileSync(join(folder, `${host.name}.events`), `${story}\n`);
    cpSync(join(pair.lab.dir, 'disks', host.name), join(folder, `${host.name}.disk`), copy);
    cpSync(join(pair.lab.dir, `data-${host.name}`), join(folder, `${host.name}.data`), copy);
    copyFileSync(host.agentLog, join(folder, `${host.name}.agent.log`));
  }
  return folder;
}
