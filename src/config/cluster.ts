import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { HoldfastError } from '../errors.ts';
import { arbiterAttributes, readArbiter } from './arbiter.ts';
import { checkForm } from './check-form.ts';
import { childOf, childrenOf, Fields } from './fields.ts';
import type { ArbiterConfig, ClusterConfig, ClusterNode, Lan, LanNode } from './model.ts';
import { Problems } from './problems.ts';
import { schemaOf } from './schema.ts';
import { type Family, formatDuration, isLoopback } from './values.ts';
import { type Element, withXml } from './xml.ts';

/** What was read of a file: the configuration where there are no errors. */
export interface Parsed<T> {
  readonly config: T | null;
  readonly errors: readonly HoldfastError[];
  readonly warnings: readonly HoldfastError[];
}

/** Node ids are bits of a 64-bit mask. */
export const nodesMax = 64;
/** Heartbeats of all networks are handled by one thread with fixed tables. */
export const lansMax = 8;

/**
 * Reads cluster.xml. `file` is the name that errors show. Never throws for what the text says:
 * all errors come back together, by line.
 */
export function parseClusterConfig(
  xml: string,
  options: { readonly file?: string } = {},
): Parsed<ClusterConfig> {
  const problems = new Problems(options.file ?? 'cluster.xml');
  const config = withXml(xml, 'cluster', problems, (file) => {
    const schema = schemaOf('cluster');
    const form = checkForm(schema, file, problems, new Set());
    if (form.broken) return null;
    const fields = new Fields(schema, problems, form.bad);
    fields.preset(file.root);
    const lans = childOf(file.root, 'lans');
    if (lans === undefined) return null;
    return withSignature(new ClusterReader(fields).read(lans, childOf(file.root, 'arbiter')));
  });
  return {
    config: problems.failed ? null : config,
    errors: problems.errors(),
    warnings: problems.warnings(),
  };
}

/**
 * Adds the signature: equal for equal meaning, however the file is written. A cluster without an
 * arbiter has the signature that it had before there were any.
 */
function withSignature(config: Omit<ClusterConfig, 'signature'>): ClusterConfig {
  const meaning = { ...config, arbiter: config.arbiter ?? undefined };
  const signature = createHash('sha256').update(JSON.stringify(meaning)).digest('hex');
  return { ...config, signature };
}

/** Reads a file as UTF-8 text. Throws HoldfastError when it cannot be read or is something else. */
export function readConfigText(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new HoldfastError('HF-CONFIG-001', { file: path, reason }, null, error);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new HoldfastError('HF-CONFIG-003', {}, { file: path, line: lineOfBadByte(bytes) });
  }
}

function lineOfBadByte(bytes: Buffer): number {
  const good = bytes.toString('utf8');
  return good.slice(0, Math.max(0, good.indexOf('\ufffd'))).split('\n').length;
}

/** Reads cluster.xml from a file; what cannot be read is one of the errors. */
export function readClusterConfig(path: string): Parsed<ClusterConfig> {
  try {
    return parseClusterConfig(readConfigText(path), { file: path });
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    return { config: null, errors: [error], warnings: [] };
  }
}

interface Mention {
  readonly node: string;
  readonly line: number;
}

class ClusterReader {
  readonly #fields: Fields;
  readonly #problems: Problems;
  /** Nodes by name; the order is that of their ids. */
  readonly #nodes = new Map<string, ClusterNode>();
  readonly #addresses = new Map<string, Mention>();

  constructor(fields: Fields) {
    this.#fields = fields;
    this.#problems = fields.problems;
  }

  read(lans: Element, arbiter: Element | undefined): Omit<ClusterConfig, 'signature'> {
    const elements = childrenOf(lans, 'lan');
    this.#ignored(lans, 'mlost_count', 'the reachable node with the lowest id leads');
    if (elements.length > lansMax) {
      this.#problems.error('HF-CONFIG-041', elements[lansMax]?.line ?? lans.line, {
        limit: lansMax,
      });
    }
    const read = elements.map((element) => ({ element, nodes: this.#lanNodes(element) }));
    this.#names(elements, 'lan', 'HF-CONFIG-033');
    const command = this.#commandLan(lans, read);
    const nodes = [...this.#nodes.values()];
    return {
      nodes,
      lans: read.map(({ element, nodes }, index): Lan => {
        return { name: this.#fields.text(element, 'name'), command: index === command, nodes };
      }),
      ...this.#timing(lans),
      arbiter: arbiter === undefined ? null : this.#arbiter(arbiter, nodes),
    };
  }

  #arbiter(element: Element, nodes: readonly ClusterNode[]): ArbiterConfig | null {
    return readArbiter(element, this.#fields, nodes, (addr) => this.#addresses.get(addr)?.node);
  }

  #ignored(element: Element, attribute: string, reason: string) {
    if (!this.#fields.given(element, attribute)) return;
    const values = { attribute, element: element.name, reason };
    this.#problems.warning('HF-CONFIG-049', this.#fields.line(element, attribute), values);
  }

  #lanNodes(lan: Element): LanNode[] {
    const lanName = this.#fields.text(lan, 'name');
    this.#ignored(lan, 'console', 'it is obsolete');
    this.#ignored(lan, 'framework', 'it is obsolete');
    const first = new Map<string, Element>();
    const nodes: LanNode[] = [];
    let family: Family | null = null;
    for (const element of childrenOf(lan, 'node')) {
      const name = this.#fields.text(element, 'name');
      const twin = first.get(name);
      if (twin !== undefined) {
        const values = { name, lan: lanName, first: twin.line };
        this.#problems.error('HF-CONFIG-032', element.line, values);
        continue;
      }
      first.set(name, element);
      const id = this.#nodeId(name, element);
      const addr = this.#address(element, 'addr', name);
      const local = this.#fields.given(element, 'laddr');
      const laddr = local ? this.#address(element, 'laddr', name) : addr;
      for (const [attribute, address] of [
        ['addr', addr],
        ['laddr', laddr],
      ] as const) {
        if (address === null || (attribute === 'laddr' && !local)) continue;
        family ??= address.family;
        if (address.family !== family) {
          const names = { ipv4: 'IPv4', ipv6: 'IPv6' };
          this.#problems.error('HF-CONFIG-047', this.#fields.line(element, attribute), {
            attribute,
            value: address.text,
            node: name,
            lan: lanName,
            family: names[address.family],
            other: names[family],
          });
        }
      }
      if (addr !== null && laddr !== null) {
        nodes.push({ node: id, addr: addr.text, laddr: laddr.text });
      }
    }
    return nodes;
  }

  #nodeId(name: string, element: Element): number {
    const known = this.#nodes.get(name);
    if (known !== undefined) return known.id;
    for (const other of this.#nodes.values()) {
      if (other.name.toLowerCase() !== name.toLowerCase()) continue;
      const values = { name, other: other.name, kind: 'nodes' };
      this.#problems.error('HF-CONFIG-051', this.#fields.line(element, 'name'), values);
      return other.id;
    }
    const id = this.#nodes.size;
    if (id === nodesMax) this.#problems.error('HF-CONFIG-040', element.line, { limit: nodesMax });
    this.#nodes.set(name, { id, name });
    return id;
  }

  #address(element: Element, attribute: 'addr' | 'laddr', node: string) {
    const address = this.#fields.address(element, attribute);
    if (address === null) return null;
    const line = this.#fields.line(element, attribute);
    // Behind address translation several nodes may have the same own address, one node may not.
    const key = attribute === 'addr' ? address.text : `${node} ${address.text}`;
    const first = this.#addresses.get(key);
    if (first !== undefined) {
      const values = { addr: address.text, node: first.node, first: first.line };
      this.#problems.error('HF-CONFIG-034', line, values);
    } else this.#addresses.set(key, { node, line });
    if (attribute === 'addr' && isLoopback(address)) {
      this.#problems.warning('HF-CONFIG-048', line, { node, addr: address.text });
    }
    return address;
  }

  #names(elements: readonly Element[], kind: string, code: 'HF-CONFIG-033') {
    const first = new Map<string, Element>();
    for (const element of elements) {
      const name = this.#fields.text(element, 'name');
      const twin = first.get(name.toLowerCase());
      if (twin === undefined) first.set(name.toLowerCase(), element);
      else if (this.#fields.text(twin, 'name') === name) {
        this.#problems.error(code, element.line, { name, first: twin.line });
      } else {
        const values = { name, other: this.#fields.text(twin, 'name'), kind: `${kind}s` };
        this.#problems.error('HF-CONFIG-051', element.line, values);
      }
    }
  }

  /** Index of the network of commands, after checking which networks hold which nodes. */
  #commandLan(
    lans: Element,
    read: readonly { readonly element: Element; readonly nodes: readonly LanNode[] }[],
  ): number {
    let command = -1;
    let full = -1;
    let chosen: Element | null = null;
    const least: string[][] = [];
    for (const [index, { element }] of read.entries()) {
      const lan = this.#fields.text(element, 'name');
      const present = new Set(childrenOf(element, 'node').map((n) => this.#fields.text(n, 'name')));
      const missing = [...this.#nodes.keys()].filter((name) => !present.has(name));
      least.push(missing);
      const names = missing.join(', ');
      if (missing.length === 0 && full === -1) full = index;
      if (this.#nodes.size > 1 && present.size === 1) {
        const node = [...present][0] ?? '';
        this.#problems.error('HF-CONFIG-036', element.line, { lan, node });
      } else if (missing.length > 0) {
        this.#problems.warning('HF-CONFIG-037', element.line, { lan, missing: names });
      }
      if (!this.#fields.on(element, 'command')) continue;
      const line = this.#fields.line(element, 'command');
      if (chosen !== null) {
        const other = this.#fields.text(chosen, 'name');
        this.#problems.error('HF-CONFIG-038', line, { lan, other });
      } else if (missing.length > 0) {
        this.#problems.error('HF-CONFIG-039', line, { lan, missing: names });
      }
      chosen = element;
      command = index;
    }
    if (full === -1) {
      const [missing = []] = least.toSorted((a, b) => a.length - b.length);
      const values = { missing: `the fullest lacks ${missing.join(', ')}` };
      this.#problems.error('HF-CONFIG-035', lans.line, values);
    }
    return command === -1 ? full : command;
  }

  #timing(lans: Element) {
    const fields = this.#fields;
    const heartbeatMs = fields.ms(lans, 'pulse');
    const lostCount = fields.int(lans, 'slost_count');
    const agentDeadlineMs = fields.ms(lans, 'agent_deadline');
    const suspectMs = heartbeatMs * lostCount;
    const leaseMs = fields.given(lans, 'lease')
      ? fields.ms(lans, 'lease')
      : Math.floor((suspectMs * 3) / 4);
    const timing = { heartbeatMs, lostCount, suspectMs, leaseMs, agentDeadlineMs };
    if (!fields.bad(lans)) this.#checkTiming(lans, timing);
    return {
      port: fields.int(lans, 'port'),
      heartbeatMs,
      lostCount,
      leaseMs,
      agentDeadlineMs,
    };
  }

  #checkTiming(
    lans: Element,
    timing: {
      readonly heartbeatMs: number;
      readonly lostCount: number;
      readonly suspectMs: number;
      readonly leaseMs: number;
      readonly agentDeadlineMs: number;
    },
  ) {
    const { heartbeatMs, lostCount, suspectMs, leaseMs, agentDeadlineMs } = timing;
    const bad = (code: Parameters<Problems['error']>[0], name: string, values = {}) => {
      const value = this.#fields.text(lans, name);
      this.#problems.error(code, this.#fields.line(lans, name), { value, ...values });
    };
    const pulseBad = heartbeatMs < 10 || heartbeatMs > 10_000;
    const countBad = lostCount < 2 || lostCount > 1000;
    if (pulseBad) bad('HF-CONFIG-042', 'pulse');
    if (countBad) bad('HF-CONFIG-043', 'slost_count');
    if (agentDeadlineMs < 500 || agentDeadlineMs > 600_000) bad('HF-CONFIG-046', 'agent_deadline');
    if (pulseBad || countBad) return;
    const least = Math.floor(heartbeatMs * 1.5);
    if (suspectMs > 300_000) bad('HF-CONFIG-050', 'slost_count', { suspect: suspectMs });
    else if (leaseMs >= suspectMs) {
      bad('HF-CONFIG-044', 'lease', { lease: leaseMs, suspect: suspectMs });
    } else if (leaseMs < least) bad('HF-CONFIG-045', 'lease', { lease: leaseMs, least });
  }
}

/** What renderClusterXml needs of a configuration; timings that are absent are left to the defaults. */
export type ClusterSource = Pick<ClusterConfig, 'nodes' | 'lans'> &
  Partial<
    Pick<
      ClusterConfig,
      'port' | 'heartbeatMs' | 'lostCount' | 'leaseMs' | 'agentDeadlineMs' | 'arbiter'
    >
  >;

/**
 * Writes a cluster.xml that parseClusterConfig reads back as the same configuration. Node ids
 * follow from the order of mention, so the first lan is expected to hold the nodes by id.
 */
export function renderClusterXml(source: ClusterSource): string {
  const names = new Map(source.nodes.map((node) => [node.id, node.name]));
  const timing = attributes([
    ['port', source.port],
    ['pulse', source.heartbeatMs === undefined ? undefined : formatDuration(source.heartbeatMs)],
    ['slost_count', source.lostCount],
    ['lease', source.leaseMs === undefined ? undefined : formatDuration(source.leaseMs)],
    [
      'agent_deadline',
      source.agentDeadlineMs === undefined ? undefined : formatDuration(source.agentDeadlineMs),
    ],
  ]);
  const lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<cluster>', `  <lans${timing}>`];
  for (const lan of source.lans) {
    lines.push(
      `    <lan${attributes([
        ['name', lan.name],
        ['command', lan.command ? 'on' : undefined],
      ])}>`,
    );
    for (const node of lan.nodes) {
      const laddr = node.laddr === node.addr ? undefined : node.laddr;
      const written = attributes([
        ['name', names.get(node.node)],
        ['addr', node.addr],
        ['laddr', laddr],
      ]);
      lines.push(`      <node${written}/>`);
    }
    lines.push('    </lan>');
  }
  lines.push('  </lans>');
  if (source.arbiter) {
    lines.push(`  <arbiter${attributes(arbiterAttributes(source.arbiter, source.nodes))}/>`);
  }
  lines.push('</cluster>', '');
  return lines.join('\n');
}

function attributes(pairs: readonly (readonly [string, string | number | undefined])[]): string {
  return pairs
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}="${escapeXml(String(value))}"`)
    .join('');
}

function escapeXml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('"', '&quot;')
    .replace(/[\t\r\n]/g, (c) => `&#${c.charCodeAt(0)};`);
}
