import { type Case, one } from './case.ts';

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

/** Puts an `<arbiter>` on line 17. */
const arbiter = (attributes: string): readonly [string, string] => [
  '  </lans>\n',
  `  </lans>\n<arbiter ${attributes}/>`,
];
const etcd = (attributes: string) => arbiter(`type="etcd" endpoints=${attributes}`);

/** Mistakes in clusterXml of the fixtures. */
export const clusterCases: readonly Case[] = [
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
  // The arbiter.
  one('013:17', /<arbiter> needs the attribute "type"/, arbiter('')),
  one('015:17', /type="ping" of <arbiter>: not one of operator/, arbiter('type="ping"')),
  one('130:17', /"witness"> needs the attribute "addr"/, arbiter('type="witness" name="w"')),
  one('130:17 130:17', /"name"[^]*"addr"/, arbiter('type="witness"')),
  one('130:17', /type="directory"> needs the attribute "path"/, arbiter('type="directory"')),
  one('130:17', /type="static"> needs the attribute "node"/, arbiter('type="static"')),
  one('130:17', /type="etcd"> needs the attribute "endpoints"/, arbiter('type="etcd"')),
  one('130:17', /type="etcd"> needs the attribute "key"/, etcd('"http://10.0.0.1" cert="/c"')),
  one(
    '131:18',
    /"path" is not for <arbiter type="operator">/,
    arbiter('type="operator"\npath="/"'),
  ),
  one('131:17', /"port" is not for/, arbiter('type="static" node="web1" port="9530"')),
  one('132:17', /endpoints="http:\/\/etcd:2379"/, etcd('"http://10.0.0.1 http://etcd:2379"')),
  one('132:17', /endpoints="10.0.0.1:2379"/, etcd('"10.0.0.1:2379"')),
  one('132:17', /endpoints="http:\/\/10.0.0.1:70000"/, etcd('"http://10.0.0.1:70000"')),
  one('132:17', /endpoints="http:\/\/10.0.0.1 http/, etcd('"http://10.0.0.1 http://10.0.0.1"')),
  one('132:17', /prefix="mirrors"/, etcd('"http://10.0.0.1" prefix="mirrors"')),
  one('133:17', /path="shared\/dir"/, arbiter('type="directory" path="shared/dir"')),
  one('133:17', /path="\/a\/..\/b"/, arbiter('type="directory" path="/a/../b"')),
  one('134:17', /node "web9" of <arbiter>/, arbiter('type="static" node="web9"')),
  one('137:17', /is for two nodes, and this file has 3/, arbiter('type="fence" path="/etc/f"')),
  one(
    '135:17',
    /witness "WEB1" has the name/,
    arbiter('type="witness" name="WEB1" addr="10.0.0.9"'),
  ),
  one(
    '030:17',
    /addr="w.example" of <arbiter>/,
    arbiter('type="witness" name="w" addr="w.example"'),
  ),
  one('011:18', /there can be only one/, arbiter('type="operator"/>\n<arbiter type="operator"')),
];
