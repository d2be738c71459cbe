import { join } from 'node:path';
import { HoldfastError } from '../errors.ts';
import { buildSwitch, plug, startHolder } from './build.ts';
import { type LoadOptions, LoadGenerator, Sniffer } from './clients.ts';
import { applyRules, type Direction, type Fault, type FaultKind } from './faults.ts';
import { Host } from './host.ts';
import { deviceName, type Family, lansOf, portName, vipAddress } from './plan.ts';
import { checkPercent, defaultName, type LabOptions, newState } from './options.ts';
import { applyRelay } from './relay.ts';
import {
  allStates,
  ensureLabsFolder,
  type EndState,
  isUp,
  type LabState,
  loadState,
  removeAtExit,
  removeLab,
  saveState,
  sweep,
} from './state.ts';
import { inNet, isAlive, type ProcessId, runTool, signal, until } from './tool.ts';

export { defaultName, type LabOptions } from './options.ts';

/** A lab that is up, as `list` shows it. */
export interface LabSummary {
  readonly name: string;
  readonly id: string;
  readonly dir: string;
  readonly lans: number;
  readonly hosts: readonly { readonly name: string; readonly on: boolean }[];
  readonly clients: readonly string[];
  readonly faults: readonly Fault[];
}

/** A whole cluster on one machine: hosts as namespaces on one or two switches, and faults. */
export class Lab {
  private state: LabState;
  /** Changes go one after the other: each reads, changes and writes the state. */
  private queue: Promise<unknown> = Promise.resolve();

  private constructor(state: LabState) {
    this.state = state;
  }

  /** Builds a lab; all or nothing. Also removes what labs of dead owners left behind. */
  static async up(options: LabOptions = {}): Promise<Lab> {
    if (process.getuid?.() !== 0) throw new HoldfastError('HF-LAB-002');
    ensureLabsFolder();
    await sweep();
    const state = newState(options);
    if (allStates().some((other) => other.name === state.name)) {
      throw new HoldfastError('HF-LAB-003', { name: state.name });
    }
    saveState(state);
    const lab = new Lab(state);
    try {
      await lab.build();
    } catch (error) {
      await removeLab(lab.state);
      throw error;
    }
    if (!state.persist) removeAtExit(state.dir);
    return lab;
  }

  /** A lab that is up already, perhaps by another process; without a name the only one, or `lab`. */
  static open(name?: string): Lab {
    const up = allStates().filter(isUp);
    const wanted = name ?? (up.length === 1 ? up[0]?.name : defaultName);
    const found = up.find((state) => state.name === wanted);
    if (found !== undefined) return new Lab(found);
    if (name !== undefined || up.length === 0) {
      throw new HoldfastError('HF-LAB-004', { name: wanted ?? defaultName });
    }
    throw new HoldfastError('HF-LAB-011', { names: up.map((state) => state.name).join(', ') });
  }

  static list(): readonly LabSummary[] {
    return allStates()
      .filter(isUp)
      .map((state) => new Lab(state).summary());
  }

  static sweep = sweep;

  private async build(): Promise<void> {
    const { state } = this;
    const label = `hf${state.id}`;
    const [switchProcess, ...processes] = await Promise.all([
      startHolder(`${label}-switch`, '', state.persist),
      ...state.ends.map((end) => startHolder(end.name, this.disk(end), state.persist)),
    ]);
    state.switchProcess = switchProcess;
    state.ends.forEach((end, i) => {
      end.process = processes[i] ?? null;
    });
    saveState(state);
    await buildSwitch(state, switchProcess);
    await plug(state, state.ends);
  }

  /** Folder that is a host's disk: it survives a power cut. Clients have none. */
  private disk(end: EndState): string {
    return end.kind === 'host' ? join(this.dir, 'disks', end.name) : '';
  }

  get name(): string {
    return this.state.name;
  }

  get dir(): string {
    return this.state.dir;
  }

  get persist(): boolean {
    return this.state.persist;
  }

  get hosts(): readonly Host[] {
    return this.namesOf('host').map((name) => new Host(this, name));
  }

  get clients(): readonly Host[] {
    return this.namesOf('clients').map((name) => new Host(this, name));
  }

  private namesOf(kind: EndState['kind']): readonly string[] {
    return this.state.ends.filter((end) => end.kind === kind).map((end) => end.name);
  }

  /** A server or a client namespace by name. */
  host(name: string): Host {
    return new Host(this, this.endState(name).name);
  }

  endState(name: string): EndState {
    const end = this.state.ends.find((candidate) => candidate.name === name);
    if (end !== undefined) return end;
    const names = this.state.ends.map((other) => other.name).join(', ');
    throw new HoldfastError('HF-LAB-005', { lab: this.name, kind: 'host', name, names });
  }

  /** Runs a command in the switch's network namespace (its ports: h1l0 is host 1 on network 0); its output. */
  switchExec(argv: readonly string[]): Promise<string> {
    const { switchProcess } = this.state;
    if (switchProcess === null) throw new HoldfastError('HF-LAB-004', { name: this.name });
    return inNet(argv.join(' '), switchProcess, argv);
  }

  /** A virtual IP that nobody else uses, n from 1 to 250. */
  vip(n = 1, family: Family = 4): string {
    return vipAddress(n, family);
  }

  get vipPrefix(): { readonly 4: number; readonly 6: number } {
    return { 4: 16, 6: 64 };
  }

  summary(): LabSummary {
    const { name, id, dir, lans, ends, faults } = this.state;
    const hosts = ends
      .filter((end) => end.kind === 'host')
      .map((end) => ({ name: end.name, on: end.process !== null && isAlive(end.process) }));
    return { name, id, dir, lans, hosts, clients: this.namesOf('clients'), faults };
  }

  /** Ends the lab and everything in it. */
  async down(): Promise<void> {
    await this.change(() => removeLab(this.state), false);
  }

  /** Runs a change alone, on the newest state (another process may have changed it), and saves it. */
  private change<T>(work: () => Promise<T> | T, save = true): Promise<T> {
    const run = this.queue.then(async () => {
      this.state = loadState(this.state.dir) ?? this.state;
      if (!save) return work();
      if (!isUp(this.state)) throw new HoldfastError('HF-LAB-004', { name: this.name });
      try {
        return await work();
      } finally {
        saveState(this.state);
      }
    });
    this.queue = run.catch(() => undefined);
    return run;
  }

  /** Pulls the power: the host's cables go dead and all its processes end at the same time. */
  power(name: string): Promise<void> {
    return this.change(async () => {
      const end = this.endState(name);
      const { process: holder } = end;
      const { switchProcess } = this.state;
      if (holder === null || switchProcess === null) return;
      const ports = lansOf(end, this.state.lans).map((lan) => portName(end, lan));
      await runTool('power', ['power', switchProcess, holder, ...ports]);
      await until(() => !isAlive(holder), 10_000);
      end.process = null;
      this.state.faults = this.state.faults.filter(
        (fault) => !((fault.kind === 'pause' || fault.kind === 'slow') && fault.host === name),
      );
      await this.applyRelays(end);
    });
  }

  /** Switches a host on again, with the disk that it had. */
  boot(name: string): Promise<void> {
    return this.change(async () => {
      const end = this.endState(name);
      if (end.process !== null && isAlive(end.process)) return;
      end.process = await startHolder(end.name, this.disk(end), this.state.persist);
      await plug(this.state, [end]);
      await this.applyRelays(end);
      await applyRules(this.state);
    });
  }

  private async applyRelays(end: EndState): Promise<void> {
    for (const lan of lansOf(end, this.state.lans)) await applyRelay(this.state, end, lan);
  }

  get faults(): readonly Fault[] {
    return this.state.faults;
  }

  private nextId(): number {
    return this.state.faults.reduce((top, fault) => Math.max(top, fault.id), 0) + 1;
  }

  private lansFor(name: string, lan: number | undefined): readonly number[] {
    const all = lansOf(this.endState(name), this.state.lans);
    if (lan === undefined) return all;
    if (!all.includes(lan)) {
      throw new HoldfastError('HF-LAB-009', { reason: `${name} is not on network ${lan}` });
    }
    return [lan];
  }

  /** Adds faults and puts them in force; returns their ids. */
  private async add(kinds: readonly FaultKind[]): Promise<readonly number[]> {
    const added = kinds.map((kind, i): Fault => ({ ...kind, id: this.nextId() + i }));
    this.state.faults = [...this.state.faults, ...added];
    await this.enforce(added);
    return added.map((fault) => fault.id);
  }

  /** Makes the network match the list of faults, as far as these faults reach. */
  private async enforce(changed: readonly Fault[]): Promise<void> {
    for (const fault of changed) {
      if (fault.kind === 'relay')
        await applyRelay(this.state, this.endState(fault.host), fault.lan);
      if (fault.kind === 'unplug') await this.applyPlug(fault.host, fault.lan);
    }
    const rules = changed.some((fault) => ['cut', 'loss', 'relay'].includes(fault.kind));
    if (rules) await applyRules(this.state);
  }

  private async applyPlug(name: string, lan: number): Promise<void> {
    const end = this.endState(name);
    const { switchProcess } = this.state;
    if (end.process === null || switchProcess === null) return;
    const down = this.state.faults.some(
      (fault) => fault.kind === 'unplug' && fault.host === name && fault.lan === lan,
    );
    const argv = ['ip', 'link', 'set', portName(end, lan), down ? 'down' : 'up'];
    await inNet('cable', switchProcess, argv);
  }

  /** Cuts a from b: 'to' loses frames from a to b, 'from' those from b to a. All networks where lan is absent. */
  cut(
    a: string,
    b: string,
    way: 'both' | 'to' | 'from' = 'both',
    lan?: number,
  ): Promise<readonly number[]> {
    return this.change(() => this.add(this.cuts(a, b, way, lan)));
  }

  private cuts(a: string, b: string, way: 'both' | 'to' | 'from', lan?: number): FaultKind[] {
    const shared = this.lansFor(a, lan).filter((l) => this.lansFor(b, lan).includes(l));
    return shared.flatMap((l): FaultKind[] => {
      const to: FaultKind = { kind: 'cut', from: a, to: b, lan: l };
      const from: FaultKind = { kind: 'cut', from: b, to: a, lan: l };
      return way === 'both' ? [to, from] : [way === 'to' ? to : from];
    });
  }

  /** Cuts a host from everybody: 'to' loses what it sends, 'from' what it should get. */
  cutAll(
    name: string,
    way: 'both' | 'to' | 'from' = 'both',
    lan?: number,
  ): Promise<readonly number[]> {
    return this.change(() => {
      const others = this.state.ends.filter((end) => end.name !== this.endState(name).name);
      const reach = (other: EndState) =>
        lan === undefined || lansOf(other, this.state.lans).includes(lan);
      return this.add(
        others.filter(reach).flatMap((other) => this.cuts(name, other.name, way, lan)),
      );
    });
  }

  /** Parts the switch: nobody in one group reaches anybody in the other. Clients may be in either. */
  partition(
    groupA: readonly string[],
    groupB: readonly string[],
    lan?: number,
  ): Promise<readonly number[]> {
    return this.change(() =>
      this.add(groupA.flatMap((a) => groupB.flatMap((b) => this.cuts(a, b, 'both', lan)))),
    );
  }

  /** Loses that part of a host's frames, each on its own. */
  loss(
    host: string,
    percent: number,
    options: { readonly lan?: number; readonly direction?: Direction } = {},
  ): Promise<readonly number[]> {
    checkPercent(percent);
    const direction = options.direction ?? 'both';
    return this.change(() =>
      this.add(
        this.lansFor(host, options.lan).map((lan) => ({
          kind: 'loss',
          host,
          lan,
          direction,
          percent,
        })),
      ),
    );
  }

  /** Delays a host's frames by delayMs +- jitterMs; jitter reorders them. */
  delay(
    host: string,
    delayMs: number,
    options: {
      readonly jitterMs?: number;
      readonly lan?: number;
      readonly direction?: Direction;
    } = {},
  ): Promise<readonly number[]> {
    return this.relay(host, { ...options, delayMs });
  }

  /** Sends that part of a host's frames twice. */
  duplicate(
    host: string,
    percent: number,
    options: { readonly lan?: number; readonly direction?: Direction } = {},
  ): Promise<readonly number[]> {
    checkPercent(percent);
    return this.relay(host, { ...options, duplicatePercent: percent });
  }

  private relay(
    host: string,
    options: {
      readonly delayMs?: number;
      readonly jitterMs?: number;
      readonly duplicatePercent?: number;
      readonly lan?: number;
      readonly direction?: Direction;
    },
  ): Promise<readonly number[]> {
    const { delayMs = 0, jitterMs = 0, duplicatePercent = 0, direction = 'both' } = options;
    if (!(delayMs >= 0 && delayMs <= 60_000 && jitterMs >= 0 && jitterMs <= 60_000)) {
      throw new HoldfastError('HF-LAB-009', { reason: 'a delay is 0 to 60000 ms' });
    }
    return this.change(() =>
      this.add(
        this.lansFor(host, options.lan).map((lan) => ({
          kind: 'relay',
          host,
          lan,
          direction,
          delayMs,
          jitterMs,
          duplicatePercent,
        })),
      ),
    );
  }

  /** Pulls a host's cable (its carrier goes). */
  unplug(host: string, lan?: number): Promise<readonly number[]> {
    return this.change(() =>
      this.add(this.lansFor(host, lan).map((l) => ({ kind: 'unplug', host, lan: l }))),
    );
  }

  /** Pulls a host's cable for downMs. */
  async flap(host: string, downMs: number, lan?: number): Promise<void> {
    const ids = await this.unplug(host, lan);
    await new Promise((resolve) => setTimeout(resolve, downMs));
    for (const id of ids) await this.heal(id);
  }

  /** Stops processes (SIGSTOP): the given ones, or every process of the host. */
  pause(host: string, processes?: readonly ProcessId[]): Promise<readonly number[]> {
    return this.change(() => {
      const stopped = processes === undefined ? stopAll(this.host(host)) : [...processes];
      for (const id of stopped) signal(id, 'SIGSTOP');
      return this.add([{ kind: 'pause', host, processes: stopped }]);
    });
  }

  /** Makes a host compete for its CPU time with that many busy processes. */
  slow(host: string, hogs = 4): Promise<readonly number[]> {
    return this.change(async () => {
      const target = this.host(host);
      const loop = ['sh', '-c', 'while :; do :; done'];
      const processes: ProcessId[] = [];
      for (let i = 0; i < hogs; i++) {
        processes.push((await target.spawn(loop, { detach: true, stdio: 'ignore' })).id);
      }
      return this.add([{ kind: 'slow', host, processes }]);
    });
  }

  /** Ends one fault, or all of them. Power stays as it is: `boot` ends a power cut. */
  heal(id?: number): Promise<void> {
    return this.change(async () => {
      const healed = this.state.faults.filter((fault) => id === undefined || fault.id === id);
      this.state.faults = this.state.faults.filter((fault) => !healed.includes(fault));
      for (const fault of healed) {
        if (fault.kind === 'pause') for (const p of fault.processes) signal(p, 'SIGCONT');
        if (fault.kind === 'slow') for (const p of fault.processes) signal(p, 'SIGKILL');
      }
      await this.enforce(healed);
    });
  }

  /** Starts clients that load an address; see LoadOptions. */
  load(options: LoadOptions): Promise<LoadGenerator> {
    return LoadGenerator.start(this.clientSpace(options.clients), options);
  }

  /** Starts to watch, on the clients' side, who answers. */
  sniff(clients?: string): Promise<Sniffer> {
    return Sniffer.start(this.clientSpace(clients), deviceName(0));
  }

  private clientSpace(name: string | undefined): Host {
    const found = name === undefined ? this.clients[0] : this.host(name);
    if (found === undefined) {
      throw new HoldfastError('HF-LAB-009', { reason: 'it was built without clients' });
    }
    return found;
  }
}

/** Stops every process of a host; looks again for those that were born meanwhile. */
function stopAll(host: Host): ProcessId[] {
  const stopped = new Set<ProcessId>();
  for (let round = 0; round < 5; round++) {
    const fresh = host.processes().filter(({ id }) => !stopped.has(id));
    if (fresh.length === 0) break;
    for (const { id } of fresh) {
      signal(id, 'SIGSTOP');
      stopped.add(id);
    }
  }
  return [...stopped];
}
