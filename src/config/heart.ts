/** What of userconfig.xml says how the two servers of a mirror watch each other. */
import { type MirrorPace, mirrorProfiles, timingFaults } from '../core/mirror-timing.ts';
import { childOf, childrenOf, type Fields } from './fields.ts';
import type { ClusterConfig, DefaultPrim, HeartbeatConfig, HeartConfig } from './model.ts';
import { suggestion } from './suggest.ts';
import type { Element } from './xml.ts';

/** True where mirrors decide for themselves who is primary; else they are run by hand. */
export function hasArbiter({ arbiter }: ClusterConfig): boolean {
  return arbiter !== null && arbiter.type !== 'operator';
}

/** Reads `<heart>`; where it is missing says so. */
export function readHeart(
  service: Element,
  fields: Fields,
  cluster: ClusterConfig,
): HeartConfig | null {
  const heart = childOf(service, 'heart');
  if (heart === undefined) {
    fields.problems.error('HF-CONFIG-110', service.line, { element: 'heart' });
    return null;
  }
  for (const [attribute, reason] of [
    ['port', 'heartbeats of all modules use the port of cluster.xml'],
    ['permanent_arp', 'no neighbour entry is made permanent'],
  ] as const) {
    if (fields.given(heart, attribute)) ignored(heart, attribute, reason, fields);
  }
  if (hasArbiter(cluster)) {
    for (const element of [heart, ...childrenOf(heart, 'heartbeat')]) {
      for (const attribute of ['pulse', 'timeout']) {
        if (fields.given(element, attribute)) {
          ignored(element, attribute, 'timing and suspect of <heart> decide', fields);
        }
      }
    }
  }
  const pulseMs = fields.msWithin(heart, 'pulse', [10, '10ms'], [60_000, '1m']);
  const timeoutMs = timeoutOf(heart, pulseMs, fields);
  const idents = new Map<string, number>();
  const heartbeats = childrenOf(heart, 'heartbeat').flatMap((element): HeartbeatConfig[] => {
    const name = lanName(element, fields, cluster);
    if (name === null) return [];
    const ident = fields.given(element, 'ident') ? fields.text(element, 'ident') : name;
    const first = idents.get(ident);
    if (first !== undefined) {
      const values = { element: 'heartbeat', name: ident, first };
      fields.problems.error('HF-CONFIG-068', element.line, values);
    } else idents.set(ident, element.line);
    const own = fields.given(element, 'pulse')
      ? fields.msWithin(element, 'pulse', [10, '10ms'], [60_000, '1m'])
      : pulseMs;
    const isOwn = fields.given(element, 'timeout') || own !== pulseMs;
    const limit = fields.given(element, 'timeout') ? element : heart;
    return [
      {
        lan: name,
        ident,
        pulseMs: own,
        timeoutMs: isOwn ? timeoutOf(limit, own, fields) : timeoutMs,
        line: element.line,
      },
    ];
  });
  return { heartbeats, ...readPace(heart, fields, cluster) };
}

function timeoutOf(element: Element, pulseMs: number, fields: Fields): number {
  const ms = fields.msWithin(element, 'timeout', [100, '100ms'], [600_000, '10m']);
  if (ms <= pulseMs && !fields.bad(element)) {
    fields.problems.error('HF-CONFIG-111', fields.line(element, 'timeout'), {
      timeout: ms,
      pulse: pulseMs,
    });
  }
  return ms;
}

const profiles = ['default', 'fast', 'vm', 'wan'] as const satisfies readonly [
  keyof typeof mirrorProfiles,
  ...(keyof typeof mirrorProfiles)[],
];

const paceMinMs = 100;
const paceMaxMs = 600_000;
/** Of a given `suspect` without `lease`, as all profiles have it. */
const leaseOfSuspect = 1.5;

/** The profile, or what stands beside it; heartbeats are those of the cluster. */
function readPace(
  heart: Element,
  fields: Fields,
  cluster: ClusterConfig,
): Pick<HeartConfig, 'timing' | 'pace'> {
  const timing = fields.oneOf(heart, 'timing', profiles);
  const profile = mirrorProfiles[timing];
  const given = (attribute: string) => fields.given(heart, attribute);
  const within = (attribute: string) =>
    fields.msWithin(heart, attribute, [paceMinMs, '100ms'], [paceMaxMs, '10m']);
  const suspectMs = given('suspect') ? within('suspect') : profile.suspectMs;
  const leaseMs = given('lease')
    ? within('lease')
    : given('suspect')
      ? Math.round(suspectMs * leaseOfSuspect)
      : profile.leaseMs;
  const pace = { heartbeatMs: cluster.heartbeatMs, suspectMs, leaseMs };
  const isWithin = Math.min(suspectMs, leaseMs) >= paceMinMs && suspectMs <= paceMaxMs;
  if (isWithin && !fields.bad(heart)) checkPace(heart, pace, fields, cluster);
  return { timing, pace };
}

function checkPace(heart: Element, pace: MirrorPace, fields: Fields, cluster: ClusterConfig): void {
  const named = ['suspect', 'lease', 'timing'].find((attribute) => fields.given(heart, attribute));
  // A mirror that is run by hand suspects nobody.
  if (named === undefined && !hasArbiter(cluster)) return;
  const line = fields.line(heart, named ?? 'timing');
  const { heartbeatMs, lostCount } = cluster;
  const least = heartbeatMs * lostCount;
  if (pace.suspectMs < least) {
    const values = { suspect: pace.suspectMs, least, pulse: heartbeatMs, count: lostCount };
    fields.problems.error('HF-CONFIG-123', line, values);
    return;
  }
  for (const { text } of timingFaults(pace)) {
    fields.problems.error('HF-CONFIG-124', line, { reason: text });
  }
}

/** `defaultprim` of `<service>`; `servers` are the mirror's two, where they are known. */
export function readDefaultPrim(
  service: Element,
  servers: readonly number[],
  fields: Fields,
  cluster: ClusterConfig,
): DefaultPrim {
  const name = fields.text(service, 'defaultprim');
  if (name === 'alone' || name === 'lastprim' || fields.bad(service)) {
    return name === 'lastprim' ? name : 'alone';
  }
  const line = fields.line(service, 'defaultprim');
  const node = cluster.nodes.find((one) => one.name === name)?.id;
  if (node === undefined) {
    const known = ['alone', 'lastprim', ...cluster.nodes.map((one) => one.name)];
    const values = {
      name,
      suggestion: suggestion(name, known),
      allowed: known.slice(2).join(', '),
    };
    fields.problems.error('HF-CONFIG-125', line, values);
    return 'alone';
  }
  if (servers.length === 2 && !servers.includes(node)) {
    fields.problems.error('HF-CONFIG-126', line, { name });
  }
  return { node };
}

/** The network that an element names; null, and said, where it names none of cluster.xml. */
export function lanName(
  element: Element,
  fields: Fields,
  cluster: ClusterConfig,
  attribute = 'name',
): string | null {
  const { problems } = fields;
  if (!fields.given(element, attribute)) {
    if (!fields.bad(element)) {
      problems.error('HF-CONFIG-112', element.line, { element: element.name });
    }
    return null;
  }
  const name = fields.text(element, attribute);
  const known = cluster.lans.map((lan) => lan.name);
  if (known.includes(name)) return name;
  problems.error('HF-CONFIG-064', fields.line(element, attribute), {
    name,
    suggestion: suggestion(name, known),
    allowed: known.join(', '),
  });
  return null;
}

/** Says that an attribute does nothing here, and why. */
export function ignored(element: Element, attribute: string, reason: string, fields: Fields): void {
  const values = { attribute, element: element.name, reason };
  fields.problems.warning('HF-CONFIG-049', fields.line(element, attribute), values);
}
