import type { CheckConfig, ProcConfig, ReadyConfig } from '../config/model.ts';
import type { ScriptModule, ScriptState } from '../module/environment.ts';
import type { Paths } from '../paths.ts';
import { type LinkView, whyNoAddress, whyNoInterface } from './address.ts';
import { startCustom } from './custom.ts';
import type { Pinger } from './ping.ts';
import { probeProcesses, type ProcessTable } from './processes.ts';
import { type Poll, type Probe, startPolling, type Timers } from './poll.ts';
import { probeHttp, probeScript, probeTcp } from './probes.ts';

export interface CheckReport {
  /** `class.ident`, as status shows it: `tcp.web`, `ping.gateway`, `farm.ready`. */
  readonly resource: string;
  readonly state: 'up' | 'down';
  readonly reason: string;
}

/** What the ready gate needs of its surroundings. */
export interface GateDeps {
  readonly paths: Paths;
  readonly module: ScriptModule;
  /** State of the module now, for the environment of check scripts. */
  readonly state: () => ScriptState;
  readonly timers: Timers;
  /** Called on change only, and never after stop; before the first call the resource is `init`. */
  report(report: CheckReport): void;
}

export interface CheckerDeps extends GateDeps {
  readonly links: LinkView;
  readonly pinger: Pick<Pinger, 'ping'>;
  readonly processes: ProcessTable;
  /** The cluster's CA certificates: what the API of a node identifies itself with. */
  readonly clusterCa: string;
}

export interface Checker {
  readonly resource: string;
  /** Custom checkers only: `holdfast set` said so. False: this one cannot be set from outside. */
  set(state: 'up' | 'down', reason: string): boolean;
  /** Ends it. Resolves when nothing of it runs any more; no report comes after the call. */
  stop(): Promise<void>;
}

/** Name of the ready gate's resource. */
export const readyResource = 'farm.ready';
/** How often the gate looks while the application is not ready: the VIP opens soon after it is. */
const eagerMs = 250;
/** Changes of links and addresses come as events; this finds what an event missed. */
const linkIntervalMs = 10_000;
const linkTimeoutMs = 1000;
/** Port of the API, always TLS; other ports are asked by plain HTTP as load balancers do. */
const apiPort = 9453;
/**
 * The witness of a mirror has no timing of its own in the configuration. It must be known before it is
 * needed, a second after the primary fell silent; one lost ping is mended before that.
 */
const witness = { intervalMs: 1000, timeoutMs: 500, eagerMs: 250, promptly: true };
/** A list of processes that takes longer is no list. */
const processesTimeoutMs = 10_000;

/** The resource that a check of the configuration sets. */
export function checkResource(config: CheckConfig): string {
  return `${config.kind}.${config.ident}`;
}

/** The resource that a `<proc>` sets. */
export function procResource(config: Pick<ProcConfig, 'name'>): string {
  return `proc.${config.name}`;
}

/** Starts one `<proc>` of `<errd>`, as many looks later as `startAfter` says. */
export function startProc(config: ProcConfig, pollMs: number, deps: CheckerDeps): Checker {
  const resource = procResource(config);
  let poll: Poll | null = null;
  const cancel = deps.timers.after(config.startAfter * pollMs, () => {
    poll = startPolling({
      intervalMs: pollMs,
      timeoutMs: processesTimeoutMs,
      failures: 1,
      timers: deps.timers,
      probe: (signal) => probeProcesses(config, deps.processes, signal),
      onState: (state, reason) => {
        deps.report({ resource, state, reason: state === 'up' ? 'is there' : reason });
      },
    });
  });
  const stop = async (): Promise<void> => {
    cancel();
    await poll?.stop();
  };
  return { resource, set: () => false, stop };
}

/** Starts one `<check>` of a module. */
export function startChecker(config: CheckConfig, deps: CheckerDeps): Checker {
  const { pinger, links } = deps;
  switch (config.kind) {
    case 'tcp':
      return polled(config, deps, config, (signal) => probeTcp(config.addr, config.port, signal));
    case 'ping':
      return polled(config, deps, config, (signal) => pinger.ping(config.addr, signal));
    case 'module': {
      const addr = config.addr ?? '127.0.0.1';
      const ca = config.port === apiPort ? deps.clusterCa : null;
      const target = { addr, port: config.port, path: `/var/modules/${config.name}/ready.txt`, ca };
      return polled(config, deps, config, (signal) => probeHttp(target, signal));
    }
    case 'intf': {
      const timing = { intervalMs: linkIntervalMs, timeoutMs: linkTimeoutMs };
      return onLinks(config, deps, timing, () => whyNoInterface(links, config.localAddr));
    }
    case 'ip': {
      const timing = { intervalMs: config.intervalMs, timeoutMs: linkTimeoutMs };
      return onLinks(config, deps, timing, () => whyNoAddress(links, config.addr));
    }
    case 'custom':
      return custom(config, deps);
    case 'splitbrain':
      if (config.exec !== 'ping') return custom(config, deps);
      return polled(config, deps, witness, (signal) => pingAny(deps, config.arg, signal));
  }
}

/**
 * Starts the health gate of a farm. It looks at once, then often until the application is ready, then
 * at the interval; it reports `down` after the configured number of failures in a row.
 */
export function startReadyGate(config: ReadyConfig, deps: GateDeps): Checker {
  const { kind, addr, port, path } = config;
  const probe: Probe = (signal) => {
    if (kind === 'tcp') return probeTcp(addr, port, signal);
    if (kind === 'http') return probeHttp({ addr, port, path, ca: null }, signal);
    const { paths, module } = deps;
    return probeScript({ paths, module, file: path, state: deps.state() }, signal);
  };
  const poll = startPolling({
    intervalMs: config.intervalMs,
    timeoutMs: config.timeoutMs,
    failures: config.failures,
    eagerMs,
    promptly: true,
    timers: deps.timers,
    probe,
    onState: (state, reason) => deps.report({ resource: readyResource, state, reason }),
  });
  return { resource: readyResource, set: () => false, stop: () => poll.stop() };
}

interface Timing {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly eagerMs?: number;
  readonly promptly?: boolean;
}

function polled(config: CheckConfig, deps: CheckerDeps, timing: Timing, probe: Probe): Checker {
  const resource = checkResource(config);
  const { intervalMs, timeoutMs, eagerMs, promptly } = timing;
  const poll = startPolling({
    intervalMs,
    timeoutMs,
    ...(eagerMs === undefined ? {} : { eagerMs }),
    ...(promptly === undefined ? {} : { promptly }),
    failures: 1,
    timers: deps.timers,
    probe,
    onState: (state, reason) => deps.report({ resource, state, reason }),
  });
  return { resource, set: () => false, stop: () => poll.stop() };
}

/** Looks on each change of links or addresses, and at the interval. */
function onLinks(
  config: CheckConfig,
  deps: CheckerDeps,
  timing: Timing,
  look: () => string | null,
): Checker {
  const resource = checkResource(config);
  const poll = startPolling({
    ...timing,
    failures: 1,
    promptly: true,
    timers: deps.timers,
    probe: () => Promise.resolve(look()),
    onState: (state, reason) => {
      deps.report({ resource, state, reason: state === 'up' ? 'is there' : reason });
    },
  });
  const unsubscribe = deps.links.subscribe(() => poll.poke());
  return {
    resource,
    set: () => false,
    stop: () => {
      unsubscribe();
      return poll.stop();
    },
  };
}

function custom(
  config: Extract<CheckConfig, { kind: 'custom' | 'splitbrain' }>,
  deps: CheckerDeps,
): Checker {
  const resource = checkResource(config);
  let stopped = false;
  let last: CheckReport['state'] | null = null;
  const report = (state: 'up' | 'down', reason: string): void => {
    if (stopped || state === last) return;
    last = state;
    deps.report({ resource, state, reason });
  };
  const running = startCustom({
    paths: deps.paths,
    module: deps.module,
    ident: config.ident,
    exec: config.exec,
    arg: config.arg,
    timers: deps.timers,
    state: deps.state,
    onBroken: (reason) => report('down', reason),
  });
  return {
    resource,
    set(state, reason) {
      running.heard();
      report(state, reason);
      return true;
    },
    stop() {
      stopped = true;
      return running.stop();
    },
  };
}

/** Null when at least one of the witnesses answers. */
async function pingAny(
  deps: CheckerDeps,
  addrs: string,
  signal: AbortSignal,
): Promise<string | null> {
  const list = addrs.split(/\s+/).filter((addr) => addr !== '');
  const answers = await Promise.all(list.map((addr) => deps.pinger.ping(addr, signal)));
  return answers.includes(null) ? null : `no witness answers (${answers.join('; ')})`;
}
