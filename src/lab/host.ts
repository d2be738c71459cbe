import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { HoldfastError } from '../errors.ts';
import { holderOf } from './build.ts';
import type { Lab } from './lab.ts';
import { address, deviceName, type Family, macAddress } from './plan.ts';
import type { EndState } from './state.ts';
import {
  collect,
  type Output,
  type ProcessId,
  pidOf,
  processId,
  repoRoot,
  type SpawnOptions,
  signal,
  spawnIn,
} from './tool.ts';

export interface ExecOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** False: a code other than 0 is returned, not thrown. */
  readonly check?: boolean;
}

/** A process that runs on a host. */
export interface HostProcess {
  readonly id: ProcessId;
  /** The pid as the outside sees it. */
  readonly pid: number;
  /** Stands for the process: its streams, its exit. */
  readonly child: ChildProcess;
  /** Resolves with the exit code, 128 + signal where one ended it. */
  readonly ended: Promise<number>;
  /** Signals the process itself; false when it is gone. */
  kill(name: NodeJS.Signals): boolean;
}

export interface AgentOptions {
  /** What to run; the built holdfastd with the built agent where absent. */
  readonly argv?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly waitMs?: number;
}

const execMs = 30_000;
const agentWaitMs = 60_000;

/** One server, or one namespace of clients. */
export class Host {
  readonly lab: Lab;
  readonly name: string;

  constructor(lab: Lab, name: string) {
    this.lab = lab;
    this.name = name;
  }

  get state(): EndState {
    return this.lab.endState(this.name);
  }

  /** Its holder, pid 1 of the host; throws HF-LAB-008 when the power is off. */
  get process(): ProcessId {
    return holderOf(this.state);
  }

  get isOn(): boolean {
    return this.state.process !== null;
  }

  address(lan = 0, family: Family = 4): string {
    return address(this.state, lan, family);
  }

  mac(lan = 0): string {
    return macAddress(this.state, lan);
  }

  device(lan = 0): string {
    return deviceName(lan);
  }

  /** Runs a command to its end. Throws HF-LAB-010 when it fails, unless check is false. */
  async exec(argv: readonly string[], options: ExecOptions = {}): Promise<Output> {
    const { child } = spawnIn(this.process, argv, options);
    const output = await collect(child, options.input ?? null, options.timeoutMs ?? execMs);
    if (output.code !== 0 && options.check !== false) {
      throw new HoldfastError('HF-LAB-010', {
        command: argv.join(' '),
        host: this.name,
        code: output.code,
        output: (output.stderr || output.stdout).trim().slice(-2000),
      });
    }
    return output;
  }

  /** Starts a command; resolves once it runs. It ends with this process, unless detached. */
  async spawn(argv: readonly string[], options: SpawnOptions = {}): Promise<HostProcess> {
    const { child, pid } = spawnIn(this.process, argv, options);
    const ended = once(child, 'close').then(([code]) => (code as number | null) ?? 137);
    // The pid of a command that ended at once is not in /proc any more, but is still its name.
    const number = await pid;
    const id = processId(number) ?? `${number}:0`;
    return { id, pid: number, child, ended, kill: (name) => signal(id, name) };
  }

  /** A path of this host as seen from outside, through its own mounts. */
  path(inside: string): string {
    return join(`/proc/${pidOf(this.process)}/root`, inside);
  }

  writeFile(path: string, content: string | Uint8Array, mode = 0o644): void {
    mkdirSync(dirname(this.path(path)), { recursive: true });
    writeFileSync(this.path(path), content, { mode });
    // The mode above holds for a new file only, and less the umask.
    chmodSync(this.path(path), mode);
  }

  readFile(path: string): string {
    return readFileSync(this.path(path), 'utf8');
  }

  exists(path: string): boolean {
    return existsSync(this.path(path));
  }

  /** All processes of this host but its pid 1, with their command lines. */
  processes(): readonly { readonly id: ProcessId; readonly command: string }[] {
    const own = pidOf(this.process);
    const space = readlinkSync(`/proc/${own}/ns/pid`);
    return readdirSync('/proc').flatMap((entry) => {
      const pid = Number(entry);
      if (!Number.isInteger(pid) || pid === own) return [];
      try {
        if (readlinkSync(`/proc/${pid}/ns/pid`) !== space) return [];
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        const id = processId(pid);
        return id === null ? [] : [{ id, command: words.join(' ').trim() }];
      } catch {
        return []; // It ended while we looked.
      }
    });
  }

  /** Signals the processes whose command line matches; returns how many there were. */
  kill(match: RegExp, name: NodeJS.Signals = 'SIGKILL'): number {
    return this.processes().filter(({ id, command }) => match.test(command) && signal(id, name))
      .length;
  }

  /** Where the output of this host's agent goes. */
  get agentLog(): string {
    return join(this.lab.dir, `${this.name}.agent.log`);
  }

  /** The agent's socket, reachable from outside the host. */
  get agentSocket(): string {
    return this.path('/run/holdfast/agent.sock');
  }

  /** Starts holdfastd with the agent and waits until its socket takes a connection. */
  async startAgent(options: AgentOptions = {}): Promise<HostProcess> {
    const argv = options.argv ?? [
      join(repoRoot, 'build/Release/holdfastd'),
      '--',
      process.execPath,
      join(repoRoot, 'dist/src/agent.js'),
    ];
    const waitMs = options.waitMs ?? agentWaitMs;
    const agent = await this.spawn(argv, {
      out: this.agentLog,
      stdio: 'ignore',
      detach: this.lab.persist,
      ...(options.env === undefined ? {} : { env: options.env }),
    });
    if (!this.lab.persist) agent.child.unref();
    const end = performance.now() + waitMs;
    const failed = (reason: string) =>
      new HoldfastError('HF-LAB-007', { host: this.name, waitMs, reason, log: this.agentLog });
    while (!(await accepts(this.agentSocket))) {
      if (processId(agent.pid) !== agent.id) throw failed('holdfastd ended');
      if (performance.now() > end) throw failed('its socket does not answer');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return agent;
  }

  power(): Promise<void> {
    return this.lab.power(this.name);
  }

  boot(): Promise<void> {
    return this.lab.boot(this.name);
  }
}

/** Does a unix socket take a connection? */
function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
  });
}
