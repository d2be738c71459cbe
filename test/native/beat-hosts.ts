/** Two hosts with two networks between them, each with a real holdfastd and the smallest agent. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { builtFile } from '../../src/native/load.ts';
import type { AgentCommand, AgentConfig, AgentModule } from './beat-agent.ts';

/** A line of the agent, or of holdfastd's log (which has `msg`). */
export type Line = Readonly<Record<string, unknown>>;
type Match = Line | ((line: Line) => boolean);

const agentScript = fileURLToPath(new URL('./beat-agent.js', import.meta.url));
export const key = '5a'.repeat(32);
export const timing = { heartbeatMs: 50, suspectMs: 200, leaseMs: 150, agentDeadlineMs: 1000 };

/** Addresses by network, then by host: the first network speaks IPv4, the second IPv6. */
export const addresses = [
  ['10.99.0.1', '10.99.0.2'],
  ['fd99::1', 'fd99::2'],
] as const;
export const port = 4800;

export function ip(...args: readonly string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });
}

export interface Network {
  readonly names: readonly [string, string];
  /** Name of a host's device on a network. */
  device(host: number, lan: number): string;
  close(): void;
}

/** Two namespaces with two veth pairs between them; `tag` keeps several of them apart. */
export function makeNetwork(tag: string): Network {
  const names = [`hfb${tag}0`, `hfb${tag}1`] as const;
  const device = (host: number, lan: number): string => `b${tag}${host}${lan}`;
  for (const name of names) {
    ip('netns', 'add', name);
    ip('-n', name, 'link', 'set', 'lo', 'up');
  }
  for (const lan of [0, 1]) {
    const [a, b] = [device(0, lan), device(1, lan)];
    ip('link', 'add', a, 'netns', names[0], 'type', 'veth', 'peer', 'name', b, 'netns', names[1]);
    for (const host of [0, 1] as const) {
      ip('-n', names[host], 'link', 'set', device(host, lan), 'up');
      addAddress(names[host], device(host, lan), lan, host);
    }
  }
  return {
    names,
    device,
    close: () => names.forEach((name) => ip('netns', 'del', name)),
  };
}

export function addAddress(ns: string, device: string, lan: number, host: number): void {
  const addr = addresses[lan]?.[host] ?? '';
  if (lan === 0) ip('-n', ns, 'addr', 'add', `${addr}/24`, 'dev', device);
  else ip('-n', ns, 'addr', 'add', `${addr}/64`, 'dev', device, 'nodad');
}

export function configOf(me: number, change: Partial<AgentConfig> = {}): AgentConfig {
  const other = 1 - me;
  return {
    clusterId: '00000000000000aa',
    me,
    key,
    ...timing,
    leaseMap: null,
    lans: addresses.map((pair, lan) => ({
      name: `lan${lan}`,
      local: pair[me] ?? '',
      port,
      peers: [{ node: other, addr: pair[other] ?? '' }],
    })),
    ...change,
  };
}

/** One running holdfastd. Lines are looked through in order: what `next` passed is gone. */
export class Host {
  readonly #child: ChildProcess;
  readonly lines: Line[] = [];
  #at = 0;
  #wake: (() => void) | null = null;
  readonly exited: Promise<number | null>;

  constructor(ns: string, config: AgentConfig, command: readonly string[] = [agentScript]) {
    const holdfastd = builtFile('holdfastd');
    const args = [`--net=/run/netns/${ns}`, holdfastd, '--', process.execPath, ...command];
    this.#child = spawn('nsenter', args, {
      env: { ...process.env, BEAT_CONFIG: JSON.stringify(config) },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.exited = once(this.#child, 'exit').then(([code]) => code as number | null);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on('line', (line) => this.#take(line));
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  #take(line: string): void {
    if (!line.startsWith('{')) process.stderr.write(`${line}\n`);
    else this.lines.push(JSON.parse(line) as Line);
    this.#wake?.();
  }

  send(command: AgentCommand): void {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  /** The next line that matches (all named fields equal, or the function says so). */
  async next(match: Match): Promise<Line> {
    const fits = (line: Line): boolean =>
      typeof match === 'function'
        ? match(line)
        : Object.entries(match).every(([name, value]) => line[name] === value);
    for (;;) {
      while (this.#at < this.lines.length) {
        const line = this.lines[this.#at++];
        if (line !== undefined && fits(line)) return line;
      }
      // oxlint-disable-next-line no-await-in-loop
      await new Promise<void>((done) => {
        this.#wake = done;
      });
    }
  }

  async stats(): Promise<Readonly<Record<string, number>> & { readonly peers: readonly Line[] }> {
    this.send({ op: 'stats' });
    const line = await this.next({ kind: 'stats' });
    return line['stats'] as Awaited<ReturnType<Host['stats']>>;
  }

  announce(change: Partial<AgentModule> = {}): void {
    const module: AgentModule = {
      key: 7,
      flags: 1,
      viewEpoch: 1,
      viewMembers: '3',
      leaseSlots: [],
      lease: { rule: 'view' },
      ...change,
    };
    this.send({ op: 'announce', modules: [module] });
  }

  signal(signal: NodeJS.Signals): void {
    const { exitCode, signalCode } = this.#child;
    if (exitCode === null && signalCode === null) process.kill(this.pid, signal);
  }

  async stop(): Promise<number | null> {
    this.signal('SIGCONT');
    this.signal('SIGTERM');
    return this.exited;
  }
}
