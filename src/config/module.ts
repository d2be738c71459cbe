import { checkForm } from './check-form.ts';
import { readChecks } from './checks.ts';
import type { Parsed } from './cluster.ts';
import { readErrd, readFailover } from './errd.ts';
import { actions, belowBin, childOf, childrenOf, Fields, signatureOf } from './fields.ts';
import { hasArbiter, readDefaultPrim, readHeart } from './heart.ts';
import { expandMacros } from './macros.ts';
import type {
  ClusterConfig,
  Mode,
  ModuleConfig,
  ReadyConfig,
  ServiceConfig,
  UserConfig,
  VirtualHostname,
} from './model.ts';
import { Problems } from './problems.ts';
import { readRfs } from './rfs.ts';
import { schemaOf } from './schema.ts';
import { suggestion } from './suggest.ts';
import { readVip } from './vip.ts';
import { type Element, withXml } from './xml.ts';

export interface ModuleOptions {
  /** Name that errors show; default userconfig.xml. */
  readonly file?: string;
  /** Name of the module. */
  readonly name: string;
  /** The configuration of the cluster that the module will run in. */
  readonly cluster: ClusterConfig;
  /** Variables that %NAME% may name beside the macros of the file; default none. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** The module's name is a folder, a metric label and a shell variable; same form as src/module/name.ts. */
const nameForm = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$/;

/**
 * Reads userconfig.xml. Never throws for what the text says: all errors come back together, by
 * line. Warnings do not keep the configuration from being used.
 */
export function parseModuleConfig(xml: string, options: ModuleOptions): Parsed<ModuleConfig> {
  const problems = new Problems(options.file ?? 'userconfig.xml');
  if (!nameForm.test(options.name)) {
    problems.error('HF-CONFIG-062', 1, { name: options.name });
  }
  const config = withXml(xml, 'safe', problems, (file) => {
    const schema = schemaOf('userconfig');
    const unexpanded = expandMacros(file, options.env ?? {}, problems);
    const form = checkForm(schema, file, problems, unexpanded);
    if (form.broken || unexpanded.size > 0) return null;
    const signature = signatureOf(file.root);
    const fields = new Fields(schema, problems, form.bad);
    fields.preset(file.root);
    const service = childOf(file.root, 'service');
    return service === undefined ? null : readService(service, fields, options, signature);
  });
  return {
    config: problems.failed ? null : config,
    errors: problems.errors(),
    warnings: problems.warnings(),
  };
}

function readService(
  element: Element,
  fields: Fields,
  options: ModuleOptions,
  signature: string,
): ModuleConfig | null {
  const problems = fields.problems;
  const mode = fields.oneOf(element, 'mode', ['farm', 'light', 'mirror']);
  const byHand = mode === 'mirror' && !hasArbiter(options.cluster);
  if (byHand) problems.warning('HF-CONFIG-060', fields.line(element, 'mode'));
  belongsElsewhere(element, mode, byHand, fields);
  notActedOn(element, mode, byHand, fields);
  const user = childOf(element, 'user');
  const errd = childOf(element, 'errd');
  if (user === undefined) problems.warning('HF-CONFIG-065', element.line);
  if (errd !== undefined && user === undefined) problems.error('HF-CONFIG-066', errd.line);
  const { cluster } = options;
  const heart = mode === 'mirror' ? readHeart(element, fields, cluster) : null;
  const rfs = mode === 'mirror' ? readRfs(element, heart, fields, cluster) : null;
  const service: ServiceConfig = {
    mode,
    boot: fields.oneOf(element, 'boot', ['ignore', 'on', 'off', 'auto']),
    bootDelayMs: fields.ms(element, 'boot_delay'),
    maxloop: fields.int(element, 'maxloop'),
    loopIntervalMs: fields.ms(element, 'loop_interval'),
    automaticReboot: fields.on(element, 'automatic_reboot'),
    failover: fields.on(element, 'failover'),
    defaultPrim:
      mode === 'mirror' ? readDefaultPrim(element, rfs?.nodes ?? [], fields, cluster) : 'alone',
  };
  return {
    name: options.name,
    service,
    ...readFarm(fields.child(element, 'farm'), mode, fields, cluster),
    ready: readGate(childOf(element, mode === 'mirror' ? 'heart' : 'farm'), fields),
    vip: readVip(childOf(element, 'vip'), mode, fields, cluster),
    heart,
    rfs,
    user: user === undefined ? null : readUser(user, fields),
    checks: readChecks(childOf(element, 'check'), fields),
    errd: errd === undefined ? null : readErrd(errd, fields),
    failover: readFailover(childOf(element, 'failover'), mode === 'mirror' && !byHand, fields),
    virtualHostnames: readHostnames(childOf(element, 'vhost'), fields),
    signature,
  };
}

/** Elements and attributes of another mode. */
function belongsElsewhere(service: Element, mode: Mode, byHand: boolean, fields: Fields) {
  const wrong = (element: Element | undefined, other: string) => {
    if (element === undefined) return;
    const values = { element: element.name, mode: other, own: mode };
    fields.problems.error('HF-CONFIG-061', element.line, values);
  };
  if (mode === 'mirror') wrong(childOf(service, 'farm'), 'farm');
  else {
    wrong(childOf(service, 'heart'), 'mirror');
    wrong(childOf(service, 'rfs'), 'mirror');
    wrong(childOf(childOf(service, 'check'), 'splitbrain'), 'mirror');
  }
  if (mode === 'light') {
    wrong(childOf(service, 'farm'), 'farm');
    const vip = childOf(service, 'vip');
    if (vip) fields.problems.error('HF-CONFIG-101', vip.line, { element: 'vip' });
  }
  for (const attribute of ['failover', 'defaultprim']) {
    if (!fields.given(service, attribute)) continue;
    const line = fields.line(service, attribute);
    if (mode === 'mirror') {
      if (!byHand) continue;
      const reason = 'without <arbiter> in cluster.xml a mirror is run by hand';
      fields.problems.warning('HF-CONFIG-049', line, { attribute, element: 'service', reason });
    } else {
      fields.problems.warning('HF-CONFIG-076', line, { attribute, element: 'service', mode });
    }
  }
}

/** What a later version will act on: said, so that nobody relies on it. */
function notActedOn(service: Element, mode: Mode, byHand: boolean, fields: Fields) {
  const isDecided = mode === 'mirror' && !byHand;
  const checks = isDecided ? [] : ['errd', 'check', 'failover'];
  const later = ['vhost', ...checks, ...(byHand ? ['vip'] : [])];
  for (const name of later) {
    const element = childOf(service, name);
    const empty = name === 'check' && element?.children.length === 0;
    if (element !== undefined && !empty) {
      fields.problems.warning('HF-CONFIG-067', element.line, { element: name });
    }
  }
}

function readFarm(
  farm: Element,
  mode: Mode,
  fields: Fields,
  cluster: ClusterConfig,
): Pick<ModuleConfig, 'farmLans' | 'drainTimeoutMs'> {
  const known = cluster.lans.map((lan) => lan.name);
  const farmLans = mode === 'farm' ? known : [];
  const problems = fields.problems;
  for (const attribute of ['port', 'pulse', 'mlost_count', 'slost_count']) {
    if (!fields.given(farm, attribute)) continue;
    const values = { attribute, element: 'farm' };
    problems.warning('HF-CONFIG-063', fields.line(farm, attribute), values);
  }
  const named = new Map<string, Element>();
  for (const lan of childrenOf(farm, 'lan')) {
    const name = fields.text(lan, 'name');
    const first = named.get(name);
    if (first !== undefined) {
      problems.error('HF-CONFIG-068', lan.line, { element: 'lan', name, first: first.line });
    } else if (!known.includes(name)) {
      problems.error('HF-CONFIG-064', fields.line(lan, 'name'), {
        name,
        suggestion: suggestion(name, known),
        allowed: known.join(', '),
      });
    }
    named.set(name, lan);
  }
  return {
    farmLans: named.size > 0 ? [...named.keys()] : farmLans,
    drainTimeoutMs: fields.ms(farm, 'drain_timeout'),
  };
}

/** The health gate of a farm or a mirror. */
function readGate(parent: Element | undefined, fields: Fields): ReadyConfig | null {
  const [ready, second] = childrenOf(parent, 'ready');
  if (ready !== undefined && second !== undefined) {
    const reason = `there can be only one, and one is on line ${ready.line}`;
    const values = {
      element: 'ready',
      parent: parent?.name ?? '',
      reason,
      allowed: '<lan>, one <ready>',
    };
    fields.problems.error('HF-CONFIG-011', second.line, values);
  }
  return ready === undefined ? null : readReady(ready, fields);
}

function readReady(element: Element, fields: Fields): ReadyConfig {
  const problems = fields.problems;
  const kind = fields.oneOf(element, 'kind', ['tcp', 'http', 'script']);
  const needs = (attribute: string) => {
    if (fields.given(element, attribute)) return;
    problems.error('HF-CONFIG-071', element.line, { kind, attribute });
  };
  const unused = (attribute: string) => {
    if (!fields.given(element, attribute)) return;
    const values = { kind, attribute };
    problems.warning('HF-CONFIG-077', fields.line(element, attribute), values);
  };
  if (element.parent?.name === 'farm' && fields.given(element, 'start_timeout')) {
    const reason =
      'a server of a farm whose application does not answer leaves its clients to the others';
    const values = { attribute: 'start_timeout', element: 'ready', reason };
    problems.warning('HF-CONFIG-049', fields.line(element, 'start_timeout'), values);
  }
  let path = fields.text(element, 'path');
  if (kind === 'script') {
    needs('path');
    unused('addr');
    unused('port');
    belowBin(element, 'path', path, fields);
  } else {
    needs('port');
    if (kind === 'tcp') unused('path');
    else if (path === '') path = '/';
    else if (!/^\/[!-~]*$/.test(path)) {
      problems.error('HF-CONFIG-073', fields.line(element, 'path'), { value: path });
    }
  }
  return {
    kind,
    addr: kind === 'script' ? '127.0.0.1' : (fields.address(element, 'addr')?.text ?? '127.0.0.1'),
    port: fields.int(element, 'port'),
    path: kind === 'tcp' ? '' : path,
    intervalMs: fields.msWithin(element, 'interval', [100, '100ms'], [3_600_000, '1h']),
    timeoutMs: fields.msWithin(element, 'timeout', [10, '10ms'], [600_000, '10m']),
    failures: fields.int(element, 'failures'),
    startTimeoutMs: fields.msWithin(element, 'start_timeout', [0, '0'], [86_400_000, '1d']),
    action: fields.oneOf(element, 'action', actions),
  };
}

function readUser(element: Element, fields: Fields): UserConfig {
  const vars: Record<string, string> = {};
  const lines = new Map<string, number>();
  for (const child of childrenOf(element, 'var')) {
    const name = fields.text(child, 'name');
    const first = lines.get(name);
    const reserved = /^(SAFE|HOLDFAST_|LD_|PATH$|HOME$|LANG$)/.test(name);
    if (first !== undefined) {
      fields.problems.error('HF-CONFIG-068', child.line, { element: 'var', name, first });
    } else if (reserved) {
      const reason = 'Holdfast sets it itself, or the loader of the system reads it';
      fields.problems.error('HF-CONFIG-069', fields.line(child, 'name'), { name, reason });
    } else {
      lines.set(name, child.line);
      // Not vars[name] = …: a variable may be called __proto__.
      Object.defineProperty(vars, name, {
        value: fields.raw(child, 'value'),
        enumerable: true,
        writable: true,
        configurable: true,
      });
    }
  }
  return {
    stopTimeoutMs: fields.msWithin(element, 'nicestoptimeout', [1000, '1s'], [86_400_000, '1d']),
    forceStopTimeoutMs: fields.msWithin(
      element,
      'forcestoptimeout',
      [1000, '1s'],
      [86_400_000, '1d'],
    ),
    logging: fields.oneOf(element, 'logging', ['userlog', 'none']),
    userlogKib: fields.int(element, 'userlogsize'),
    vars,
  };
}

function readHostnames(element: Element | undefined, fields: Fields): VirtualHostname[] {
  return childrenOf(element, 'virtualhostname').map((child) => ({
    name: fields.text(child, 'name'),
    envFile: fields.text(child, 'envfile'),
    when: fields.oneOf(child, 'when', ['prim', 'second', 'both']),
  }));
}
