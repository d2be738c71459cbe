/**
 * A mirror's engine and what it says: events become journal records and alerts, its status becomes
 * what the module shows. Nothing is decided here.
 */
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModuleConfig, RfsConfig } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { ReplicaStatus, VerifyStatus } from './face.ts';
import { DistantCopies } from './mirror-distant.ts';
import { apartError, peerReasonText, resyncText, toldError } from './mirror-events.ts';
import { MirrorLag } from './mirror-lag.ts';
import {
  engineFigures,
  engineFolder,
  type MirrorPorts,
  openValues,
  type OpenWay,
} from './mirror-ports.ts';
import type { MirrorRecord, MirrorRole } from './mirror-state.ts';
import { type EngineAnswer, Replica } from './replica.ts';
import { Verification } from './verification.ts';

/** A secondary's last connection ends for so long before the role does. */
const cutMs = 1000;

export interface MirrorEngineHooks {
  /** Its status was read again. */
  readonly changed: () => void;
  /** It is gone for good, with the directories. */
  readonly gone: () => void;
  /** The peer's engine left, and said so. */
  readonly left?: () => void;
}

export class MirrorEngine {
  /** How far this copy is behind, where it is a distant one. */
  readonly lag: MirrorLag;
  readonly #ports: MirrorPorts;
  readonly #distant: DistantCopies;
  readonly #record: MirrorRecord;
  readonly #hooks: MirrorEngineHooks;
  readonly #config: () => ModuleConfig;
  #role: MirrorRole = 'prim';
  #replica: Replica | null = null;
  #verification: Verification | null = null;
  #apart: HoldfastError | null = null;
  #peerReason = '';

  constructor(
    config: () => ModuleConfig,
    record: MirrorRecord,
    ports: MirrorPorts,
    hooks: MirrorEngineHooks,
  ) {
    this.#config = config;
    this.#record = record;
    this.#ports = ports;
    this.#hooks = hooks;
    this.#distant = new DistantCopies(config, ports);
    this.lag = new MirrorLag(config, ports);
  }

  /** Its processes answer. */
  get connected(): boolean {
    return this.#replica?.connected === true;
  }

  /** Name of the server that this one is with, or waits for. */
  get peer(): string {
    const seen = Number(this.values['peer_node'] ?? 0);
    return this.#ports.peerName(this.#config(), this.#role, seen);
  }

  get peerConnected(): boolean {
    return this.values['peer'] === 'connected';
  }

  /** The peer's last state and why, as the engine said; empty while it is connected. */
  get peerReason(): string {
    return this.#peerReason;
  }

  /** Why no rule brings the two copies together, for the operator; null: none is in the way. */
  get apart(): HoldfastError | null {
    return this.#apart;
  }

  /** The primary acknowledges without its peer. */
  get alone(): boolean {
    return this.#role === 'prim' && engineFigures(this.values).alone;
  }

  /** The secondary could not write: it has left, and its copy is not kept up any more. */
  get failed(): boolean {
    return this.values['failed'] === '1';
  }

  /** The secondary's copy is not what the primary's is: it is being brought up to date, or waits. */
  get behind(): boolean {
    const state = this.values['state'] ?? 'in_sync';
    return this.#role === 'second' && state !== 'in_sync';
  }

  /** Synced writes are answered (prim); what the primary writes arrives, and is all (second). */
  get ready(): boolean {
    return (this.peerConnected && !this.failed && !this.behind) || this.alone;
  }

  /** What it said last, by its own names; empty while it does not answer. */
  get values(): EngineAnswer {
    return this.#replica?.status ?? {};
  }

  /** Finds the engine that a former agent started; false where there is none. */
  async attach(role: MirrorRole): Promise<boolean> {
    this.#role = role;
    this.#replica = this.#newReplica();
    return this.#replica.attach();
  }

  /** Finds it, and waits until it says what its role is; false: it is gone, or has another one. */
  async find(role: MirrorRole): Promise<boolean> {
    if (!(await this.attach(role))) return false;
    return (await this.#replica?.whenKnown()) === true && this.values['role'] === role;
  }

  /** Starts it where none runs, and gives it its role: the directories can be used then. */
  async open(role: MirrorRole, way: OpenWay): Promise<void> {
    const config = this.#config();
    await this.#begin(role);
    const epoch =
      role === 'prim' ? await this.#nextEpoch(way.heard.epoch) : Math.max(1, this.#record.epoch);
    this.#replica = this.#newReplica();
    await this.#replica.start();
    await this.#replica.whenSettled();
    if (this.values['role'] === role) return;
    await this.#replica.request('open', openValues(this.#ports, config, role, epoch, way));
  }

  async #begin(role: MirrorRole): Promise<void> {
    this.#role = role;
    this.#peerReason = '';
    this.#verification = null;
    for (const what of ['engine', 'local', 'differs']) this.#alert(what, false, '');
    this.#setApart(null);
    this.#distant.forget();
    await checkPaths(rfsOf(this.#config()));
  }

  /**
   * Why the directories could not be opened, while no engine has them; null: nothing is known.
   * `force`: for a primary by force, which takes what is there.
   */
  async look(force: boolean): Promise<string | null> {
    const config = this.#config();
    const rfs = rfsOf(config);
    try {
      await checkPaths(rfs);
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
    const dirs = rfs.directories.map(({ dir }) => dir);
    const found = await this.#ports.engine.look(
      engineFolder(this.#ports.paths, config.name),
      dirs,
      force,
    );
    return found?.text ?? null;
  }

  /**
   * Takes a role that was decided elsewhere, under its epoch; the one that it has is closed first. What
   * an agent before this one was told to do is found done.
   */
  async take(role: MirrorRole, epoch: number, way: OpenWay): Promise<void> {
    await this.#begin(role);
    // A mirror that is run by hand again begins above it.
    await this.#record.raise(epoch);
    this.#replica ??= this.#newReplica();
    const replica = this.#replica;
    await replica.start();
    await replica.whenSettled();
    const { role: former, epoch: known } = this.values;
    if (former === role && (role === 'second' || Number(known) === epoch)) return;
    // A primary that is lost has nothing to be told; a farewell would wait for it.
    if (former === 'second') await replica.request('cut', [['ms', String(cutMs)]]);
    if (former !== 'none') await replica.request('close');
    const values = openValues(this.#ports, this.#config(), role, epoch, way);
    await replica.request('open', [...values, ['decided', '1']]);
  }

  /** Tells a primary's engine that nothing waits for the peer, or that the peer is named, under `epoch`. */
  async tell(what: 'alone' | 'joined', epoch: number): Promise<void> {
    await this.#record.raise(epoch);
    await this.#running().request(what, [['epoch', String(epoch)]]);
  }

  /** Ends it; the directories are plain ones then. Resolves with what went wrong, or null. */
  async close(limitMs: number | null = null): Promise<string | null> {
    const reason = (await this.#replica?.end(limitMs)) ?? null;
    this.#replica = null;
    this.#verification?.fail('the module was stopped');
    await this.#ports.unmountLeft(this.#config());
    for (const what of ['peer', 'alone']) this.#alert(what, false, '');
    this.#setApart(null);
    this.#distant.forget();
    return reason;
  }

  /** The primary goes on without its peer, under the epoch that this resolves with: above `heard`. */
  async goAlone(heard: number): Promise<number> {
    const epoch = await this.#nextEpoch(heard);
    await this.#running().request('alone', [['epoch', String(epoch)]]);
    return epoch;
  }

  /** @see Agent.verify */
  async verify(): Promise<VerifyStatus> {
    const { name } = this.#config();
    if (this.#verification?.status.running === true) {
      throw new HoldfastError('HF-MIRROR-012', { module: name });
    }
    const verification = new Verification(name);
    this.#verification = verification;
    this.#ports.record('check', 'comparison of both servers begun', {});
    try {
      await this.#running().request('verify');
    } catch (error) {
      verification.fail(error instanceof Error ? error.message : String(error));
      throw error;
    }
    const found = await verification.ended;
    const outcome = found.differing === 0 ? 'equal' : `${found.differing} differences`;
    this.#ports.record('check', `comparison ended: ${outcome}`, found.figures);
    this.#alert('differs', found.differing > 0, `the servers differ in ${found.differing} places`);
    return found;
  }

  status(): ReplicaStatus {
    const config = this.#config();
    return {
      role: this.#role,
      peer: this.peer,
      peerState: this.values['peer'] ?? 'none',
      peerReason: this.#peerReason,
      alone: this.alone,
      epoch: this.#record.epoch,
      port: this.#ports.port(config),
      directories: rfsOf(config).directories.map(({ dir }) => dir),
      distant: this.#role === 'prim' ? this.#distant.status(this.values) : [],
      behind: this.#role === 'prim' ? null : this.lag.status,
      engine: this.values,
      verify: this.#verification?.statusBeside(this.values) ?? null,
    };
  }

  /** What an operator should know while the application runs (or does not: `serving` false). */
  checkAlerts(serving: boolean): void {
    if (this.failed) this.#alert('local', true, 'its copy on this server has failed');
    const { peer } = this;
    if (this.#role === 'prim') this.#distant.checkAlerts(this.values, serving);
    const what = this.#role === 'prim' ? 'synced writes wait' : 'this copy may be old';
    const isCut = serving && !this.ready && !this.peerConnected;
    this.#alert('peer', isCut, `${peer} is not connected; ${what}`);
    this.#alert(
      'alone',
      serving && this.alone,
      this.peerConnected
        ? 'what is written is on this server only until the other copy is up to date'
        : 'it runs alone: what is written is on this server only',
    );
  }

  abandon(): void {
    this.#replica?.abandon();
    this.#verification?.fail('the agent ended');
  }

  #setApart(apart: HoldfastError | null): void {
    this.#apart = apart;
    this.#alert('apart', apart !== null, apart?.line() ?? '');
  }

  #onEvent(name: string, values: EngineAnswer): void {
    if (this.#distant.take(name, values)) return;
    if (this.#verification?.take(name, values) === true) return;
    const text = values['text'] ?? '';
    const reason = values['reason'] ?? text;
    switch (name) {
      case 'peer': {
        const state = values['state'] ?? 'unknown';
        this.#peerReason = state === 'connected' ? '' : peerReasonText(state, reason);
        if (state !== 'connected') this.#verification?.fail('the connection was lost');
        if (state === 'left') this.#hooks.left?.();
        const { peer } = this;
        const apart = apartError(this.#config().name, peer, values);
        if (apart !== null || state === 'connected') this.#setApart(apart);
        const said = apart?.line() ?? `${peer} ${state} ${reason}`.trim();
        this.#ports.record('peer', `replication: ${said}`, values);
        return;
      }
      case 'resync':
        this.#ports.record('peer', `replication: ${resyncText(values)}`, values);
        return;
      case 'local_failed':
        this.#alert(
          'local',
          true,
          `a file could not be written on this server (${reason}): stop it, then mend the disk`,
        );
        this.#ports.record('alert', `the local copy failed ${reason}`.trim(), values);
        return;
      case 'role':
        this.#ports.record('peer', `replication: role ${values['role'] ?? '?'}`, values);
        if (values['role'] === 'none') this.#hooks.gone();
        return;
      case 'resumed':
        // The comparison was the former worker's.
        this.#verification?.fail('the engine was started again');
        this.#ports.record('peer', `replication: resumed ${pauseText(values)}`, values);
        return;
      default: {
        const told = toldError(this.#config().name, name, values);
        const said = told?.line() ?? `${name} ${text}`.trim();
        this.#ports.record('peer', `replication: ${said}`, values);
      }
    }
  }

  #onStatus(): void {
    const { epoch } = engineFigures(this.values);
    // Only remembered here: the engine keeps its own, and obeys that.
    if (epoch > this.#record.epoch) this.#record.raise(epoch).catch(() => undefined);
    if (this.#role === 'second') this.lag.look();
    this.#hooks.changed();
  }

  #onGone(): void {
    this.#alert('engine', true, 'it is stopped: its replication engine ended');
    this.#verification?.fail('the engine ended');
    this.#hooks.gone();
  }

  async #nextEpoch(heard: number): Promise<number> {
    const known = engineFigures(this.values).epoch;
    return this.#record.raise(Math.max(known, heard, this.#record.epoch) + 1);
  }

  #newReplica(): Replica {
    return new Replica({
      paths: this.#ports.paths,
      module: this.#config().name,
      access: this.#ports.engine,
      onEvent: (name, values) => this.#onEvent(name, values),
      onStatus: () => this.#onStatus(),
      onGone: () => this.#onGone(),
    });
  }

  #running(): Replica {
    if (this.#replica !== null) return this.#replica;
    throw new HoldfastError('HF-MIRROR-002', { module: this.#config().name });
  }

  #alert(what: string, on: boolean, message: string): void {
    const { name } = this.#config();
    this.#ports.alert(`module.${name}.${what}`, on, 'critical', `${name}: ${message}`);
  }
}

function pauseText({ pause_us: pauseUs }: EngineAnswer): string {
  return pauseUs === undefined ? '' : `after ${Math.round(Number(pauseUs) / 1000)} ms`;
}

function rfsOf(config: ModuleConfig): RfsConfig {
  if (config.rfs === null) throw new Error(`mirror ${config.name} without <rfs>`);
  return config.rfs;
}

/** HF-MIRROR-010 where something is missing that must be there. */
async function checkPaths(rfs: RfsConfig): Promise<void> {
  for (const { dir, toCheck } of rfs.directories) {
    for (const path of toCheck) {
      const whole = join(dir, path);
      await lstat(whole).catch((cause: unknown) => {
        throw new HoldfastError('HF-MIRROR-010', { path: whole, dir }, null, cause);
      });
    }
  }
}
