/** One mistake each: the code, the line, and no second error for the same mistake. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errorRegistry } from '../../src/errors.ts';
import { parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import { cluster, clusterXml, edited, lines, moduleXml, parseModule, places } from './fixtures.ts';

interface Case {
  /** "CODE:line", several where one edit makes several mistakes. */
  readonly at: readonly string[];
  readonly says: RegExp;
  readonly edits: readonly (readonly [string, string])[];
}

function one(at: string, says: RegExp, ...edits: readonly (readonly [string, string])[]): Case {
  return { at: at.split(' '), says, edits };
}

const tried = new Set<string>();

function check(
  parsed: ReturnType<typeof parseModule> | ReturnType<typeof parseClusterConfig>,
  c: Case,
) {
  assert.deepEqual(places(parsed.errors), c.at, lines(parsed.errors).join('\n'));
  assert.equal(parsed.config, null);
  const said = lines(parsed.errors).join('\n');
  assert.match(said, c.says);
  assert.doesNotMatch(
    said + parsed.errors.map((e) => e.hint).join('\n'),
    /\{\w+\}/,
    'a placeholder is left',
  );
  for (const error of parsed.errors) tried.add(error.code);
}

const first = '<node name="web1" addr="10.0.0.1"/>';
const second = '<node name="web2" addr="10.0.0.2"/>';
const third = '      <node name="web3" addr="10.0.0.3"/>\n';
const lanLine = '<lan name="private">';
const manyNodes = Array.from(
  { length: 62 },
  (_, i) => `<node name="n${i}" addr="10.0.1.${i + 1}"/>`,
).join('');
const manyLans = Array.from(
  { length: 7 },
  (_, i) =>
    `<lan name="l${i}"><node name="web1" addr="10.${i + 1}.0.1"/><node name="web2" addr="10.${i + 1}.0.2"/><node name="web3" addr="10.${i + 1}.0.3"/></lan>`,
).join('\n');

const clusterCases: readonly Case[] = [
  // The form.
  one('005:16', /Opening and ending tag mismatch/, ['</lans>\n', '']),
  one('005:7', /Attribute addr redefined/, [
    first,
    '<node name="web1" addr="10.0.0.1" addr="10.0.0.9"/>',
  ]),
  one('006:3', /document type/, [
    '<cluster>',
    '<!DOCTYPE cluster SYSTEM "file:///etc/passwd"><cluster>',
  ]),
  one('006:3', /document type/, ['<cluster>', '<!DOCTYPE c [<!ENTITY a "b">]>\n<cluster>']),
  one('007:7', /deeper than 32/, [first, `${'<node>'.repeat(40)}${'</node>'.repeat(40)}`]),
  one('008:7', /more than 5000/, [first, '<node/>'.repeat(5001)]),
  one(
    '009:3',
    /root element is <clusters>, expected <cluster>/,
    ['<cluster>', '<clusters>'],
    ['</cluster>', '</clusters>'],
  ),
  one('026:3', /namespaces are not used here/, ['<cluster>', '<cluster xmlns="urn:x">']),
  one('026:7', /<x:node>/, [first, '<x:node xmlns:x="urn:x"/>']),
  one('010:7', /unknown element <nod> in <lan>; did you mean "node"\?/, [first, '<nod/>']),
  one('010:7 010:8', /<host>[^]*<nood>/, [first, '<host/>'], [second, '<nood/>']),
  one('011:17', /there can be only one, and one is on line 4/, [
    '  </lans>\n',
    '  </lans>\n<lans/>',
  ]),
  one('012:4', /unknown attribute "puls" of <lans>; did you mean "pulse"\?/, ['pulse', 'puls']),
  one('012:5', /unknown attribute "slost" of <lans>/, ['slost_count', 'slost']),
  one('012:7', /"adress" of <node>; did you mean "addr"\?/, [
    'addr="10.0.0.1"',
    'adress="10.0.0.1"',
  ]),
  one('013:8', /<node> needs the attribute "addr"/, [' addr="10.0.0.2"', '']),
  one('013:11', /<lan> needs the attribute "name"/, [lanLine, '<lan>']),
  one('014:11', /<lan> needs <node>/, [lanLine, '<lan name="x"></lan>\n<lan name="private">']),
  one('015:6', /command="yes" of <lan>: not one of on or off/, ['command="on"', 'command="yes"']),
  one('016:4', /port="0" of <lans>: expected a whole number from 1 to 65535/, [
    'port="4800"',
    'port="0"',
  ]),
  one('016:4', /port="65536"/, ['port="4800"', 'port="65536"']),
  one('016:5', /slost_count="many" of <lans>: expected a whole number/, ['"4"', '"many"']),
  one('016:4', /pulse="50 ms" of <lans>: expected a whole number with the unit/, [
    '"50ms"',
    '"50 ms"',
  ]),
  one('016:6', /name="of fice" of <lan>: expected a name/, ['name="office"', 'name="of fice"']),
  one('017:4', /unit us is smaller than the unit of this attribute, ms/, ['"50ms"', '"50000us"']),
  one(
    '018:5',
    /longer than 365 days/,
    ['slost_count="4"', 'agent_deadline="366d"'],
    ['pulse="50ms"', 'pulse="50ms" slost_count="4"'],
  ),
  one('019:7', /text is not allowed in <node>/, [
    first,
    '<node name="web1" addr="10.0.0.1">x</node>',
  ]),
  // The meaning.
  one('030:7', /addr="www.example.org" of <node> is not an IP address/, [
    '10.0.0.1',
    'www.example.org',
  ]),
  one('030:8', /addr="10.0.0.256"/, ['10.0.0.2', '10.0.0.256']),
  one('030:12', /addr="fe80::1%eth0"/, ['"fd00::1"', '"fe80::1%eth0"']),
  one('031:12', /link-local/, ['"fd00::1"', '"fe80::1"']),
  one('031:7', /multicast/, ['10.0.0.1', '224.0.0.1']),
  one('031:7', /unspecified/, ['10.0.0.1', '0.0.0.0']),
  one('032:9', /node "web2" appears twice in lan "office", first on line 8/, [
    third,
    '<node name="web2" addr="10.0.0.9"/>\n<node name="web3" addr="10.0.0.3"/>\n',
  ]),
  one('033:11', /lan "office" is defined twice, first on line 6/, [
    'name="private"',
    'name="office"',
  ]),
  one('034:8', /address 10.0.0.1 is already that of node "web1" on line 7/, [
    '10.0.0.2',
    '10.0.0.1',
  ]),
  one('034:13', /fd00::1 is already that of node "web1"/, ['"fd00::2"', '"fd00:0::1"']),
  one(
    '035:4',
    /no lan holds all nodes: the fullest lacks web3/,
    [third, ''],
    ['      <node name="web1" addr="fd00::1"/>\n', ''],
    [' command="on"', ''],
  ),
  one('036:11', /lan "private" holds only node "web1"/, [
    '      <node name="web2" addr="fd00::2"/>\n      <node name="web3" addr="[FD00::3]"/>\n',
    '',
  ]),
  one('038:11', /lan "private" and lan "office" both have command="on"/, [
    lanLine,
    '<lan name="private" command="on">',
  ]),
  one('039:6', /lan "office" has command="on" and does not hold web3/, [third, '']),
  one('040:10', /more than 64 nodes/, ['    </lan>\n', `${manyNodes}</lan>\n`]),
  one('041:22', /more than 8 lans/, ['  </lans>', `${manyLans}\n  </lans>`]),
  one('042:4', /pulse="9ms" is outside/, ['"50ms"', '"9ms"']),
  one('042:4', /pulse="11s" is outside/, ['"50ms"', '"11s"']),
  one('043:5', /slost_count="1" is outside 2 to 1000/, ['"4"', '"1"']),
  one('043:5', /slost_count="1001"/, ['"4"', '"1001"']),
  one('044:4', /lease 200 ms is not shorter than pulse × slost_count = 200 ms/, [
    '"50ms"',
    '"50ms" lease="200ms"',
  ]),
  one('045:4', /lease 60 ms is shorter than 1.5 × pulse = 75 ms/, [
    '"50ms"',
    '"50ms" lease="60ms"',
  ]),
  one('046:4', /agent_deadline="100" is outside/, ['"50ms"', '"50ms" agent_deadline="100"']),
  one('046:4', /agent_deadline="11m" is outside/, ['"50ms"', '"50ms" agent_deadline="11m"']),
  one('047:8', /node "web2" is IPv6; lan "office" began with IPv4/, ['10.0.0.2', 'fd01::2']),
  one('047:8', /laddr="fd01::2"/, ['addr="10.0.0.2"', 'addr="10.0.0.2" laddr="fd01::2"']),
  one('050:5', /longer than 5 minutes/, ['"50ms"', '"10s"'], ['"4"', '"31"']),
  one('051:13', /"Web2" and "web2" of nodes differ only/, [
    '<node name="web2" addr="fd00::2"/>',
    '<node name="Web2" addr="fd00::2"/>',
  ]),
  one('051:11', /"OFFICE" and "office" of lans differ only/, ['name="private"', 'name="OFFICE"']),
];

const rule80 = '<rule port="80" proto="tcp" filter="on_port"/>';
const arp = '<rule virtual_addr="192.168.7.100" proto="arp" filter="on_addr"/>';
const icmp = '<rule proto="icmp" filter="on_addr"/>';
const ready = '<ready kind="http" port="80" path="/health"/>';
const invisible = '<virtual_interface type="vmac_invisible">';
const directed = '<virtual_interface type="vmac_directed">';
const v6 = '<virtual_addr addr="fd00::100"/>';
const v7 = '<virtual_addr addr="192.168.7.100"/>';
const variable = '<var name="PORT" value="80"/>';
const end = '    </user>\n';
const many = (count: number, item: (n: number) => string) =>
  Array.from({ length: count }, (_, n) => item(n)).join('');
const proc = (attributes: string) => `${end}<errd><proc name="nginx" ${attributes}/></errd>\n`;
const checks = (xml: string) => `${end}<check>\n${xml}</check>\n`;

const moduleCases: readonly Case[] = [
  // The form.
  one('010:27', /unknown element <hosts> in <cluster>; did you mean "host"\?/, [
    '<host name="web1" power="2"/>',
    '<hosts/>',
  ]),
  one(
    '010:5',
    /unknown element <farms> in <service>; did you mean "farm"\?/,
    ['<farm>', '<farms>'],
    ['</farm>', '</farms>'],
  ),
  one('011:8', /one is on line 7/, [ready, `${ready}\n<ready port="81"/>`]),
  one('011:10', /there can be only one/, ['<farm>', '<vip/>\n<farm>'], ['</farm>', '</farm>']),
  one('011:26', /the order is <cluster>, <rule>/, [
    '<cluster>',
    '<rule port="79" proto="tcp" filter="on_port"/><cluster>',
  ]),
  one('012:13', /unknown attribute "adress" of <virtual_addr>; did you mean "addr"\?/, [
    '<virtual_addr addr="%VIP%"',
    '<virtual_addr adress="%VIP%"',
  ]),
  one('012:14', /unknown attribute "netmsk" of <virtual_addr>; did you mean "netmask"\?/, [
    'netmask',
    'netmsk',
  ]),
  one('012:4', /unknown attribute "maxlop"/, ['maxloop', 'maxlop']),
  one('013:4', /<service> needs the attribute "mode"/, ['mode="farm" ', '']),
  one('013:30', /<rule> needs the attribute "proto"/, [
    rule80,
    '<rule port="80" filter="on_port"/>',
  ]),
  one('013:19', /<virtual_interface> needs the attribute "type"/, [
    directed,
    '<virtual_interface>',
  ]),
  one('014:25', /<group> needs <rule>/, [
    '<group name="Web">',
    '<group name="Empty"></group><group name="Web">',
  ]),
  one('014:2', /<safe> needs <service>/, [
    moduleXml.slice(moduleXml.indexOf('  <macro'), moduleXml.indexOf('</safe>')),
    '',
  ]),
  one('015:4', /mode="frm" of <service>: not one of mirror, farm or light; did you mean "farm"\?/, [
    'mode="farm"',
    'mode="frm"',
  ]),
  one(
    '015:30',
    /filter="onport" of <rule>: not one of on_addr, on_port or on_ipid; did you mean "on_port"\?/,
    [rule80, '<rule port="80" proto="tcp" filter="onport"/>'],
  ),
  one('015:30', /proto="sctp" of <rule>: not one of tcp, udp, arp or icmp/, [
    rule80,
    '<rule port="80" proto="sctp" filter="on_port"/>',
  ]),
  one('016:27', /power="-1" of <host>: expected a whole number from 0 to 16777216/, [
    'power="2"',
    'power="-1"',
  ]),
  one('016:27', /power="16777217"/, ['power="2"', 'power="16777217"']),
  one('016:27', /power="1.5"/, ['power="2"', 'power="1.5"']),
  one('016:30', /port="80,81" of <rule>: expected a port, a range/, [
    'port="80" proto',
    'port="80,81" proto',
  ]),
  one('016:12', /addr="5a:fe:0" of <virtual_interface>: expected six hexadecimal pairs/, [
    invisible,
    '<virtual_interface type="vmac_invisible" addr="5a:fe:0">',
  ]),
  one('016:41', /name="A-B" of <var>: expected a name/, ['name="PORT"', 'name="A-B"']),
  one('016:11', /name="eth 0" of <interface>: expected the name of a network device/, [
    '"eth0"',
    '"eth 0"',
  ]),
  one('017:40', /nicestoptimeout="500ms" of <user>: the unit ms is smaller/, ['"2m"', '"500ms"']),
  one(
    '017:4',
    /loop_interval="30m" of <service>: the unit m is smaller than the unit of this attribute, h/,
    ['maxloop="3"', 'loop_interval="30m"'],
  ),
  one('018:4', /boot_delay="400d" of <service>: longer than 365 days/, [
    'maxloop="3"',
    'boot_delay="400d"',
  ]),
  one('021:13', /unknown macro %VPI%; did you mean "VIP"\?/, ['addr="%VIP%"', 'addr="%VPI%"']),
  one('022:4', /macro "VIP" is defined twice, first on line 3/, [
    '<service',
    '<macro name="VIP" value="x"/><service',
  ]),
  one(
    '023:13',
    /macro %VIP% refers to itself/,
    ['value="10.0.0.100"', 'value="%VIP%"'],
    ['virtual_addr="%VIP%"', 'virtual_addr="*" '],
    [' of %VIP%', ''],
  ),
  one(
    '024:42',
    /longer than 4096 characters/,
    ['<service', `<macro name="A" value="${'x'.repeat(3000)}"/><service`],
    ['100%% of %VIP%', '%A%%A%'],
  ),
  one('024:3', /longer than 4096 characters/, [
    '"10.0.0.100"',
    `"10.0.0.100"/><macro name="A" value="${'x'.repeat(5000)}"`,
  ]),
  one('025:3', /value of macro %X% has more than one line/, [
    '<macro',
    '<macro name="X" value="a&#10;b"/><macro',
  ]),
  one('019:5', /text is not allowed in <farm>/, ['<farm>', '<farm>port 80']),
  // The module.
  one('060:4', /mode="mirror" is not in this version/, ['mode="farm"', 'mode="mirror"']),
  one('061:40', /<heart> belongs to mode="mirror", this module is mode="farm"/, [
    '<user ',
    '<heart><heartbeat name="office"/></heart><user ',
  ]),
  one('061:40', /<rfs> belongs to mode="mirror"/, [
    '<user ',
    '<rfs><replicated dir="/data"/></rfs><user ',
  ]),
  one('061:45', /<splitbrain> belongs to mode="mirror"/, [
    end,
    checks('<splitbrain ident="w" arg="10.0.0.9"/>'),
  ]),
  one('061:5 101:9', /<farm> belongs to mode="farm", this module is mode="light"/, [
    'mode="farm"',
    'mode="light"',
  ]),
  one('064:6', /no lan "ofice" in cluster.xml; did you mean "office"\?/, [
    'name="office"',
    'name="ofice"',
  ]),
  one('066:40', /<errd> needs <user>/, [
    moduleXml.slice(moduleXml.indexOf('<user'), moduleXml.indexOf('  </service>')),
    '<errd><proc name="nginx"/></errd>\n',
  ]),
  one('068:7', /<lan> "office" is defined twice, first on line 6/, [
    '<lan name="office"/>',
    '<lan name="office"/>\n<lan name="office"/>',
  ]),
  one('068:34', /<group> "Web" is defined twice, first on line 25/, ['name="Other"', 'name="Web"']),
  one('068:28', /<host> "web1" is defined twice, first on line 27/, ['name="web2"', 'name="web1"']),
  one('068:42', /<var> "PORT" is defined twice/, ['name="SITE"', 'name="PORT"']),
  one('068:46', /<tcp> "a" is defined twice, first on line 45/, [
    end,
    checks('<tcp ident="a"><to port="80"/></tcp>\n<tcp ident="a"><to port="81"/></tcp>'),
  ]),
  one('069:41', /variable "SAFEMODULE" cannot be set/, ['name="PORT"', 'name="SAFEMODULE"']),
  one('069:41', /variable "LD_PRELOAD" cannot be set/, ['name="PORT"', 'name="LD_PRELOAD"']),
  one('070:7', /path="..\/ready" of <ready> leaves the folder bin/, [
    ready,
    '<ready kind="script" path="../ready"/>',
  ]),
  one('070:7', /path="\/bin\/true" of <ready>/, [ready, '<ready kind="script" path="/bin/true"/>']),
  one('070:45', /exec="a\/..\/..\/b" of <custom>/, [
    end,
    checks('<custom ident="c" exec="a/../../b"/>'),
  ]),
  one('070:44', /action="\/sbin\/reboot" of <proc>/, [end, proc('action="/sbin/reboot"')]),
  one('071:7', /<ready kind="tcp"> needs the attribute "port"/, [ready, '<ready/>']),
  one('071:7', /<ready kind="script"> needs the attribute "path"/, [
    ready,
    '<ready kind="script"/>',
  ]),
  one('072:7', /interval="10ms" of <ready> is outside 100ms to 1h/, [
    ready,
    '<ready port="80" interval="10ms"/>',
  ]),
  one('072:7', /timeout="11m" of <ready> is outside 10ms to 10m/, [
    ready,
    '<ready port="80" timeout="11m"/>',
  ]),
  one('072:40', /nicestoptimeout="0" of <user>/, ['"2m"', '"0"']),
  one('072:45', /interval="0s" of <to>/, [
    end,
    checks('<ping ident="p"><to addr="10.0.0.9" interval="0s"/></ping>'),
  ]),
  one('073:7', /path="health" of <ready kind="http"> must begin/, ['/health', 'health']),
  one('075:45', /when="prim" of <tcp> has no meaning in mode="farm"/, [
    end,
    checks('<tcp ident="a" when="prim"><to port="80"/></tcp>'),
  ]),
  one('079:44', /"\(" is not a regular expression/, [end, proc('argregex="("')]),
  // Virtual IPs.
  one('030:15', /addr="www" of <virtual_addr> is not an IP address/, [
    v6,
    '<virtual_addr addr="www"/>',
  ]),
  one('031:15', /multicast/, [v6, '<virtual_addr addr="ff02::1"/>']),
  one('080:15', /virtual IP 10.0.0.100 is defined twice, first on line 13/, [
    v6,
    '<virtual_addr addr="10.0.0.100"/>',
  ]),
  one('081:15', /virtual IP fd00::3 is the address of node "web3"/, [
    v6,
    '<virtual_addr addr="fd00:0::3"/>',
  ]),
  one('082:14', /netmask="255.0.255.0" is not a mask/, ['255.255.255.0', '255.0.255.0']),
  one('082:15', /netmask="255.255.0.0" is not a mask or prefix length for fd00::100/, [
    v6,
    '<virtual_addr addr="fd00::100" netmask="255.255.0.0"/>',
  ]),
  one(
    '083:20',
    /192.168.7.255 is the broadcast address/,
    [v7, '<virtual_addr addr="192.168.7.255" netmask="24"/>'],
    [arp, ''],
  ),
  one('084:15', /where="one_side_alias" of fd00::100/, [
    v6,
    '<virtual_addr addr="fd00::100" where="one_side_alias"/>',
  ]),
  one('085:18', /<real_interface> is for a mirror/, [
    '<interface name="eth1">',
    '<interface name="eth1"><real_interface><virtual_addr addr="10.0.0.7"/></real_interface>',
  ]),
  one('086:12', /locally administered/, [
    invisible,
    '<virtual_interface type="vmac_invisible" addr="00:16:3e:00:00:01">',
  ]),
  one('086:12', /broadcast/, [
    invisible,
    '<virtual_interface type="vmac_invisible" addr="ff:ff:ff:ff:ff:ff">',
  ]),
  one('087:19', /no meaning/, [
    directed,
    '<virtual_interface type="vmac_directed" addr="5a:fe:00:00:00:01">',
  ]),
  one('089:9', /more than 32 virtual IPs/, [
    v6,
    many(33, (n) => `<virtual_addr addr="fd00::${n + 1000}"/>`),
  ]),
  one('089:35', /more than 16 groups/, [
    '<group name="Other">',
    `${many(15, (n) => `<group name="g${n}"><rule port="${n + 1}" proto="tcp" filter="on_addr"/></group>`)}\n<group name="Other">`,
  ]),
  one('089:35', /more than 64 rules/, [
    rule80,
    many(62, (n) => `<rule port="${n + 100}" proto="tcp" filter="on_port"/>`),
  ]),
  one('090:28', /no node "web22" in cluster.xml; did you mean "web2"\?/, [
    'name="web2"',
    'name="web22"',
  ]),
  one(
    '091:26',
    /all powers of group "Web" are 0/,
    ['power="2"', 'power="0"'],
    ['<host name="web2"/>', ''],
  ),
  one('092:30', /virtual_addr="10.0.0.9" of <rule> is not a virtual IP of this module/, [
    rule80,
    '<rule virtual_addr="10.0.0.9" port="80" proto="tcp" filter="on_port"/>',
  ]),
  one('093:30', /port="0" of <rule>: ports are from 1 to 65535/, [
    'port="80" proto',
    'port="0" proto',
  ]),
  one('093:31', /port="8099-8000" of <rule>: the range ends before it begins/, [
    '8000-8099',
    '8099-8000',
  ]),
  one('093:30', /port="99999"/, ['port="80" proto', 'port="99999" proto']),
  one('094:36', /port="7" of <rule proto="icmp">/, [
    icmp,
    '<rule port="7" proto="icmp" filter="on_addr"/>',
  ]),
  one('095:32', /<rule proto="arp"> needs a virtual IP with type="vmac_directed"/, [
    arp,
    '<rule virtual_addr="%VIP%" proto="arp" filter="on_addr"/>',
  ]),
  one('096:32', /filter="on_port" does not go with proto="arp"/, [
    arp,
    arp.replace('on_addr', 'on_port'),
  ]),
  one('096:30', /filter="on_ipid" does not go with proto="tcp"/, [
    rule80,
    '<rule port="80" proto="tcp" filter="on_ipid"/>',
  ]),
  one('096:36', /icmp has no ports/, [icmp, '<rule proto="icmp" filter="on_port"/>']),
  one('097:35', /filter="on_ipid" with the IPv6 virtual IP fd00::100/, [
    'virtual_addr="%VIP%" port="53"',
    'port="53"',
  ]),
  one('098:31', /overlaps the one on line 30/, ['8000-8099', '80-90']),
  one('098:36', /overlaps the one on line 31/, [
    icmp,
    '<rule port="8050" proto="tcp" filter="on_addr"/>',
  ]),
  one(
    '098:36',
    /overlaps the one on line 30/,
    [icmp, '<rule virtual_addr="%VIP%" proto="tcp" filter="on_port"/>'],
    ['8000-8099', '70-79'],
  ),
  one(
    '102:9',
    /has no <virtual_interface>/,
    [
      moduleXml.slice(
        moduleXml.indexOf('      <interface_list>'),
        moduleXml.indexOf('      <loadbalancing_list>'),
      ),
      '',
    ],
    [arp, ''],
    ['virtual_addr="%VIP%" ', ''],
  ),
  one('103:18', /device "eth0" is described twice, first on line 11/, ['"eth1"', '"eth0"']),
];

describe('errors of cluster.xml', () => {
  for (const c of clusterCases) {
    it(`HF-CONFIG-${c.at.join(' ')} ${c.says.source}`, () => {
      check(parseClusterConfig(edited(clusterXml, ...c.edits)), c);
    });
  }
});

describe('errors of userconfig.xml', () => {
  for (const c of moduleCases) {
    it(`HF-CONFIG-${c.at.join(' ')} ${c.says.source}`, () => {
      check(parseModule(edited(moduleXml, ...c.edits)), c);
    });
  }
});

describe('errors of any file', () => {
  const codes = (xml: string) => places(parseModule(xml).errors);

  it('name an empty file', () => {
    for (const xml of ['', '  \n', '\ufeff']) assert.deepEqual(codes(xml), ['004:1']);
    tried.add('HF-CONFIG-004');
  });
  it('name a file that is too large', () => {
    assert.deepEqual(codes(`<safe>${' '.repeat(1024 * 1024)}</safe>`), ['002:1']);
    tried.add('HF-CONFIG-002');
  });
  it('name a bad module name', () => {
    for (const name of ['', '../x', 'a b', 'x'.repeat(33), '.hidden', 'a/b']) {
      const parsed = parseModuleConfig(moduleXml, { name, cluster });
      assert.deepEqual(places(parsed.errors), ['062:1'], name);
    }
    tried.add('HF-CONFIG-062');
  });
  it('are all shown, by line', () => {
    const xml = edited(
      moduleXml,
      ['maxloop="3"', 'maxloop="x"'],
      ['name="office"', 'name="nowhere"'],
      [v6, '<virtual_addr addr="10.0.0.1"/>'],
      ['name="web2"', 'name="web9"'],
      ['8000-8099', '9-1'],
    );
    assert.deepEqual(codes(xml), ['016:4', '064:6', '081:15', '090:28', '093:31']);
  });
  it('end after 50, and say so', () => {
    const xml = edited(moduleXml, [variable, many(80, () => '<var name="A-B" value=""/>\n')]);
    const all = codes(xml);
    assert.equal(all.length, 51);
    assert.equal(all.at(-1), '028:90');
    tried.add('HF-CONFIG-028');
  });
  it('keep control characters of the file off the terminal', () => {
    const [error] = parseModule(edited(moduleXml, ['mode="farm"', 'mode="fa&#9;\u009brm"'])).errors;
    assert.equal(error?.code, 'HF-CONFIG-015');
    assert.match(error?.line() ?? '', /mode="fa rm"/);
  });
  it('never come from an entity or from another file', () => {
    const xml = '<!DOCTYPE safe [<!ENTITY x SYSTEM "file:///etc/hostname">]><safe>&x;</safe>';
    assert.deepEqual(codes(xml), ['006:1']);
    assert.deepEqual(codes('<safe>&x;</safe>'), ['005:1']);
    const bomb = `${many(15, (n) => `<macro name="m${n}" value="${`%m${n + 1}%`.repeat(500)}"/>`)}<macro name="m15" value=""/>`;
    const parsed = parseModule(
      edited(moduleXml, ['<service', `${bomb}<service`], ['value="80"', 'value="%m0%"']),
    );
    assert.deepEqual(places(parsed.errors), []);
  });
});

describe('the registry of configuration errors', () => {
  it('holds nothing that is never said', () => {
    const elsewhere = new Set(['001', '003', '020', '027', '078']);
    const warnings = new Set([
      '037',
      '048',
      '049',
      '063',
      '065',
      '067',
      '074',
      '076',
      '077',
      '099',
      '100',
    ]);
    const untried = Object.keys(errorRegistry)
      .filter((code) => code.startsWith('HF-CONFIG-') && !tried.has(code))
      .map((code) => code.slice(-3))
      .filter((number) => !elsewhere.has(number) && !warnings.has(number));
    assert.deepEqual(untried, []);
  });
});
