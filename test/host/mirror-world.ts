/** A mirror run by hand, with an engine that answers from memory and real scripts. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import type { ClusterConfig, ModuleConfig } from '../../src/config/model.ts';
import { HoldfastError } from '../../src/errors.ts';
import type { ModuleStatus } from '../../src/host/face.ts';
import { HostedMirror } from '../../src/host/mirror.ts';
import { MirrorPorts } from '../../src/host/mirror-ports.ts';
import { MirrorRecord } from '../../src/host/mirror-state.ts';
import type { EngineAccess, EngineAnswer, EngineValues } from '../../src/host/replica.ts';
import { moduleDirs } from '../../src/module/name.ts';
import type { Paths } from '../../src/paths.ts';
import { config, lines } from '../config/fixtures.ts';
import { eventually as until, temporaryPaths } from '../module/helpers.ts';

const twoServers = config(
  parseClusterConfig(`<cluster><lans>
 <lan name="net"><node name="db1" addr="10.0.0.1"/><node name="db2" addr="10.0.0.2"/></lan>
</lans></cluster>`),
);

/** An engine in memory; it outlives the agents that connect to it. */
export class FakeEngine implements EngineAccess {
  running = false;
  role = 'none';
  values: Record<string, string> = {};
  readonly requests: { readonly verb: string; readonly values: EngineValues }[] = [];
  /** Refuses this verb. */
  refuses: string | null = null;
  /** Called before a request is answered. */
  onRequest: (verb: string) => void = () => {};
  #onEvent: (name: string, values: EngineAnswer) => void = () => {};
  #onClosed: () => void = () => {};

  async start({ control }: { readonly control: string }): Promise<void> {
    this.running = true;
    // Whether one runs is first seen by its socket.
    writeFileSync(control, '');
  }

  /** What is wrong with the directories; null: nothing. */
  misplaced: string | null = null;
  readonly looks: boolean[] = [];

  async look(_state: string, _dirs: readonly string[], force: boolean) {
    this.looks.push(force);
    return this.misplaced === null ? null : { code: 'VOLUME', text: this.misplaced };
  }

  async connect(_socket: string, options: Parameters<EngineAccess['connect']>[1]) {
    if (!this.running) throw new Error('refused');
    this.#onEvent = options.onEvent ?? this.#onEvent;
    this.#onClosed = options.onClosed ?? this.#onClosed;
    return {
      request: async (verb: string, values: EngineValues): Promise<EngineAnswer> => {
        if (verb === 'status') return { role: this.role, ...this.values };
        this.requests.push({ verb, values });
        this.onRequest(verb);
        if (this.refuses === verb) {
          const reason = { module: 'db', verb, reason: 'as told', code: 'EIO' };
          throw new HoldfastError('HF-MIRROR-003', reason);
        }
        if (verb === 'open') this.role = new Map(values).get('role') ?? '?';
        if (verb === 'alone') this.values['alone'] = '1';
        if (verb === 'close') this.role = 'none';
        if (verb === 'quit') this.running = false;
        return {};
      },
      close: () => {},
    };
  }

  event(name: string, values: EngineAnswer = {}): void {
    this.#onEvent(name, values);
  }

  peer(state: string, reason = ''): void {
    this.values['peer'] = state;
    this.event('peer', { state, reason });
  }

  /** Both of its processes die. */
  die(): void {
    this.running = false;
    this.role = 'none';
    this.#onClosed();
  }

  get verbs(): string[] {
    return this.requests.map(({ verb }) => verb);
  }

  opened(): Map<string, string> {
    return new Map(this.requests.findLast(({ verb }) => verb === 'open')?.values);
  }
}

/** What the agent of another server says; null: it does not answer. */
export type There = Pick<ModuleStatus, 'state' | 'replica'> | null;

export interface World {
  readonly paths: Paths;
  readonly engine: FakeEngine;
  readonly config: ModuleConfig;
  readonly records: string[];
  readonly alerts: Map<string, string>;
  /** What the other servers say that are not in `others`. */
  there: There;
  readonly others: Map<string, There>;
  /** Added to the clock. */
  laterMs: number;
  ports(): MirrorPorts;
  agent(): Promise<HostedMirror>;
  /** Writes a script; each also notes its call. */
  script(name: string, body?: string): void;
  calls(): string[];
}

/** Which of a cluster's nodes it is that is looked at, and what of `<rfs>` is not a directory. */
export interface Part {
  readonly cluster: ClusterConfig;
  readonly node: string;
  readonly distant: string;
}

const first: Part = { cluster: twoServers, node: 'db1', distant: '' };

/** `rfs`: attributes of `<rfs>`. */
export function world(t: TestContext, rfs = '', part: Part = first): World {
  const { cluster, node, distant } = part;
  const paths = temporaryPaths(t);
  const dirs = moduleDirs(paths, 'db');
  const data = join(paths.state, '../../../srv/data');
  for (const folder of [dirs.bin, dirs.conf, data]) mkdirSync(folder, { recursive: true });
  const xml = `<safe><service mode="mirror">
 <heart><heartbeat name="net"/></heart>
 <rfs ${rfs}><replicated dir="${data}">
  <notreplicated path="tmp"/><notreplicated regexpath="=.*"/><notreplicated regexpath="!a|b"/>
  <tocheck path="here"/></replicated>${distant}</rfs>
 <user nicestoptimeout="20s" forcestoptimeout="20s"/></service></safe>`;
  writeFileSync(join(data, 'here'), '');
  const parsed = parseModuleConfig(xml, { name: 'db', cluster });
  assert.deepEqual(lines(parsed.errors), []);
  assert.ok(parsed.config !== null);
  const moduleConfig = parsed.config;
  const engine = new FakeEngine();
  const records: string[] = [];
  const alerts = new Map<string, string>();
  const log = join(paths.state, 'calls');
  const script = (name: string, body = ''): void => {
    const text = `#!/bin/sh\necho "$(basename "$0") $*" >>"${log}"\n${body}\n`;
    writeFileSync(join(dirs.bin, name), text, { mode: 0o755 });
  };
  for (const name of ['prestart', 'start_prim', 'stop_prim', 'start_second', 'stop_second']) {
    script(name);
  }
  script('poststop');
  const made: World = {
    paths,
    engine,
    config: moduleConfig,
    records,
    alerts,
    there: null,
    others: new Map(),
    laterMs: 0,
    script,
    calls: () => (existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : []),
    ports: () =>
      new MirrorPorts({
        paths,
        node,
        me: cluster.nodes.find(({ name }) => name === node)?.id ?? -1,
        number: 3,
        secret: new Uint8Array(32),
        keyFiles: { cert: '/pki/node.crt', key: '/pki/node.key', caCert: '/pki/ca.crt' },
        engine,
        nowMs: () => performance.now() + made.laterMs,
        cluster: () => cluster,
        remote: (other) => ({
          module: async () => {
            const there = made.others.get(other) ?? made.there;
            if (there === null) throw new Error('no answer');
            return there as ModuleStatus;
          },
        }),
        record: (_kind, text) => records.push(text),
        alert: (id, on, _severity, message) => {
          if (on) alerts.set(id, message);
          else alerts.delete(id);
        },
      }),
    agent: async () => {
      const ports = made.ports();
      const record = await MirrorRecord.open(dirs.state, () => undefined);
      const mirror = new HostedMirror(moduleConfig, record, ports);
      t.after(() => mirror.abandon());
      return mirror;
    },
  };
  return made;
}

/** Repeats assertions until they hold; the last failure tells what did not happen. */
export async function eventually(look: () => void): Promise<void> {
  let last: unknown = null;
  const holds = (): boolean => {
    try {
      look();
      return true;
    } catch (error) {
      last = error;
      return false;
    }
  };
  await until(holds, 'see above').catch(() => {
    throw last;
  });
}

export const shown = (mirror: HostedMirror): string => {
  const { state, readiness } = mirror.status();
  return `${state} ${readiness}`;
};
export const becomes = (mirror: HostedMirror, wanted: string): Promise<void> =>
  eventually(() => assert.equal(shown(mirror), wanted));
export const storedEpoch = (paths: Paths): number => {
  const text = readFileSync(join(moduleDirs(paths, 'db').state, 'mirror.json'), 'utf8');
  return (JSON.parse(text.split('\n')[1] ?? '') as { epoch: number }).epoch;
};
