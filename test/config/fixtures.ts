import assert from 'node:assert/strict';
import type { HoldfastError } from '../../src/errors.ts';
import type { ClusterConfig, ModuleConfig, Parsed } from '../../src/config/index.ts';
import { parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';

/** The lines of these two files are what the tables of errors refer to. */
export const clusterXml = `<?xml version="1.0" encoding="UTF-8"?>
<!-- three servers, two networks -->
<cluster>
  <lans port="4800" pulse="50ms"
        slost_count="4">
    <lan name="office" command="on">
      <node name="web1" addr="10.0.0.1"/>
      <node name="web2" addr="10.0.0.2"/>
      <node name="web3" addr="10.0.0.3"/>
    </lan>
    <lan name="private">
      <node name="web1" addr="fd00::1"/>
      <node name="web2" addr="fd00::2"/>
      <node name="web3" addr="[FD00::3]"/>
    </lan>
  </lans>
</cluster>
`;

export const moduleXml = `<?xml version="1.0" encoding="UTF-8"?>
<safe>
  <macro name="VIP" value="10.0.0.100"/>
  <service mode="farm" maxloop="3">
    <farm>
      <lan name="office"/>
      <ready kind="http" port="80" path="/health"/>
    </farm>
    <vip>
      <interface_list>
        <interface name="eth0">
          <virtual_interface type="vmac_invisible">
            <virtual_addr addr="%VIP%"
                          netmask="255.255.255.0"/>
            <virtual_addr addr="fd00::100"/>
          </virtual_interface>
        </interface>
        <interface name="eth1">
          <virtual_interface type="vmac_directed">
            <virtual_addr addr="192.168.7.100"/>
          </virtual_interface>
        </interface>
      </interface_list>
      <loadbalancing_list>
        <group name="Web">
          <cluster>
            <host name="web1" power="2"/>
            <host name="web2"/>
          </cluster>
          <rule port="80" proto="tcp" filter="on_port"/>
          <rule port="8000-8099" proto="tcp" filter="on_addr"/>
          <rule virtual_addr="192.168.7.100" proto="arp" filter="on_addr"/>
        </group>
        <group name="Other">
          <rule virtual_addr="%VIP%" port="53" proto="udp" filter="on_ipid"/>
          <rule proto="icmp" filter="on_addr"/>
        </group>
      </loadbalancing_list>
    </vip>
    <user nicestoptimeout="2m">
      <var name="PORT" value="80"/>
      <var name="SITE" value="100%% of %VIP%"/>
    </user>
  </service>
</safe>
`;

export const cluster = config(parseClusterConfig(clusterXml));

export function parseModule(
  xml: string,
  env: Readonly<Record<string, string>> = {},
): Parsed<ModuleConfig> {
  return parseModuleConfig(xml, { name: 'web', cluster, env });
}

/** The configuration, which must be there. */
export function config<T>(parsed: Parsed<T>): T {
  assert.deepEqual(lines(parsed.errors), []);
  assert.ok(parsed.config !== null);
  return parsed.config;
}

export function lines(errors: readonly HoldfastError[]): string[] {
  return errors.map((error) => error.line());
}

/** A text with one part replaced; that part must be there. */
export function edited(xml: string, ...edits: readonly (readonly [string, string])[]): string {
  return edits.reduce((text, [from, to]) => {
    assert.ok(text.includes(from), `nothing to replace: ${from}`);
    return text.replace(from, () => to);
  }, xml);
}

/** "CODE:line" of each. */
export function places(errors: readonly HoldfastError[]): string[] {
  return errors.map((error) => `${error.code.slice('HF-CONFIG-'.length)}:${error.place?.line}`);
}

export type { ClusterConfig };
