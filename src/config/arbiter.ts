import { isIP } from 'node:net';
import type { Fields } from './fields.ts';
import type { ArbiterConfig, ClusterNode } from './model.ts';
import type { Element } from './xml.ts';

/** TCP port of a witness. */
export const witnessPort = 9530;
/** An etcd cluster has 3 or 5 members; more are a slip. */
const endpointsMax = 9;

type Type = ArbiterConfig['type'];

/** What each type is given; the first list must be there. */
const attributes: Readonly<Record<Type, readonly [readonly string[], readonly string[]]>> = {
  operator: [[], []],
  static: [['node'], []],
  witness: [['name', 'addr'], ['port']],
  etcd: [['endpoints'], ['prefix', 'ca', 'cert', 'key']],
  directory: [['path'], []],
  fence: [['path'], ['delay', 'timeout']],
};

const types = Object.keys(attributes) as [Type, ...Type[]];

/**
 * Reads `<arbiter>`. Null where it has mistakes; each is said. nodeAt: the node that has an address.
 */
export function readArbiter(
  element: Element,
  fields: Fields,
  nodes: readonly ClusterNode[],
  nodeAt: (addr: string) => string | undefined,
): ArbiterConfig | null {
  const type = fields.oneOf(element, 'type', types);
  if (!checkAttributes(element, fields, type)) return null;
  switch (type) {
    case 'operator':
      return { type };
    case 'static':
      return readStatic(element, fields, nodes);
    case 'witness':
      return readWitness(element, fields, nodes, nodeAt);
    case 'etcd':
      return readEtcd(element, fields);
    case 'fence':
      return readFence(element, fields, nodes);
    case 'directory': {
      const path = absolute(element, fields, 'path');
      return path === null ? null : { type, path };
    }
  }
}

function checkAttributes(element: Element, fields: Fields, type: Type): boolean {
  const [needed, allowed] = attributes[type];
  let isGood = true;
  for (const attribute of needed) {
    if (fields.given(element, attribute)) continue;
    isGood = false;
    fields.problems.error('HF-CONFIG-130', element.line, { type, attribute });
  }
  const known = ['type', ...needed, ...allowed];
  for (const [attribute, { given, line }] of element.attributes) {
    if (!given || known.includes(attribute) || attribute.includes(':')) continue;
    isGood = false;
    const values = { type, attribute, allowed: known.slice(1).join(', ') || 'nothing more' };
    fields.problems.error('HF-CONFIG-131', line, values);
  }
  return isGood;
}

function readStatic(
  element: Element,
  fields: Fields,
  nodes: readonly ClusterNode[],
): ArbiterConfig | null {
  const name = fields.text(element, 'node');
  const node = nodes.find((one) => one.name === name);
  if (node !== undefined) return { type: 'static', node: node.id };
  fields.problems.error('HF-CONFIG-134', fields.line(element, 'node'), { name });
  return null;
}

function readFence(
  element: Element,
  fields: Fields,
  nodes: readonly ClusterNode[],
): ArbiterConfig | null {
  const path = absolute(element, fields, 'path');
  const [one, two, more] = nodes;
  if (one === undefined || two === undefined || more !== undefined) {
    fields.problems.error('HF-CONFIG-137', element.line, { count: nodes.length });
    return null;
  }
  const delayMs = fields.msWithin(element, 'delay', [0, '0s'], [300_000, '5m']);
  const timeoutMs = fields.msWithin(element, 'timeout', [1000, '1s'], [600_000, '10m']);
  return path === null
    ? null
    : { type: 'fence', path, delayMs, timeoutMs, nodes: [one.id, two.id] };
}

function readWitness(
  element: Element,
  fields: Fields,
  nodes: readonly ClusterNode[],
  nodeAt: (addr: string) => string | undefined,
): ArbiterConfig | null {
  const name = fields.text(element, 'name');
  const addr = fields.address(element, 'addr');
  // Its certificate would be that of a server.
  if (nodes.some((node) => node.name.toLowerCase() === name.toLowerCase())) {
    fields.problems.error('HF-CONFIG-135', fields.line(element, 'name'), { name });
    return null;
  }
  if (addr === null) return null;
  const node = nodeAt(addr.text);
  if (node !== undefined) {
    const values = { name, addr: addr.text, node };
    fields.problems.warning('HF-CONFIG-136', fields.line(element, 'addr'), values);
  }
  return { type: 'witness', name, addr: addr.text, port: fields.int(element, 'port') };
}

function readEtcd(element: Element, fields: Fields): ArbiterConfig | null {
  const problem = (attribute: string, value: string) => {
    const values = { attribute, value };
    fields.problems.error('HF-CONFIG-132', fields.line(element, attribute), values);
  };
  const texts = fields.text(element, 'endpoints').split(' ');
  const endpoints = texts.map(endpointOf);
  const bad = texts.find((_, index) => endpoints[index] === null);
  const isTooMany = texts.length > endpointsMax || new Set(texts).size < texts.length;
  if (bad !== undefined || isTooMany) {
    problem('endpoints', bad ?? texts.join(' '));
    return null;
  }
  const prefix = fields.text(element, 'prefix');
  if (!/^\/[\x21-\x7e]{0,126}\/$/.test(prefix) && prefix !== '/') {
    problem('prefix', prefix);
    return null;
  }
  const file = (name: string) =>
    fields.given(element, name) ? absolute(element, fields, name) : null;
  const [caFile, certFile, keyFile] = [file('ca'), file('cert'), file('key')];
  if ((certFile === null) !== (keyFile === null)) {
    const attribute = certFile === null ? 'cert' : 'key';
    fields.problems.error('HF-CONFIG-130', element.line, { type: 'etcd', attribute });
    return null;
  }
  return {
    type: 'etcd',
    endpoints: endpoints.filter((one) => one !== null),
    prefix,
    caFile,
    certFile,
    keyFile,
  };
}

/** `https://10.0.0.5:2379` and its kind; host names are refused, as for all that decides. */
function endpointOf(text: string): string | null {
  const parts = /^(https?):\/\/(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::(\d{1,5}))?\/?$/.exec(text);
  if (parts === null) return null;
  const [, scheme, six, four, port = '2379'] = parts;
  const number = Number(port);
  if (number < 1 || number > 65_535) return null;
  if (six !== undefined) return isIP(six) === 6 ? `${scheme}://[${six}]:${number}` : null;
  return isIP(four ?? '') === 4 ? `${scheme}://${four}:${number}` : null;
}

function absolute(element: Element, fields: Fields, attribute: string): string | null {
  const value = fields.text(element, attribute);
  const parts = value.split('/');
  if (value.startsWith('/') && value.length > 1 && !parts.includes('..') && !parts.includes('.')) {
    return value.replace(/\/+$/, '');
  }
  fields.problems.error('HF-CONFIG-133', fields.line(element, attribute), { attribute, value });
  return null;
}

/** The attributes of `<arbiter>` as renderClusterXml writes them. */
export function arbiterAttributes(
  arbiter: ArbiterConfig,
  nodes: readonly ClusterNode[],
): readonly (readonly [string, string | number | undefined])[] {
  const { type } = arbiter;
  switch (type) {
    case 'operator':
      return [['type', type]];
    case 'static':
      return [
        ['type', type],
        ['node', nodes.find((node) => node.id === arbiter.node)?.name],
      ];
    case 'witness':
      return [
        ['type', type],
        ['name', arbiter.name],
        ['addr', arbiter.addr],
        ['port', arbiter.port],
      ];
    case 'etcd':
      return [
        ['type', type],
        ['endpoints', arbiter.endpoints.join(' ')],
        ['prefix', arbiter.prefix],
        ['ca', arbiter.caFile ?? undefined],
        ['cert', arbiter.certFile ?? undefined],
        ['key', arbiter.keyFile ?? undefined],
      ];
    case 'fence':
      return [
        ['type', type],
        ['path', arbiter.path],
        ['delay', `${arbiter.delayMs}ms`],
        ['timeout', `${arbiter.timeoutMs}ms`],
      ];
    case 'directory':
      return [
        ['type', type],
        ['path', arbiter.path],
      ];
  }
}
