/**
 * The node agent: the modules of this server, what they share, and the commands on them. It holds no
 * decision of its own: core decides, this file connects.
 */
import { join } from 'node:path';
import { readClusterConfig, parseClusterConfig } from '../config/cluster.ts';
import { conflictsBetween } from '../config/conflicts.ts';
import type { ClusterConfig, ModuleConfig } from '../config/model.ts';
import { parseModuleConfig } from '../config/module.ts';
import { HoldfastError, type ErrorRecord } from '../errors.ts';
import { replaceFile } from '../module/durable.ts';
import { moduleDirs } from '../module/name.ts';
import {
  installPackage,
  listModules,
  packagedConfig,
  packageModule,
  readUserconfig,
  recoverModules,
  uninstallModule,
  writeUserconfig,
} from '../module/package.ts';
import { readUserlogs } from '../module/userlog.ts';
import type { Paths } from '../paths.ts';
import { version } from '../version.ts';
import { Exchange } from './exchange.ts';
import type { Agent, EventRecord, ModuleStatus, ModuleVerb, NodeStatus } from './face.ts';
import type { Farm } from './farm.ts';
import { type Hosted, withoutConfig } from './hosted.ts';
import type { NodeParts } from './node-parts.ts';
import { writeNodeMetrics } from './node-metrics.ts';
import { Mirrors } from './mirrors.ts';
import { HostedModule, type ModulePorts } from './module.ts';
import { freeNumber, RecordFile } from './record.ts';
import { RuntimeFile } from './runtime.ts';
import { timingChains, type TimingQuery, type TimingRow } from './timing.ts';
import { watchReady } from './watch.ts';

/** A node holds at most this many modules: the module part of a heartbeat has 32 places. */
const modulesMax = 32;

interface Entry {
  readonly record: RecordFile;
  /** Null: no valid configuration yet. */
  hosted: Hosted | null;
}

export class HostNode implements Agent {
  readonly node: string;
  readonly #parts: NodeParts;
  readonly #modules = new Map<string, Entry>();
  readonly #exchange: Exchange;
  readonly #mirrors: Mirrors;
  readonly #startedWallMs = Date.now();
  #cluster: ClusterConfig;
  #clusterXml: string;

  constructor(parts: NodeParts) {
    this.#parts = parts;
    this.node = parts.name;
    this.#cluster = parts.cluster;
    this.#clusterXml = parts.clusterXml;
    this.#exchange = new Exchange({
      ...parts,
      node: parts.name,
      cluster: () => this.#cluster,
      modules: () => this.#hostedModules(),
      module: (module) => this.#modules.get(module)?.hosted ?? null,
      record: (module, kind, text, data) => this.#record(module, kind, text, data),
    });
    this.#mirrors = new Mirrors({
      ...parts,
      node: parts.name,
      nowMs: () => parts.beat.nowMs(),
      cluster: () => this.#cluster,
      hosted: (module) => this.#hosted(module),
      exchange: this.#exchange,
      want: (module) => this.#want(module, true),
      record: (module, kind, text, data) => this.#record(module, kind, text, data),
      alert: (id, on, severity, message) => parts.alerts.set(id, on, severity, message),
    });
  }

  /** Reads the modules, takes over what a former agent left running, starts what is to run. */
  async load(): Promise<void> {
    const { paths, beat } = this.#parts;
    beat.onEvents((events) => this.#exchange.onBeat(events));
    await this.#exchange.whenPeersKnown();
    for (const done of await recoverModules(paths)) this.#record(null, 'config', done, {});
    const starts: string[] = [];
    const adopted: Hosted[] = [];
    for (const name of await listModules(paths)) {
      const entry = await this.#read(name);
      if (entry.hosted === null) continue;
      if (await entry.hosted.findFormer()) adopted.push(entry.hosted);
      else if (startsAtBoot(entry)) starts.push(name);
    }
    // In one turn: before all are back, a table would count as installed that the device has not.
    for (const hosted of adopted) {
      hosted.adopt();
      this.#record(hosted.name, 'transition', 'taken over from the former agent', {});
    }
    this.#parts.fabric.release();
    for (const name of starts) {
      const delayMs = this.#modules.get(name)?.hosted?.config.service.bootDelayMs ?? 0;
      setTimeout(() => void this.#startAtBoot(name), delayMs);
    }
  }

  status(): NodeStatus {
    const modules = [...this.#modules.keys()].sort().map((name) => this.#moduleStatus(name));
    return {
      node: this.node,
      id: this.#parts.me,
      version,
      clusterSignature: this.#cluster.signature,
      startedWallMs: this.#startedWallMs,
      modules,
      peers: this.#parts.peerTable.status(this.#parts.beat.stats()),
      alerts: this.#parts.alerts.list(),
    };
  }

  async command(module: string, verb: ModuleVerb): Promise<ModuleStatus> {
    const hosted = this.#hosted(module);
    this.#record(module, 'command', verb, { verb });
    // Before it is carried out: a reboot in the middle goes on with what was asked for.
    await this.#want(module, verb === 'start' || verb === 'stopstart' || verb === 'restart');
    await hosted.command(verb);
    return hosted.status();
  }

  // Orders that are for mirrors alone.
  readonly prim: Agent['prim'] = (...order) => this.#mirrors.prim(...order);
  readonly second: Agent['second'] = (...order) => this.#mirrors.second(...order);
  readonly swap: Agent['swap'] = (...order) => this.#mirrors.swap(...order);
  readonly failover: Agent['failover'] = (...order) => this.#mirrors.failover(...order);
  readonly setResource: Agent['setResource'] = (...word) => this.#mirrors.setResource(...word);
  readonly verify: Agent['verify'] = (...order) => this.#mirrors.verify(...order);

  async installModule(name: string, archive: Uint8Array, replace: boolean): Promise<ModuleStatus> {
    const known = this.#modules.get(name);
    if (known?.hosted?.stopped === false) {
      throw new HoldfastError('HF-AGENT-006', { module: name, what: 'scripts' });
    }
    if (known === undefined && this.#modules.size >= modulesMax) {
      throw new HoldfastError('HF-AGENT-011', { max: modulesMax });
    }
    const xml = packagedConfig(name, archive);
    await installPackage(this.#parts.paths, name, archive, replace);
    this.#record(name, 'config', `module ${name} installed`, { replace });
    const entry = known ?? (await this.#read(name));
    // A template that still has to be filled in is installed all the same; config says what is missing.
    if (this.checkConfig(name, xml).length === 0) return this.applyConfig(name, null);
    entry.hosted = null;
    return this.#moduleStatus(name);
  }

  async packageModule(name: string): Promise<Uint8Array> {
    this.#entry(name);
    return packageModule(this.#parts.paths, name);
  }

  async uninstallModule(name: string): Promise<void> {
    const { hosted, record } = this.#entry(name);
    if (hosted !== null && !hosted.stopped) {
      throw new HoldfastError('HF-AGENT-006', { module: name, what: 'installation' });
    }
    await uninstallModule(this.#parts.paths, name);
    record.close();
    this.#modules.delete(name);
    hosted?.abandon();
    this.#parts.fabric.silence(name);
    this.#parts.fabric.releaseSlot(name);
    this.#record(name, 'config', `module ${name} uninstalled`, {});
  }

  checkConfig(name: string, xml: string | null): readonly ErrorRecord[] {
    const text = xml ?? this.#entry(name).record.value.xml;
    if (text === null) return [new HoldfastError('HF-AGENT-004', { module: name }).toRecord()];
    return this.#parse(name, text).errors.map((error) => error.toRecord());
  }

  async applyConfig(name: string, xml: string | null): Promise<ModuleStatus> {
    const entry = this.#entry(name);
    const text = xml ?? (await readUserconfig(this.#parts.paths, name));
    const { config, errors, warnings } = this.#parse(name, text);
    const first = errors[0];
    if (config === null || first !== undefined) {
      const refusal = first ?? new HoldfastError('HF-AGENT-004', { module: name });
      this.#record(name, 'refusal', `configuration refused: ${refusal.line()}`, {
        errors: errors.length,
      });
      throw refusal;
    }
    const former = entry.hosted;
    if (former === null || (former.stopped && this.#isOther(former, config))) {
      former?.abandon();
      entry.hosted = await this.#host(config, entry.record, null);
    } else former.setConfig(config);
    if (xml !== null) await writeUserconfig(this.#parts.paths, name, xml);
    await entry.record.change({ xml: text });
    for (const warning of warnings) this.#record(name, 'config', warning.line('warning'), {});
    this.#record(name, 'config', 'configuration applied', { signature: config.signature });
    return this.#moduleStatus(name);
  }

  /** Resolves when this node has given its buckets up, and its connections have ended or their time is over. */
  async drain(module: string, node: string, on: boolean): Promise<ModuleStatus> {
    if (node !== this.node) return this.#parts.remote(node).drain(module, node, on);
    const farm = this.#runningFarm(module);
    const hosted = this.#hosted(module);
    farm.dispatch({ kind: 'drain', on });
    this.#record(module, 'command', on ? 'drain' : 'end of drain', { on });
    if (on) await farm.idle(this.#parts.beat.nowMs() + hosted.config.drainTimeoutMs);
    return hosted.status();
  }

  async power(
    module: string,
    node: string,
    group: string | null,
    power: number,
  ): Promise<ModuleStatus> {
    if (node !== this.node) return this.#parts.remote(node).power(module, node, group, power);
    const farm = this.#runningFarm(module);
    const hosted = this.#hosted(module);
    const groups = hosted.config.vip?.groups ?? [];
    const index = group === null ? null : groups.findIndex((entry) => entry.name === group);
    if (index === -1) {
      const names = groups.map((entry) => entry.name).join(', ');
      throw new HoldfastError('HF-AGENT-010', {
        what: 'group',
        value: String(group),
        rule: `one of ${names}`,
      });
    }
    farm.dispatch({ kind: 'power', group: index, power });
    this.#record(module, 'command', `power ${power}`, { group, power });
    return hosted.status();
  }

  events(options: { after: number; limit: number; module: string | null }): readonly EventRecord[] {
    return this.#parts.journal.query(options);
  }

  onEvent(listener: (event: EventRecord) => void): () => void {
    return this.#parts.journal.onEvent(listener);
  }

  async log(module: string | null, lines: number): Promise<readonly string[]> {
    if (module === null) return this.#parts.logger.tail(lines);
    this.#entry(module);
    return readUserlogs(moduleDirs(this.#parts.paths, module).log, lines);
  }

  why(module: string): readonly string[] {
    const { hosted } = this.#entry(module);
    return hosted?.why() ?? [new HoldfastError('HF-AGENT-004', { module }).message];
  }

  timing(query: TimingQuery): readonly TimingRow[] {
    return timingChains(this.#cluster, this.#modules.values(), query);
  }

  metrics(): string {
    return writeNodeMetrics({
      status: this.status(),
      beat: this.#parts.beat.stats(),
      channel: this.#parts.channel.stats(),
      devices: this.#parts.fabric.devices(),
    });
  }

  cluster(): { readonly xml: string; readonly config: ClusterConfig } {
    return { xml: this.#clusterXml, config: this.#cluster };
  }

  async applyCluster(xml: string): Promise<void> {
    const { paths, me, fabric, peerTable } = this.#parts;
    const { config, errors } = parseClusterConfig(xml, { file: paths.clusterXml });
    const first = errors[0];
    if (config === null || first !== undefined) {
      throw first ?? new HoldfastError('HF-AGENT-002', { file: paths.clusterXml });
    }
    if (config.nodes.find((node) => node.name === this.node)?.id !== me) {
      throw new HoldfastError('HF-AGENT-012', { name: this.node });
    }
    for (const [, hosted] of this.#hostedModules()) this.#mirrors.checkArbiter(hosted, config);
    await replaceFile(paths.clusterXml, xml, 0o644);
    this.#cluster = config;
    this.#clusterXml = xml;
    peerTable.setCluster(config);
    this.#parts.onCluster(config);
    fabric.setCluster(config);
    // Powers and networks of a module are by node: the modules are read again for the new cluster.
    for (const [name, entry] of this.#modules) {
      const { xml: former } = entry.record.value;
      if (former === null || entry.hosted === null) continue;
      const again = this.#parse(name, former);
      const { stopped } = entry.hosted;
      if (again.config !== null && stopped && this.#isOther(entry.hosted, again.config)) {
        entry.hosted.abandon();
        entry.hosted = await this.#host(again.config, entry.record, null);
      } else if (again.config !== null) entry.hosted.setConfig(again.config);
      const why = again.errors[0];
      this.#parts.alerts.set(
        `module.${name}.cluster`,
        again.config === null,
        'warning',
        `${name} goes on with its former configuration: ${why?.line() ?? ''}`,
      );
    }
    for (const node of config.nodes) if (node.id !== me) this.#exchange.greet(node.id);
    this.#record(null, 'config', 'cluster.xml applied', { signature: config.signature });
  }

  /** Does the configuration ask for another kind of module than the one that it was? */
  #isOther(hosted: Hosted, config: ModuleConfig): boolean {
    const isMirror = config.service.mode === 'mirror';
    if ((hosted.config.service.mode === 'mirror') !== isMirror) return true;
    return isMirror && this.#mirrors.isOther(hosted, config);
  }

  async shutdown(): Promise<void> {
    this.#parts.onShutdown();
  }

  /** Ends for good: every module gives its buckets up and is stopped; what is wanted stays wanted. */
  async stopAll(): Promise<void> {
    await Promise.allSettled(
      [...this.#modules.values()].map(async (entry) => entry.hosted?.command('stop')),
    );
  }

  /** Ends this process only: the applications and the kernel go on for the next agent. */
  abandon(): void {
    for (const entry of this.#modules.values()) entry.hosted?.abandon();
  }

  async #startAtBoot(name: string): Promise<void> {
    this.#record(name, 'command', 'start at boot', {});
    try {
      await this.#hosted(name).command('start');
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#record(name, 'refusal', `start at boot: ${reason}`, {});
    }
  }

  async #read(name: string): Promise<Entry> {
    const { paths, alerts } = this.#parts;
    const path = join(moduleDirs(paths, name).state, 'active.json');
    const record = await RecordFile.open(path, (error) =>
      alerts.set(`module.${name}.record`, error !== null, 'critical', error?.line() ?? ''),
    );
    const entry: Entry = { record, hosted: null };
    this.#modules.set(name, entry);
    if (record.value.number === 0) {
      const others = [...this.#modules.values()].map((other) => other.record.value.number);
      await record.change({ number: freeNumber(others) });
    }
    if (record.value.xml !== null) {
      const { config, errors } = this.#parse(name, record.value.xml);
      if (config !== null) {
        entry.hosted = await this.#host(config, record, new RuntimeFile(paths.run, name));
      }
      for (const error of errors) this.#record(name, 'refusal', error.line(), {});
    }
    return entry;
  }

  #parse(name: string, xml: string) {
    const parsed = parseModuleConfig(xml, {
      name,
      cluster: this.#cluster,
      env: { ...process.env, HOLDFAST_NODE: this.node },
    });
    if (parsed.config === null) return parsed;
    const others = [...this.#modules].flatMap(([other, entry]) =>
      other === name || entry.hosted === null ? [] : [entry.hosted.config],
    );
    const known = new Set(conflictsBetween(others).map((error) => error.message));
    const conflicts = conflictsBetween([...others, parsed.config]).filter(
      (error) => !known.has(error.message),
    );
    return conflicts.length === 0
      ? parsed
      : { ...parsed, config: null, errors: [...parsed.errors, ...conflicts] };
  }

  async #host(
    config: ModuleConfig,
    record: RecordFile,
    runtime: RuntimeFile | null,
  ): Promise<Hosted> {
    const { fabric } = this.#parts;
    if (config.service.mode === 'mirror') return this.#mirrors.host(config, record.value.number);
    const leaseSlot = fabric.takeSlot(config.name, runtime?.read()?.leaseSlot ?? null);
    return new HostedModule(config, this.#modulePorts(config.name, leaseSlot));
  }

  #modulePorts(name: string, leaseSlot: number): ModulePorts {
    const { paths, beat, fabric, alerts } = this.#parts;
    return {
      paths,
      node: this.node,
      nowMs: () => beat.nowMs(),
      leaseSlot,
      record: (kind, text, data) => this.#record(name, kind, text, data),
      openFarm: (config, hooks) => this.#exchange.openFarm(config, leaseSlot, hooks),
      closeFarm: (farm) => fabric.closeDevices(farm.remove()),
      replayPeers: (farm) => this.#exchange.replayPeers(name, farm),
      watch: (ready, config, report) => watchReady(ready, config, this.node, paths, report),
      silence: () => fabric.silence(name),
      alert: (id, on, message) => alerts.set(id, on, 'warning', message),
      changed: () => {},
    };
  }

  #record(
    module: string | null,
    kind: EventRecord['kind'],
    text: string,
    data: Readonly<Record<string, unknown>>,
  ): void {
    const { seq } = this.#parts.journal.append({ module, kind, text, data });
    this.#parts.logger.info(text, { seq, kind, ...(module === null ? {} : { module }) });
  }

  async #want(name: string, wanted: boolean): Promise<void> {
    const entry = this.#entry(name);
    if (entry.record.value.wanted !== wanted) await entry.record.change({ wanted });
  }

  #moduleStatus(name: string): ModuleStatus {
    const { hosted } = this.#entry(name);
    return hosted?.status() ?? withoutConfig(name, this.why(name));
  }

  *#hostedModules(): IterableIterator<readonly [string, Hosted]> {
    for (const [name, { hosted }] of this.#modules) if (hosted !== null) yield [name, hosted];
  }

  #entry(name: string): Entry {
    const entry = this.#modules.get(name);
    if (entry === undefined)
      throw new HoldfastError('HF-AGENT-003', { module: name, node: this.node });
    return entry;
  }

  #hosted(name: string): Hosted {
    const { hosted } = this.#entry(name);
    if (hosted === null) throw new HoldfastError('HF-AGENT-004', { module: name });
    return hosted;
  }

  #runningFarm(module: string): Farm {
    const hosted = this.#hosted(module);
    if (hosted.config.service.mode !== 'farm') throw new HoldfastError('HF-AGENT-007', { module });
    if (hosted.farm === null) {
      throw new HoldfastError('HF-AGENT-005', { module, state: 'STOP', verb: 'drain or power' });
    }
    return hosted.farm;
  }
}

function startsAtBoot({ hosted, record }: Entry): boolean {
  const { mode, boot } = hosted?.config.service ?? {};
  // Where nobody decides, which copy is newer is for the operator to say.
  if (mode === 'mirror' && hosted?.pair === null) return false;
  return boot === 'on' || (boot !== 'off' && record.value.wanted);
}

/** The cluster's configuration of this node. HF-AGENT-002 or the first error of cluster.xml. */
export function loadCluster(paths: Paths): ClusterConfig {
  const { config, errors } = readClusterConfig(paths.clusterXml);
  if (config !== null) return config;
  throw errors[0] ?? new HoldfastError('HF-AGENT-002', { file: paths.clusterXml });
}
