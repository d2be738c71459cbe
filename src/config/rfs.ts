/** What of userconfig.xml says which directories a mirror replicates, and how. */
import { posix } from 'node:path';
import { paths } from '../paths.ts';
import { whyNotEre } from './ere.ts';
import { childOf, childrenOf, type Fields } from './fields.ts';
import { ignored, lanName } from './heart.ts';
import type {
  ClusterConfig,
  DistantConfig,
  HeartConfig,
  ReplicatedDir,
  RfsConfig,
  SkipPattern,
} from './model.ts';
import { suggestion } from './suggest.ts';
import { formatSize, parseSize } from './values.ts';
import type { Element } from './xml.ts';

/** Directories of one module; the engine keeps a descriptor and a mount for each. */
export const directoriesMax = 16;
/** Patterns and paths of one directory; each change is held against all of them. */
export const patternsMax = 64;
/** Distant copies of one module; the primary keeps a ring for each. */
export const distantMax = 4;

const mib = 1024 * 1024;
const ringBytes = { low: 8 * mib, high: 1024 * mib } as const;
const journalBytes = { low: 64 * mib, high: 64 * 1024 * mib } as const;

/** Accepted because SafeKit's files have them; why each does nothing here. */
const withoutEffect: ReadonlyMap<string, string> = new Map([
  ['packetsize', 'a request is as large as the kernel makes it, up to 1 MiB'],
  ['nbremconn', 'one ordered stream carries all changes, and does not wait for each answer'],
  ['checktime', 'the engine is watched by a process of its own, which starts it again'],
  ['checkintv', 'the engine is watched by a process of its own, which starts it again'],
  ['mountoversuffix', 'the directory keeps its name: it is mounted over itself'],
  ['syncat', 'replication is always in real time'],
  ['syncdelta', 'which copy is newer is decided by epochs, never by the time of day'],
  ['scripts', 'no _rfs_* script is called'],
  ['iotimeout', 'it is of SafeKit for Windows'],
  ['roflags', 'it is of SafeKit for Windows'],
  ['allocthreshold', 'it is of SafeKit for Windows'],
  ['nfsbox_options', 'it is of SafeKit for Windows'],
  ...[
    'reipacketsize',
    'nbrei',
    'reitimeout',
    'reicommit',
    'reidetail',
    'ruzone_blocksize',
    'namespacepolicy',
  ].map((name) => [name, 'a resynchronisation sends what differs, at its own pace'] as const),
]);

/** Reads `<rfs>`; where it is missing says so. */
export function readRfs(
  service: Element,
  heart: HeartConfig | null,
  fields: Fields,
  cluster: ClusterConfig,
): RfsConfig | null {
  const element = childOf(service, 'rfs');
  if (element === undefined) {
    fields.problems.error('HF-CONFIG-110', service.line, { element: 'rfs' });
    return null;
  }
  for (const [attribute, reason] of withoutEffect) {
    if (fields.given(element, attribute)) ignored(element, attribute, reason, fields);
  }
  if (fields.given(element, 'acl') && !fields.on(element, 'acl')) {
    ignored(element, 'acl', 'access control lists are always replicated', fields);
  }
  const network = readNetwork(element, heart, fields, cluster);
  return {
    async: fields.oneOf(element, 'async', ['none', 'second']),
    ack: fields.oneOf(element, 'ack', ['fsync', 'strict']),
    ringBytes: sizeWithin(element, 'ring', ringBytes, fields),
    journalBytes: sizeWithin(element, 'journal', journalBytes, fields),
    sendTimeoutMs: fields.msWithin(element, 'sendtimeout', [1000, '1s'], [3_600_000, '1h']),
    lockTimeoutMs: fields.msWithin(element, 'locktimeout', [1000, '1s'], [3_600_000, '1h']),
    resyncBytesPerS:
      (fields.given(element, 'reiallowedbw') ? fields.int(element, 'reiallowedbw') : 0) * 1024,
    port: fields.given(element, 'port') ? fields.int(element, 'port') : null,
    ...network,
    distant: readDistant(element, network.nodes, fields, cluster),
    directories: readDirectories(element, fields),
  };
}

/** A number of bytes that is within bounds, or said not to be. */
function sizeWithin(
  element: Element,
  attribute: string,
  bounds: { readonly low: number; readonly high: number },
  fields: Fields,
): number {
  const value = fields.text(element, attribute);
  const bytes = parseSize(value) ?? 0;
  if (bytes >= bounds.low && bytes <= bounds.high) return bytes;
  fields.problems.error('HF-CONFIG-072', fields.line(element, attribute), {
    attribute,
    element: element.name,
    value,
    low: formatSize(bounds.low),
    high: formatSize(bounds.high),
  });
  return bytes;
}

/** The network of replication and the two servers on it. */
function readNetwork(
  rfs: Element,
  heart: HeartConfig | null,
  fields: Fields,
  cluster: ClusterConfig,
): Pick<RfsConfig, 'lan' | 'nodes'> {
  const [flow, second] = childrenOf(rfs, 'flow');
  if (flow !== undefined && second !== undefined) {
    const reason = `there can be only one, and one is on line ${flow.line}`;
    const values = {
      element: 'flow',
      parent: 'rfs',
      reason,
      allowed: '<replicated>, <distant>, one <flow>',
    };
    fields.problems.error('HF-CONFIG-011', second.line, values);
  }
  const marked = heart?.heartbeats.find((one) => one.ident === 'flow');
  const chosen = marked ?? heart?.heartbeats[0];
  let lan = chosen?.lan ?? null;
  let line = chosen?.line ?? rfs.line;
  if (flow !== undefined) {
    const named = lanName(flow, fields, cluster);
    fields.problems.warning('HF-CONFIG-116', flow.line);
    if (marked === undefined && named !== null) [lan, line] = [named, flow.line];
  }
  const nodes = cluster.lans.find((one) => one.name === lan)?.nodes.map((at) => at.node) ?? [];
  if (lan !== null && nodes.length !== 2) {
    fields.problems.error('HF-CONFIG-117', line, { name: lan, count: nodes.length });
  }
  return { lan: lan ?? '', nodes };
}

/** Distant copies; `servers` are the mirror's two. */
function readDistant(
  rfs: Element,
  servers: readonly number[],
  fields: Fields,
  cluster: ClusterConfig,
): DistantConfig[] {
  const { problems } = fields;
  const elements = childrenOf(rfs, 'distant');
  if (elements.length > distantMax) {
    const values = { limit: distantMax, what: 'distant copies' };
    problems.error('HF-CONFIG-089', elements[distantMax]?.line ?? rfs.line, values);
  }
  const lines = new Map<string, number>();
  return elements.flatMap((element) => {
    const { line } = element;
    const name = fields.text(element, 'node');
    const lan = lanName(element, fields, cluster, 'lan');
    const known = cluster.nodes.map((node) => node.name);
    const node = cluster.nodes.find((one) => one.name === name)?.id;
    if (node === undefined) {
      const values = { name, suggestion: suggestion(name, known), allowed: known.join(', ') };
      problems.error('HF-CONFIG-090', fields.line(element, 'node'), values);
      return [];
    }
    const first = lines.get(name);
    if (first !== undefined) {
      problems.error('HF-CONFIG-068', line, { element: 'distant', name, first });
    } else lines.set(name, line);
    // With another number of servers the network of replication has its error already.
    if (servers.length === 2 && servers.includes(node)) {
      problems.error('HF-CONFIG-121', fields.line(element, 'node'), { name });
    } else if (servers.length === 2 && lan !== null) {
      const on = cluster.lans.find((one) => one.name === lan)?.nodes.map((at) => at.node) ?? [];
      const missing = [...servers, node]
        .filter((id) => !on.includes(id))
        .flatMap((id) => cluster.nodes.find((one) => one.id === id)?.name ?? []);
      if (missing.length > 0) {
        const values = { name, lan, missing: missing.join(', ') };
        problems.error('HF-CONFIG-122', fields.line(element, 'lan'), values);
      }
    }
    return lan === null ? [] : [{ node, name, lan, line }];
  });
}

function readDirectories(rfs: Element, fields: Fields): ReplicatedDir[] {
  const { problems } = fields;
  const elements = childrenOf(rfs, 'replicated');
  if (elements.length === 0) {
    problems.error('HF-CONFIG-014', rfs.line, { element: 'rfs', wanted: '<replicated>' });
  }
  if (elements.length > directoriesMax) {
    const values = { limit: directoriesMax, what: 'replicated directories' };
    problems.error('HF-CONFIG-089', elements[directoriesMax]?.line ?? rfs.line, values);
  }
  const seen: ReplicatedDir[] = [];
  for (const element of elements) {
    const directory = readDirectory(element, fields);
    const clash = seen.find((other) => nested(other.dir, directory.dir));
    if (clash !== undefined) {
      const values = { value: directory.dir, other: clash.dir, first: clash.line };
      problems.error('HF-CONFIG-114', fields.line(element, 'dir'), values);
    }
    const [first] = seen;
    if (first !== undefined && JSON.stringify(first.skip) !== JSON.stringify(directory.skip)) {
      const values = { value: directory.dir, other: first.dir, first: first.line };
      problems.error('HF-CONFIG-120', element.line, values);
    }
    seen.push(directory);
  }
  return seen;
}

function readDirectory(element: Element, fields: Fields): ReplicatedDir {
  const { problems } = fields;
  const value = fields.raw(element, 'dir');
  const dir = value.length > 1 ? value.replace(/\/$/, '') : value;
  const why = whyNotDirectory(dir);
  const line = fields.line(element, 'dir');
  if (why !== null) problems.error('HF-CONFIG-113', line, { value, reason: why });
  else {
    const { etc, state, run, log } = paths();
    const own = [etc, state, run, log].find((folder) => nested(folder, dir));
    if (own !== undefined) problems.error('HF-CONFIG-115', line, { value, own });
  }
  const skip = childrenOf(element, 'notreplicated').flatMap((child) => readSkip(child, fields));
  const toCheck = childrenOf(element, 'tocheck').flatMap((child) => {
    const path = relative(child, 'path', fields);
    return path === null ? [] : [path];
  });
  for (const [list, what] of [
    [skip, '<notreplicated>'],
    [toCheck, '<tocheck>'],
  ] as const) {
    if (list.length <= patternsMax) continue;
    const values = { limit: patternsMax, what: `${what} of ${dir}` };
    problems.error('HF-CONFIG-089', element.line, values);
  }
  return { dir, skip, toCheck, line: element.line };
}

function whyNotDirectory(dir: string): string | null {
  if (!dir.startsWith('/')) return 'it is not an absolute path';
  if (dir === '/') return 'the root of the file system cannot be replicated';
  if (posix.normalize(dir) !== dir) return 'it has "//", "." or ".." in it';
  return null;
}

/** Is one path the other, or in the other? */
export function nested(a: string, b: string): boolean {
  return a === b || a.startsWith(`${b}/`) || b.startsWith(`${a}/`);
}

function readSkip(element: Element, fields: Fields): SkipPattern[] {
  const byPath = fields.given(element, 'path');
  const byRegex = fields.given(element, 'regexpath');
  if (byPath === byRegex) {
    if (!fields.bad(element)) fields.problems.error('HF-CONFIG-118', element.line);
    return [];
  }
  if (byPath) {
    const path = relative(element, 'path', fields);
    return path === null ? [] : [{ kind: 'path', value: path, only: false }];
  }
  const value = fields.raw(element, 'regexpath');
  const only = value.startsWith('!');
  const regex = only ? value.slice(1) : value;
  const reason = whyNotEre(regex);
  if (reason !== null) {
    fields.problems.error('HF-CONFIG-079', fields.line(element, 'regexpath'), { value, reason });
  }
  return [{ kind: 'regex', value: regex, only }];
}

/** A path below the directory; null, and said, where it is none. */
function relative(element: Element, attribute: string, fields: Fields): string | null {
  const value = fields.raw(element, attribute);
  const path = value.replace(/\/$/, '');
  const isBelow =
    path !== '' && path !== '.' && !path.startsWith('/') && posix.normalize(path) === path;
  if (isBelow && path !== '..' && !path.startsWith('../')) return path;
  const values = { attribute, element: element.name, value };
  fields.problems.error('HF-CONFIG-119', fields.line(element, attribute), values);
  return null;
}
