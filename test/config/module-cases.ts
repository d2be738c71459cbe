import { type Case, one } from './case.ts';
import { moduleXml } from './fixtures.ts';

const rule80 = '<rule port="80" proto="tcp" filter="on_port"/>';
const arp = '<rule virtual_addr="192.168.7.100" proto="arp" filter="on_addr"/>';
const icmp = '<rule proto="icmp" filter="on_addr"/>';
const ready = '<ready kind="http" port="80" path="/health"/>';
const invisible = '<virtual_interface type="vmac_invisible">';
const directed = '<virtual_interface type="vmac_directed">';
const v6 = '<virtual_addr addr="fd00::100"/>';
const v7 = '<virtual_addr addr="192.168.7.100"/>';
const end = '    </user>\n';
export const many = (count: number, item: (n: number) => string) =>
  Array.from({ length: count }, (_, n) => item(n)).join('');
const proc = (attributes: string) => `${end}<errd><proc name="nginx" ${attributes}/></errd>\n`;
const checks = (xml: string) => `${end}<check>\n${xml}</check>\n`;

/** Mistakes in moduleXml of the fixtures. */
export const moduleCases: readonly Case[] = [
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
  one(
    '110:4 110:4 061:5 106:12 106:19 105:24',
    /<farm> belongs to mode="farm", this module is mode="mirror"/,
    ['mode="farm"', 'mode="mirror"'],
  ),
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
