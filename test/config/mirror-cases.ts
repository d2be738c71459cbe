import { type Case, one } from './case.ts';
import { many } from './module-cases.ts';

export const mirrorClusterXml = `<cluster>
  <lans>
    <lan name="office">
      <node name="db1" addr="10.0.0.1"/>
      <node name="db2" addr="10.0.0.2"/>
      <node name="web1" addr="10.0.0.3"/>
    </lan>
    <lan name="private">
      <node name="db1" addr="192.168.7.1"/>
      <node name="db2" addr="192.168.7.2"/>
    </lan>
  </lans>
</cluster>
`;

/** One list counts for all directories, so both have it. */
const rules =
  '<notreplicated path="tmp/cache/"/><notreplicated regexpath="\\.(bak|old)$"/>' +
  '<notreplicated regexpath="!base/.*"/>';
/** The second directory; without it, the first can be edited alone. */
export const confXml = `<replicated dir="/srv/conf">${rules}</replicated>`;

/** The lines of this file are what the table below refers to. */
export const mirrorXml = `<?xml version="1.0" encoding="UTF-8"?>
<safe>
  <service mode="mirror">
    <heart pulse="700" timeout="30000">
      <heartbeat name="office"/>
      <heartbeat name="private" ident="flow" pulse="100ms" timeout="2s"/>
    </heart>
    <rfs async="second" ack="strict" ring="16m"
         journal="1g" sendtimeout="10" locktimeout="1m">
      <replicated dir="/srv/data/" mode="read_only">
        <notreplicated path="tmp/cache/"/>
        <notreplicated regexpath="\\.(bak|old)$"/>
        <notreplicated regexpath="!base/.*"/>
        <tocheck path="base"/>
      </replicated>
      ${confXml}
    </rfs>
    <user/>
  </service>
</safe>
`;

const path = '<notreplicated path="tmp/cache/"/>';
const regex = '<notreplicated regexpath="\\.(bak|old)$"/>';
const check = '<tocheck path="base"/>';
const conf = '<replicated dir="/srv/conf">';
const single = [confXml, ''] as const;
const dir = (value: string) => ['"/srv/conf"', `"${value}"`] as const;
const ere = (value: string) => [single, [regex, `<notreplicated regexpath="${value}"/>`]] as const;

const distant = (...cases: readonly (readonly [string, RegExp, string])[]) =>
  cases.map(([at, says, attributes]) => one(at, says, [conf, `<distant ${attributes}/>${conf}`]));

const addr = (value: string, attributes = '') => `<virtual_addr addr="${value}" ${attributes}/>`;
/** Puts a `<vip>` on line 18. */
const vip = (content: string): readonly [string, string] => [
  '<user/>',
  `<vip><interface_list><interface>${content}</interface></interface_list></vip><user/>`,
];
const real = (addrs: string) => vip(`<real_interface>${addrs}</real_interface>`);

/** Mistakes in mirrorXml. */
export const mirrorCases: readonly Case[] = [
  // Virtual IPs.
  one('108:18', /has no <real_interface>/, ['<user/>', '<vip/><user/>']),
  one('108:18', /has no <real_interface>/, vip('')),
  one(
    '106:18',
    /<virtual_interface> is for a farm/,
    vip(`<virtual_interface type="vmac_directed">${addr('10.0.0.100')}</virtual_interface>`),
  ),
  one('107:18', /"alias" of 10.0.0.100: in a mirror/, real(addr('10.0.0.100', 'where="alias"'))),
  one('105:18', /<loadbalancing_list> in mode="mirror"/, real(addr('10.0.0.100')), [
    '</vip>',
    '<loadbalancing_list><group name="g"><rule port="80" proto="tcp" filter="on_addr"/></group></loadbalancing_list></vip>',
  ]),
  one('080:18', /10.0.0.100/, real(addr('10.0.0.100') + addr('10.0.0.100'))),
  one('081:18', /10.0.0.2.*db2/, real(addr('10.0.0.2'))),
  one('083:18', /10.0.0.255/, real(addr('10.0.0.255', 'netmask="24"'))),
  // Names and forms.
  one('012:8', /unknown attribute "asinc" of <rfs>; did you mean "async"\?/, ['async=', 'asinc=']),
  one('012:9', /unknown attribute "journalsize" of <rfs>; did you mean "journal"\?/, [
    'journal=',
    'journalsize=',
  ]),
  one('012:9', /unknown attribute "locktimout" of <rfs>; did you mean "locktimeout"\?/, [
    'locktimeout',
    'locktimout',
  ]),
  one('012:10', /unknown attribute "directory" of <replicated>/, [
    'mode="read_only"',
    'directory="/x"',
  ]),
  one('012:11', /unknown attribute "pth" of <notreplicated>; did you mean "path"\?/, single, [
    path,
    '<notreplicated pth="x"/>',
  ]),
  one('012:6', /unknown attribute "idnt" of <heartbeat>; did you mean "ident"\?/, [
    'ident="flow"',
    'idnt="flow"',
  ]),
  one('010:14', /unknown element <tochek> in <replicated>; did you mean "tocheck"\?/, [
    check,
    '<tochek path="base"/>',
  ]),
  one('010:16', /unknown element <replicate> in <rfs>; did you mean "replicated"\?/, [
    confXml,
    '<replicate dir="/srv/conf"/>',
  ]),
  one('013:16', /<replicated> needs the attribute "dir"/, [confXml, '<replicated/>']),
  one('013:14', /<tocheck> needs the attribute "path"/, [check, '<tocheck/>']),
  one('015:8', /async="first" of <rfs>: not one of second or none/, [
    'async="second"',
    'async="first"',
  ]),
  one('015:8', /ack="all" of <rfs>: not one of fsync or strict/, ['ack="strict"', 'ack="all"']),
  one('015:10', /mode="read_write" of <replicated>/, ['"read_only"', '"read_write"']),
  one('016:8', /ring="16M" of <rfs>: expected a whole number of bytes/, ['"16m"', '"16M"']),
  one('016:9', /journal="1t"/, ['"1g"', '"1t"']),
  one('016:8', /port="65536" of <rfs>/, ['ring="16m"', 'port="65536"']),
  one('017:9', /sendtimeout="500ms" of <rfs>: the unit ms is smaller/, [
    'sendtimeout="10"',
    'sendtimeout="500ms"',
  ]),
  one('018:9', /locktimeout="400d" of <rfs>: longer than 365 days/, ['"1m"', '"400d"']),
  // Bounds.
  one('072:8', /ring="4m" of <rfs> is outside 8m to 1g/, ['"16m"', '"4m"']),
  one('072:8', /ring="2g" of <rfs> is outside 8m to 1g/, ['"16m"', '"2g"']),
  one('072:9', /journal="32m" of <rfs> is outside 64m to 64g/, ['"1g"', '"32m"']),
  one('072:9', /sendtimeout="0" of <rfs> is outside 1s to 1h/, [
    'sendtimeout="10"',
    'sendtimeout="0"',
  ]),
  one('072:9', /locktimeout="2h" of <rfs> is outside 1s to 1h/, ['"1m"', '"2h"']),
  one('072:4', /pulse="1ms" of <heart> is outside 10ms to 1m/, ['pulse="700"', 'pulse="1ms"']),
  one('072:4', /timeout="11m" of <heart> is outside 100ms to 10m/, [
    'timeout="30000"',
    'timeout="11m"',
  ]),
  // Times of detection.
  one('015:4', /timing="slow" of <heart>: not one of default, fast, vm or wan/, [
    '<heart ',
    '<heart timing="slow" ',
  ]),
  one('012:4', /unknown attribute "leese" of <heart>; did you mean "lease"\?/, [
    '<heart ',
    '<heart leese="1s" ',
  ]),
  one('072:4', /suspect="50ms" of <heart> is outside 100ms to 10m/, [
    '<heart ',
    '<heart suspect="50ms" lease="1s" ',
  ]),
  one('123:4', /suspect = 199 ms .*: pulse 50 ms × slost_count 4 = 200 ms/, [
    '<heart ',
    '<heart suspect="199ms" ',
  ]),
  one('124:4', /a lease of 1000 ms ends before the peer is suspect/, [
    '<heart ',
    '<heart lease="1s" ',
  ]),
  one('124:4', /30 ms between suspicion and the end of the lease are too few/, [
    '<heart ',
    '<heart suspect="1s" lease="1030ms" ',
  ]),
  // The health gate.
  one('071:7', /<ready kind="tcp"> needs the attribute "port"/, ['</heart>', '<ready/></heart>']),
  one('011:7', /there can be only one, and one is on line 7/, [
    '</heart>',
    '<ready port="1"/><ready port="2"/></heart>',
  ]),
  one('072:7', /start_timeout="2d" of <ready> is outside 0 to 1d/, [
    '</heart>',
    '<ready port="1" start_timeout="2d"/></heart>',
  ]),
  // Where service goes.
  one('125:3', /defaultprim="lastprime" is neither .*; did you mean "lastprim"\?/, [
    'mode="mirror"',
    'mode="mirror" defaultprim="lastprime"',
  ]),
  one('126:3', /defaultprim="web1" is not one of the two servers of the mirror/, [
    'mode="mirror"',
    'mode="mirror" defaultprim="web1"',
  ]),
  // Networks.
  one('110:3', /needs <heart>/, [
    mirrorXml.slice(mirrorXml.indexOf('    <heart '), mirrorXml.indexOf('    <rfs')),
    '',
  ]),
  one('110:3', /needs <rfs>/, [
    mirrorXml.slice(mirrorXml.indexOf('    <rfs'), mirrorXml.indexOf('    <user')),
    '',
  ]),
  one('061:18', /<farm> belongs to mode="farm", this module is mode="mirror"/, [
    '<user/>',
    '<farm/><user/>',
  ]),
  one('111:4', /timeout = 700 ms is not longer than pulse = 700 ms/, [
    'timeout="30000"',
    'timeout="700"',
  ]),
  one('111:6', /timeout = 2000 ms is not longer than pulse = 3000 ms/, ['"100ms"', '"3s"']),
  one('112:5', /<heartbeat> needs the attribute "name"/, [
    '<heartbeat name="office"/>',
    '<heartbeat><server addr="10.0.0.1"/></heartbeat>',
  ]),
  one('064:5', /no lan "ofice" in cluster.xml; did you mean "office"\?/, ['"office"', '"ofice"']),
  one('068:6', /<heartbeat> "office" is defined twice, first on line 5/, [
    'timeout="2s"/>',
    'timeout="2s"/><heartbeat name="office"/>',
  ]),
  one('117:5', /network "office", on which directories are replicated, has 3 servers, not two/, [
    'ident="flow" ',
    '',
  ]),
  one('117:16', /network "office"/, ['ident="flow" ', ''], [conf, `<flow name="office"/>${conf}`]),
  one('064:16', /no lan "nowhere"/, [conf, `<flow name="nowhere"/>${conf}`]),
  one('112:16', /<flow> needs the attribute "name"/, [conf, `<flow/>${conf}`]),
  one('011:17', /there can be only one, and one is on line 16/, [
    conf,
    `<flow name="private"/>\n<flow name="private"/>${conf}`,
  ]),
  // Distant copies.
  ...distant(
    ['121:16', /node "db2" of <distant> is one of the two servers/, 'node="db2" lan="office"'],
    [
      '122:16',
      /network "private" of <distant node="web1"> does not hold web1/,
      'node="web1" lan="private"',
    ],
    ['090:16', /no node "wob1" in cluster.xml; did you mean "web1"\?/, 'node="wob1" lan="office"'],
    ['064:16', /no lan "ofice" in cluster.xml; did you mean "office"\?/, 'node="web1" lan="ofice"'],
    ['013:16', /<distant> needs the attribute "lan"/, 'node="web1"'],
    ['012:16', /unknown attribute "nod" of <distant>/, 'nod="web1" lan="office"'],
  ),
  one('068:17', /<distant> "web1" is defined twice, first on line 16/, [
    conf,
    `${many(2, () => '<distant node="web1" lan="office"/>\n')}${conf}`,
  ]),
  one('068:17 068:18 068:19 089:20 068:20', /more than 4 distant copies in one module/, [
    conf,
    `${many(5, () => '<distant node="web1" lan="office"/>\n')}${conf}`,
  ]),
  // Directories.
  one('014:8', /<rfs> needs <replicated>/, [
    mirrorXml.slice(mirrorXml.indexOf('      <replicated'), mirrorXml.indexOf('    </rfs>')),
    '',
  ]),
  one('113:16', /dir="srv\/conf" of <replicated>: it is not an absolute path/, dir('srv/conf')),
  one('113:16', /the root of the file system cannot be replicated/, dir('/')),
  one('113:16', /it has "\/\/", "." or ".." in it/, dir('/srv//conf')),
  one('113:16', /it has "\/\/", "." or ".." in it/, dir('/srv/../conf')),
  one('113:16', /it has "\/\/", "." or ".." in it/, dir('/srv/./conf')),
  one('114:16', /dir="\/srv\/data" and "\/srv\/data" on line 10/, dir('/srv/data')),
  one('114:16', /dir="\/srv\/data\/x" and "\/srv\/data" on line 10/, dir('/srv/data/x')),
  one('114:16', /dir="\/srv" and "\/srv\/data" on line 10/, dir('/srv')),
  one('115:16', /and \/var\/lib\/holdfast, a folder of Holdfast/, dir('/var/lib/holdfast/x')),
  one('115:16', /and \/etc\/holdfast, a folder of Holdfast/, dir('/etc/holdfast')),
  one('115:16', /dir="\/var" and \/var\/lib\/holdfast/, dir('/var')),
  one('089:16', /more than 16 replicated directories/, [
    confXml,
    many(16, (n) => confXml.replace('/srv/conf', `/data/${n}`)),
  ]),
  // What is left out, what must be there.
  one('118:11', /needs either path or regexpath/, single, [path, '<notreplicated/>']),
  one('118:11', /needs either path or regexpath/, single, [
    path,
    '<notreplicated path="a" regexpath="b"/>',
  ]),
  one('119:11', /path="\/tmp" of <notreplicated> is not a path below/, single, [
    '"tmp/cache/"',
    '"/tmp"',
  ]),
  one('119:11', /path="\.\.\/x"/, single, ['"tmp/cache/"', '"../x"']),
  one('119:11', /path="a\/\.\.\/b"/, single, ['"tmp/cache/"', '"a/../b"']),
  one('119:11', /path="\."/, single, ['"tmp/cache/"', '"."']),
  one('119:14', /path="\/base" of <tocheck>/, ['path="base"', 'path="/base"']),
  one('089:10', /more than 64 <notreplicated> of \/srv\/data/, single, [
    path,
    many(63, (n) => `<notreplicated path="p${n}"/>`),
  ]),
  one('079:12', /"\(a" is not a regular expression: a "\(" is not closed/, ...ere('(a')),
  one('079:12', /a "\)" without "\("/, ...ere('a)')),
  one('079:12', /a "\[" is not closed/, ...ere('[^]a')),
  one('079:12', /nothing before "\*" to repeat/, ...ere('*a')),
  one('079:12', /nothing before "\+" to repeat/, ...ere('a|+')),
  one('079:12', /"\{3,2\}" ends before it begins/, ...ere('a{3,2}')),
  one('079:12', /more than 255 times/, ...ere('a{3,256}')),
  one('079:12', /no count and "\}"/, ...ere('a{x')),
  one('079:12', /no class "\[:letter:\]"/, ...ere('[[:letter:]]')),
  one('079:12', /the range "z-a" is backwards/, ...ere('[z-a]')),
  one('079:12', /it ends with/, ...ere('a\\')),
  one('079:12', /it is empty/, ...ere('!')),
  one('120:16', /of "\/srv\/conf" differ from those of "\/srv\/data" on line 10/, [rules, '']),
  one('120:16', /one list counts|differ from/, [rules, '<notreplicated path="tmp/cache"/>']),
];

/** Mistakes where the cluster has an arbiter. */
export const decidedCases: readonly Case[] = [
  one('127:20', /cannot be read: expected "==" or "!=", found "="/, [
    '<user/>',
    '<user/>\n<failover>\nx: if (tcp.a = down) then stop();\n</failover>',
  ]),
  one('127:18', /"remote.tcp.a" is a resource of the other server/, [
    '<user/>',
    '<user/><failover>x: if (remote.tcp.a == down) then stop();</failover>',
  ]),
  one('016:18', /"gateway"/, [
    '<user/>',
    '<user/><check><splitbrain ident="w" arg="gateway"/></check>',
  ]),
];

/** The codes that these cases try, and no other file does. */
export const mirrorCodes: ReadonlySet<string> = new Set(
  [...mirrorCases, ...decidedCases].flatMap((c) =>
    c.at.map((at) => `HF-CONFIG-${at.split(':')[0]}`),
  ),
);
