import { childOf, childrenOf, type Fields } from './fields.ts';
import type {
  ClusterConfig,
  LoadGroup,
  LoadRule,
  Mode,
  VipConfig,
  VipInterface,
  VirtualAddr,
  VirtualInterface,
} from './model.ts';
import { suggestion } from './suggest.ts';
import {
  type Address,
  defaultFarmMac,
  edgeOfNetwork,
  parseAddress,
  parseMac,
  parseNetmask,
  whyNotFarmMac,
} from './values.ts';
import type { Element } from './xml.ts';

/** What a mirror takes in the filter of a device: one table, and rules for TCP, UDP and ICMP. */
export const mirrorGroups = 1;
export const mirrorRules = 3;

/** What the filter of one network device holds (FARM_VIPS, FARM_TABLES, FARM_RULES of its ABI). */
export const vipsMax = 32;
export const groupsMax = 16;
export const rulesMax = 64;

/** Reads `<vip>`; null where there is none. */
export function readVip(
  element: Element | undefined,
  mode: Mode,
  fields: Fields,
  cluster: ClusterConfig,
): VipConfig | null {
  if (element === undefined || mode === 'light') return null;
  return new VipReader(mode, fields, cluster).read(element);
}

interface Vip {
  readonly address: Address;
  readonly type: VirtualInterface['type'];
  readonly line: number;
}

interface PlacedRule {
  readonly rule: LoadRule;
  readonly group: string;
}

class VipReader {
  readonly #mode: 'farm' | 'mirror';
  readonly #fields: Fields;
  readonly #cluster: ClusterConfig;
  readonly #vips = new Map<string, Vip>();
  readonly #rules: PlacedRule[] = [];

  constructor(mode: 'farm' | 'mirror', fields: Fields, cluster: ClusterConfig) {
    this.#mode = mode;
    this.#fields = fields;
    this.#cluster = cluster;
  }

  read(element: Element): VipConfig {
    const fields = this.#fields;
    if (fields.given(element, 'scriptcontrol')) {
      fields.problems.warning('HF-CONFIG-074', fields.line(element, 'scriptcontrol'));
    }
    const list = childrenOf(childOf(element, 'interface_list'), 'interface');
    const interfaces = list.map((child) => this.#interface(child));
    this.#devicesOnce(list);
    if (
      !list.some((child) => childOf(child, 'virtual_interface') || childOf(child, 'real_interface'))
    ) {
      const isFarm = this.#mode === 'farm';
      fields.problems.error(isFarm ? 'HF-CONFIG-102' : 'HF-CONFIG-108', element.line);
    }
    const groups = this.#balancing(childOf(element, 'loadbalancing_list'));
    if (this.#vips.size > vipsMax) {
      const values = { limit: vipsMax, what: 'virtual IPs' };
      fields.problems.error('HF-CONFIG-089', element.line, values);
    }
    this.#overlaps();
    if (this.#mode === 'farm') this.#uncovered();
    return { tcpreset: fields.on(element, 'tcpreset'), interfaces, groups };
  }

  #interface(element: Element): VipInterface {
    const fields = this.#fields;
    const real = childOf(element, 'real_interface');
    const virtual = childOf(element, 'virtual_interface');
    return {
      name: fields.given(element, 'name') ? fields.text(element, 'name') : null,
      check: fields.on(element, 'check'),
      arpreroute: fields.on(element, 'arpreroute'),
      arpIntervalMs: fields.msWithin(element, 'arpinterval', [1000, '1s'], [86_400_000, '1d']),
      arpElapseMs: fields.ms(element, 'arpelapse'),
      virtualInterface:
        this.#mode === 'mirror'
          ? this.#realInterface(real, virtual)
          : this.#farmInterface(real, virtual),
    };
  }

  #farmInterface(
    real: Element | undefined,
    virtual: Element | undefined,
  ): VipInterface['virtualInterface'] {
    if (real !== undefined) this.#fields.problems.error('HF-CONFIG-085', real.line);
    return virtual === undefined ? null : this.#virtualInterface(virtual);
  }

  /** The addresses of a mirror answer with the MAC address of the device that they are on. */
  #realInterface(
    real: Element | undefined,
    virtual: Element | undefined,
  ): VipInterface['virtualInterface'] {
    if (virtual !== undefined) this.#fields.problems.error('HF-CONFIG-106', virtual.line);
    if (real === undefined) return null;
    const addrs = childrenOf(real, 'virtual_addr')
      .map((child) => this.#virtualAddr(child, 'vmac_directed'))
      .filter((addr) => addr !== null);
    return { type: 'vmac_directed', mac: null, addrs };
  }

  #balancing(list: Element | undefined): readonly LoadGroup[] {
    if (list === undefined) return [];
    if (this.#mode === 'farm') return this.#groups(childrenOf(list, 'group'));
    this.#fields.problems.error('HF-CONFIG-105', list.line);
    return [];
  }

  #devicesOnce(list: readonly Element[]) {
    const lines = new Map<string, number>();
    for (const element of list) {
      const name = this.#fields.text(element, 'name');
      const first = lines.get(name);
      if (name !== '' && first !== undefined) {
        const line = this.#fields.line(element, 'name');
        this.#fields.problems.error('HF-CONFIG-103', line, { name, first });
      }
      lines.set(name, element.line);
    }
  }

  #virtualInterface(element: Element): VirtualInterface {
    const fields = this.#fields;
    const type = fields.oneOf(element, 'type', ['vmac_invisible', 'vmac_directed']);
    const before = this.#vips.size;
    const addrs = childrenOf(element, 'virtual_addr')
      .map((child) => this.#virtualAddr(child, type))
      .filter((addr) => addr !== null);
    if (type === 'vmac_directed') {
      if (fields.given(element, 'addr')) {
        fields.problems.error('HF-CONFIG-087', fields.line(element, 'addr'));
      }
      return { type, mac: null, addrs };
    }
    const own = [...this.#vips.values()][before];
    return { type, mac: this.#mac(element, own?.address), addrs };
  }

  #mac(element: Element, vip: Address | undefined): string | null {
    const fields = this.#fields;
    const given = fields.given(element, 'addr');
    const text = fields.text(element, 'addr');
    const mac = given ? parseMac(text) : vip === undefined ? null : defaultFarmMac(vip);
    // Without a MAC address the virtual IP has an error already.
    if (mac === null) return null;
    const line = fields.line(element, 'addr');
    const reason = whyNotFarmMac(mac);
    if (reason !== null) fields.problems.error('HF-CONFIG-086', line, { value: text, reason });
    return mac;
  }

  #virtualAddr(element: Element, type: VirtualInterface['type']): VirtualAddr | null {
    const fields = this.#fields;
    const address = fields.address(element, 'addr');
    const where = this.#mode === 'farm' ? 'alias' : 'one_side_alias';
    if (fields.given(element, 'where') && fields.text(element, 'where') !== where) {
      const code = this.#mode === 'farm' ? 'HF-CONFIG-084' : 'HF-CONFIG-107';
      const values = { addr: fields.text(element, 'addr') };
      fields.problems.error(code, fields.line(element, 'where'), values);
    }
    if (address === null) return null;
    const addr = address.text;
    const line = fields.line(element, 'addr');
    const twin = this.#vips.get(addr);
    const node = this.#nodeWith(addr);
    if (twin !== undefined)
      fields.problems.error('HF-CONFIG-080', line, { addr, first: twin.line });
    else this.#vips.set(addr, { address, type, line });
    if (node !== null) fields.problems.error('HF-CONFIG-081', line, { addr, node });
    return {
      addr,
      prefix: this.#prefix(element, address),
      where,
      check: fields.on(element, 'check'),
      connections: fields.on(element, 'connections'),
      line: element.line,
    };
  }

  #prefix(element: Element, address: Address): number {
    const fields = this.#fields;
    const whole = address.family === 'ipv4' ? 32 : 128;
    if (!fields.given(element, 'netmask')) return whole;
    const value = fields.text(element, 'netmask');
    const line = fields.line(element, 'netmask');
    const prefix = parseNetmask(value, address.family);
    const addr = address.text;
    if (prefix === null) {
      fields.problems.error('HF-CONFIG-082', line, { value, addr });
      return whole;
    }
    const what = edgeOfNetwork(address, prefix);
    if (what !== null) fields.problems.error('HF-CONFIG-083', line, { addr, prefix, what });
    return prefix;
  }

  #nodeWith(addr: string): string | null {
    for (const lan of this.#cluster.lans) {
      const found = lan.nodes.find((node) => node.addr === addr || node.laddr === addr);
      if (found !== undefined) {
        return this.#cluster.nodes.find((node) => node.id === found.node)?.name ?? null;
      }
    }
    return null;
  }

  #groups(elements: readonly Element[]): LoadGroup[] {
    const problems = this.#fields.problems;
    const lines = new Map<string, number>();
    const extra = elements[groupsMax];
    if (extra) problems.error('HF-CONFIG-089', extra.line, { limit: groupsMax, what: 'groups' });
    const ruleElements = elements.flatMap((element) => childrenOf(element, 'rule'));
    const rule = ruleElements[rulesMax];
    if (rule) problems.error('HF-CONFIG-089', rule.line, { limit: rulesMax, what: 'rules' });
    return elements.map((element) => {
      const name = this.#fields.text(element, 'name');
      const first = lines.get(name);
      if (first === undefined) lines.set(name, element.line);
      else problems.error('HF-CONFIG-068', element.line, { element: 'group', name, first });
      const powers = this.#powers(element, name);
      const rules = childrenOf(element, 'rule').map((child) => {
        const one = this.#rule(child);
        if (!this.#fields.bad(child)) this.#rules.push({ rule: one, group: name });
        return one;
      });
      return { name, powers, rules };
    });
  }

  #powers(group: Element, name: string): Record<number, number> {
    const fields = this.#fields;
    const nodes = this.#cluster.nodes;
    const cluster = childOf(group, 'cluster');
    if (cluster === undefined) return Object.fromEntries(nodes.map((node) => [node.id, 1]));
    const powers = Object.fromEntries(nodes.map((node) => [node.id, 0]));
    const lines = new Map<string, number>();
    for (const host of childrenOf(cluster, 'host')) {
      const hostName = fields.text(host, 'name');
      const first = lines.get(hostName);
      const node = nodes.find((one) => one.name === hostName);
      if (first !== undefined) {
        const values = { element: 'host', name: hostName, first };
        fields.problems.error('HF-CONFIG-068', host.line, values);
      } else if (node === undefined) {
        const names = nodes.map((one) => one.name);
        fields.problems.error('HF-CONFIG-090', fields.line(host, 'name'), {
          name: hostName,
          suggestion: suggestion(hostName, names),
          allowed: names.join(', '),
        });
      } else powers[node.id] = fields.int(host, 'power');
      lines.set(hostName, host.line);
    }
    const moot = childrenOf(cluster, 'host').some((host) => fields.bad(host));
    if (!moot && Object.values(powers).every((power) => power === 0)) {
      fields.problems.error('HF-CONFIG-091', cluster.line, { name });
    }
    return powers;
  }

  #rule(element: Element): LoadRule {
    const fields = this.#fields;
    const problems = fields.problems;
    const proto = fields.oneOf(element, 'proto', ['tcp', 'udp', 'arp', 'icmp']);
    const filter = fields.oneOf(element, 'filter', ['on_addr', 'on_port', 'on_ipid']);
    const text = fields.text(element, 'virtual_addr');
    const virtualAddr = text === '*' ? null : (parseAddress(text)?.text ?? text);
    if (virtualAddr !== null && !this.#vips.has(virtualAddr)) {
      const allowed = [...this.#vips.keys()].join(', ');
      const line = fields.line(element, 'virtual_addr');
      problems.error('HF-CONFIG-092', line, { value: text, allowed: allowed || 'none' });
    }
    const [portLow, portHigh] = this.#ports(element, proto);
    const rule: LoadRule = { virtualAddr, portLow, portHigh, proto, filter, line: element.line };
    this.#filter(element, rule);
    return rule;
  }

  #ports(element: Element, proto: LoadRule['proto']): readonly [number, number] {
    const fields = this.#fields;
    const value = fields.text(element, 'port');
    const line = fields.line(element, 'port');
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(value);
    if (match === null) return [0, 65535];
    if (proto === 'arp' || proto === 'icmp') {
      fields.problems.error('HF-CONFIG-094', line, { value, proto });
      return [0, 65535];
    }
    const low = Number(match[1]);
    const high = Number(match[2] ?? match[1]);
    const reason =
      low < 1 || high > 65535
        ? 'ports are from 1 to 65535'
        : low > high
          ? 'the range ends before it begins'
          : null;
    if (reason !== null) fields.problems.error('HF-CONFIG-093', line, { value, reason });
    return [low, high];
  }

  #filter(element: Element, rule: LoadRule) {
    const problems = this.#fields.problems;
    const { proto, filter } = rule;
    const line = this.#fields.line(element, 'filter');
    const vips = this.#matching(rule);
    if (proto === 'arp' && vips.length > 0 && !vips.some((vip) => vip.type === 'vmac_directed')) {
      problems.error('HF-CONFIG-095', rule.line);
    }
    if (filter === 'on_ipid' && proto !== 'udp') {
      const reason = 'the identification of packets is for udp only';
      problems.error('HF-CONFIG-096', line, { filter, proto, reason });
    } else if (filter === 'on_port' && (proto === 'arp' || proto === 'icmp')) {
      problems.error('HF-CONFIG-096', line, { filter, proto, reason: `${proto} has no ports` });
    } else if (filter === 'on_ipid') {
      const v6 = vips.find((vip) => vip.address.family === 'ipv6');
      if (v6) problems.error('HF-CONFIG-097', line, { addr: v6.address.text });
    }
  }

  #matching(rule: LoadRule): Vip[] {
    if (rule.virtualAddr === null) return [...this.#vips.values()];
    const vip = this.#vips.get(rule.virtualAddr);
    return vip === undefined ? [] : [vip];
  }

  /** Two rules that match one packet must lead it to one bucket table by one hash. */
  #overlaps() {
    const rules = this.#rules.slice(0, rulesMax);
    for (const [index, { rule, group }] of rules.entries()) {
      const other = rules
        .slice(0, index)
        .find(
          (earlier) =>
            (earlier.group !== group || earlier.rule.filter !== rule.filter) &&
            earlier.rule.proto === rule.proto &&
            earlier.rule.portLow <= rule.portHigh &&
            rule.portLow <= earlier.rule.portHigh &&
            (earlier.rule.virtualAddr === null ||
              rule.virtualAddr === null ||
              earlier.rule.virtualAddr === rule.virtualAddr),
        );
      if (other !== undefined) {
        const values = { other: other.rule.line };
        this.#fields.problems.error('HF-CONFIG-098', rule.line, values);
      }
    }
  }

  #uncovered() {
    const covers = (vip: Vip, wanted: (rule: LoadRule) => boolean) =>
      this.#rules.some(({ rule }) => wanted(rule) && this.#matching(rule).includes(vip));
    for (const vip of this.#vips.values()) {
      const addr = vip.address.text;
      if (!covers(vip, (rule) => rule.proto === 'tcp' || rule.proto === 'udp')) {
        this.#fields.problems.warning('HF-CONFIG-100', vip.line, { addr });
      } else if (vip.type === 'vmac_directed' && !covers(vip, (rule) => rule.proto === 'arp')) {
        this.#fields.problems.warning('HF-CONFIG-099', vip.line, { addr });
      }
    }
  }
}
