import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { conflictsBetween, parseModuleConfig } from '../../src/config/index.ts';
import { cluster, config, edited, lines, moduleXml, parseModule, places } from './fixtures.ts';

const bare = (inside: string, attributes = '') =>
  `<safe><service mode="farm" ${attributes}>\n${inside}\n</service></safe>`;
const end = '    </user>\n';

describe('userconfig.xml of a farm', () => {
  const farm = config(parseModule(moduleXml));

  it('becomes the model: service and farm', () => {
    assert.equal(farm.name, 'web');
    assert.deepEqual(farm.service, {
      mode: 'farm',
      boot: 'ignore',
      bootDelayMs: 0,
      maxloop: 3,
      loopIntervalMs: 86_400_000,
      automaticReboot: false,
      failover: true,
      defaultPrim: 'alone',
    });
    assert.deepEqual(farm.farmLans, ['office']);
    assert.deepEqual(farm.ready, {
      kind: 'http',
      addr: '127.0.0.1',
      port: 80,
      path: '/health',
      intervalMs: 1000,
      timeoutMs: 1000,
      failures: 2,
      startTimeoutMs: 600_000,
      action: 'restart',
    });
    assert.equal(farm.drainTimeoutMs, 300_000);
  });

  it('becomes the model: virtual IPs', () => {
    const common = { where: 'alias', check: true, connections: false };
    assert.equal(farm.vip?.tcpreset, true);
    assert.deepEqual(farm.vip?.interfaces, [
      {
        name: 'eth0',
        check: true,
        arpreroute: false,
        arpIntervalMs: 60_000,
        arpElapseMs: 1_200_000,
        virtualInterface: {
          type: 'vmac_invisible',
          mac: '5a:fe:0a:00:00:64',
          addrs: [
            { addr: '10.0.0.100', prefix: 24, ...common, line: 13 },
            { addr: 'fd00::100', prefix: 128, ...common, line: 15 },
          ],
        },
      },
      {
        name: 'eth1',
        check: true,
        arpreroute: false,
        arpIntervalMs: 60_000,
        arpElapseMs: 1_200_000,
        virtualInterface: {
          type: 'vmac_directed',
          mac: null,
          addrs: [{ addr: '192.168.7.100', prefix: 32, ...common, line: 20 }],
        },
      },
    ]);
  });

  it('becomes the model: groups, powers of all nodes, rules', () => {
    const all = { virtualAddr: null, portLow: 0, portHigh: 65535 };
    assert.deepEqual(farm.vip?.groups, [
      {
        name: 'Web',
        powers: { 0: 2, 1: 1, 2: 0 },
        rules: [
          { ...all, portLow: 80, portHigh: 80, proto: 'tcp', filter: 'on_port', line: 30 },
          { ...all, portLow: 8000, portHigh: 8099, proto: 'tcp', filter: 'on_addr', line: 31 },
          { ...all, virtualAddr: '192.168.7.100', proto: 'arp', filter: 'on_addr', line: 32 },
        ],
      },
      {
        name: 'Other',
        powers: { 0: 1, 1: 1, 2: 1 },
        rules: [
          {
            virtualAddr: '10.0.0.100',
            portLow: 53,
            portHigh: 53,
            proto: 'udp',
            filter: 'on_ipid',
            line: 35,
          },
          { ...all, proto: 'icmp', filter: 'on_addr', line: 36 },
        ],
      },
    ]);
  });

  it('becomes the model: scripts', () => {
    assert.deepEqual(farm.user, {
      stopTimeoutMs: 120_000,
      forceStopTimeoutMs: 300_000,
      logging: 'userlog',
      userlogKib: 2048,
      vars: { PORT: '80', SITE: '100% of 10.0.0.100' },
    });
    assert.deepEqual(farm.checks, []);
    assert.equal(farm.errd, null);
    assert.equal(farm.failover, null);
    assert.deepEqual(farm.virtualHostnames, []);
  });

  it('has no warnings', () => {
    assert.deepEqual(lines(parseModule(moduleXml).warnings), []);
  });

  it('needs nothing but its mode', () => {
    const least = config(parseModule('<safe><service mode="farm"/></safe>'));
    assert.deepEqual(least.farmLans, ['office', 'private']);
    assert.equal(least.ready, null);
    assert.equal(least.drainTimeoutMs, 300_000);
    assert.equal(least.vip, null);
    assert.equal(least.user, null);
  });

  it('takes a MAC address of its own, in any usual form', () => {
    const own = edited(moduleXml, [
      '"vmac_invisible"',
      '"vmac_invisible" addr="01-00-5E-00-00-64"',
    ]);
    assert.equal(
      config(parseModule(own)).vip?.interfaces[0]?.virtualInterface?.mac,
      '01:00:5e:00:00:64',
    );
  });

  it('takes a health gate of a script', () => {
    const script = edited(moduleXml, [
      '<ready kind="http" port="80" path="/health"/>',
      '<ready kind="script" path="check/ready.sh" interval="500" timeout="2s" failures="1" action="stopstart"/>',
    ]);
    assert.deepEqual(config(parseModule(script)).ready, {
      kind: 'script',
      addr: '127.0.0.1',
      port: 0,
      path: 'check/ready.sh',
      intervalMs: 500,
      timeoutMs: 2000,
      failures: 1,
      startTimeoutMs: 600_000,
      action: 'stopstart',
    });
  });

  it('keeps variables of any name', () => {
    const odd = bare(
      '<user><var name="__proto__" value="x"/><var name="constructor" value=" y "/></user>',
    );
    const vars = config(parseModule(odd)).user?.vars ?? {};
    assert.deepEqual(Object.entries(vars), [
      ['__proto__', 'x'],
      ['constructor', ' y '],
    ]);
  });
});

describe('userconfig.xml of a light module', () => {
  it('becomes the model', () => {
    const light = config(
      parseModule('<safe><service mode="light" boot="on"><user/></service></safe>'),
    );
    assert.equal(light.service.mode, 'light');
    assert.equal(light.service.boot, 'on');
    assert.deepEqual(light.farmLans, []);
    assert.equal(light.vip, null);
  });
});

describe('what later versions act on', () => {
  const xml = edited(moduleXml, [
    end,
    `${end}<check>
  <tcp ident="a"><to port="80" interval="20" timeout="1m"/></tcp>
  <tcp ident="b" when="pre"><to addr="fd00:0::9" port="81"/></tcp>
  <ping ident="gw"><to addr="10.0.0.254"/></ping>
  <intf ident="i"><to local_addr="10.0.0.1"/></intf>
  <ip ident="v"><to addr="10.0.0.100"/></ip>
  <custom ident="c" exec="c.sh" arg="1  2" action="stop"/>
  <module name="db"/>
  <module ident="m" name="db"><to addr="10.0.0.2" port="9010" secure="off"/></module>
</check>
<errd polltimer="5"><proc name="nginx" atmax="4" argregex="^nginx: [[:alpha:]]+" restart_services="a, b" class="pre"/></errd>
<vhost><virtualhostname name="www" envfile="env" when="both"/></vhost>
<failover period="1000"><![CDATA[ x: if (tcp.a == down) then stop(); ]]></failover>
`,
  ]);
  const parsed = parseModule(xml);
  const kept = config(parsed);

  it('is kept: checkers', () => {
    const slow = { intervalMs: 10_000, timeoutMs: 5000 };
    assert.deepEqual(
      kept.checks.map((check) => ({ ...check, line: 0 })),
      [
        {
          kind: 'tcp',
          line: 0,
          ident: 'a',
          when: 'both',
          action: 'restart',
          addr: '127.0.0.1',
          port: 80,
          intervalMs: 20_000,
          timeoutMs: 60_000,
        },
        {
          kind: 'tcp',
          line: 0,
          ident: 'b',
          when: 'pre',
          action: 'wait',
          addr: 'fd00::9',
          port: 81,
          ...slow,
        },
        {
          kind: 'ping',
          line: 0,
          ident: 'gw',
          when: 'pre',
          action: 'wait',
          addr: '10.0.0.254',
          ...slow,
        },
        { kind: 'intf', line: 0, ident: 'i', when: 'pre', action: 'wait', localAddr: '10.0.0.1' },
        {
          kind: 'ip',
          line: 0,
          ident: 'v',
          when: 'both',
          action: 'stopstart',
          addr: '10.0.0.100',
          intervalMs: 10_000,
        },
        {
          kind: 'custom',
          line: 0,
          ident: 'c',
          when: 'both',
          action: 'stop',
          exec: 'c.sh',
          arg: '1  2',
        },
        {
          kind: 'module',
          line: 0,
          ident: 'db',
          when: 'pre',
          action: 'wait',
          name: 'db',
          addr: null,
          port: 9453,
          ...slow,
        },
        {
          kind: 'module',
          line: 0,
          ident: 'm',
          when: 'pre',
          action: 'wait',
          name: 'db',
          addr: '10.0.0.2',
          port: 9010,
          ...slow,
        },
      ],
    );
    assert.deepEqual(
      kept.checks.map((check) => check.line),
      [45, 46, 47, 48, 49, 50, 51, 52],
    );
  });

  it('is kept: processes, rules, host names', () => {
    assert.deepEqual(kept.errd, {
      pollMs: 5000,
      procs: [
        {
          name: 'nginx',
          service: false,
          nameRegex: null,
          argRegex: '^nginx: [[:alpha:]]+',
          atLeast: 1,
          atMost: 4,
          action: 'stopstart',
          restartServices: ['a', 'b'],
          when: 'pre',
          startAfter: 0,
          line: 54,
        },
      ],
    });
    assert.deepEqual(kept.failover, {
      extends: true,
      periodMs: 1000,
      handleTimeMs: 15_000,
      rules: [],
    });
    assert.deepEqual(kept.virtualHostnames, [{ name: 'www', envFile: 'env', when: 'both' }]);
  });

  it('is said not to act', () => {
    assert.deepEqual(places(parsed.warnings), ['067:44', '067:54', '049:54', '067:55', '067:56']);
  });
});

describe('warnings', () => {
  const warned = (xml: string) => {
    const parsed = parseModule(xml);
    config(parsed);
    return places(parsed.warnings);
  };

  it('name what SafeKit has and this does not use', () => {
    assert.deepEqual(
      warned(
        edited(moduleXml, [
          '<farm>',
          '<farm port="4803" pulse="100"\n slost_count="10" mlost_count="20">',
        ]),
      ),
      ['063:5', '063:5', '063:6', '063:6'],
    );
    assert.deepEqual(warned(edited(moduleXml, ['<vip>', '<vip scriptcontrol="on">'])), ['074:9']);
    assert.deepEqual(
      warned(edited(moduleXml, ['maxloop', 'failover="off" defaultprim="alone" maxloop'])),
      ['076:4', '076:4'],
    );
  });
  it('name attributes of <ready> that do not count', () => {
    const ready = '<ready kind="http" port="80" path="/health"/>';
    assert.deepEqual(warned(edited(moduleXml, [ready, '<ready port="80" path="/x"/>'])), ['077:7']);
    assert.deepEqual(
      warned(edited(moduleXml, [ready, '<ready kind="script" port="80" path="x"/>'])),
      ['077:7'],
    );
    const late = '<ready port="80" start_timeout="1m"/>';
    assert.deepEqual(warned(edited(moduleXml, [ready, late])), ['049:7']);
  });
  it('name scripts that never run', () => {
    assert.deepEqual(warned('<safe>\n<service mode="farm"/></safe>'), ['065:2']);
  });
  it('name virtual IPs that nobody answers', () => {
    const arp = '<rule virtual_addr="192.168.7.100" proto="arp" filter="on_addr"/>';
    assert.deepEqual(warned(edited(moduleXml, [arp, ''])), ['099:20']);
    const none = edited(
      moduleXml,
      ['<rule port="80"', '<rule virtual_addr="fd00::100" port="80"'],
      ['<rule port="8000-8099"', '<rule virtual_addr="fd00::100" port="8000-8099"'],
    );
    assert.deepEqual(warned(none), ['100:20']);
  });
  it('are lines of their own kind', () => {
    const [warning] = parseModule('<safe>\n<service mode="farm"/></safe>').warnings;
    assert.equal(
      warning?.line('warning'),
      'warning[HF-CONFIG-065] userconfig.xml:2: no <user>: the scripts of this module are never run',
    );
  });
});

describe('macros', () => {
  it('use others, and the environment where there is none', () => {
    const xml = bare(
      '<user><var name="A" value="%OUTER%-%HOST%-100%%-5%-%%OUTER%%"/></user>',
    ).replace(
      '<safe>',
      '<safe><macro name="INNER" value="in"/><macro name="OUTER" value="&lt;%INNER%&gt;"/>',
    );
    const parsed = parseModule(xml, { HOST: 'web1', OUTER: 'not this' });
    assert.equal(config(parsed).user?.vars['A'], '<in>-web1-100%-5%-%OUTER%');
  });
  it('do not expand what comes from the environment', () => {
    const parsed = parseModule(bare('<user><var name="A" value="%X%"/></user>'), { X: '%Y%' });
    assert.equal(config(parsed).user?.vars['A'], '%Y%');
  });
  it('do not find what only looks like a variable', () => {
    const parsed = parseModule(bare('<user><var name="A" value="%toString%"/></user>'));
    assert.deepEqual(places(parsed.errors), ['021:2']);
  });
  it('leave the lines of the file as they are', () => {
    const xml = edited(moduleXml, ['filter="on_port"', 'filter="%X%"']);
    assert.deepEqual(places(parseModule(xml, { X: 'a'.repeat(900) }).errors), ['015:30']);
  });
});

describe('the signature of a module', () => {
  const signature = (xml: string, env = {}) => config(parseModule(xml, env)).signature;
  it('is that of the content', () => {
    const known = signature(moduleXml);
    assert.match(known, /^[0-9a-f]{64}$/);
    const same = [
      moduleXml.replaceAll('\n', '\r\n'),
      moduleXml.replace(/>\s+</g, '><').replace('<safe>', '<safe><!-- x -->'),
      edited(moduleXml, ['port="80" proto="tcp"', 'proto="tcp"  port="80"']),
      edited(moduleXml, ['addr="%VIP%"', 'addr="10.0.0.100"']),
    ];
    for (const xml of same) assert.equal(signature(xml), known, xml);
  });
  it('differs where the content does, the environment included', () => {
    assert.notEqual(signature(edited(moduleXml, ['power="2"', 'power="3"'])), signature(moduleXml));
    const xml = edited(moduleXml, ['value="80"', 'value="%X%"']);
    assert.notEqual(signature(xml, { X: '1' }), signature(xml, { X: '2' }));
  });
});

describe('modules of one cluster', () => {
  it('do not share a virtual IP', () => {
    const named = (name: string, xml: string) => config(parseModuleConfig(xml, { name, cluster }));
    const other = edited(
      moduleXml,
      ['"10.0.0.100"', '"10.0.0.101"'],
      ['addr="192.168.7.100"', 'addr="192.168.7.101"'],
      ['virtual_addr="192.168.7.100"', 'virtual_addr="192.168.7.101"'],
    );
    const errors = conflictsBetween([named('a', moduleXml), named('b', other)]);
    assert.deepEqual(lines(errors), [
      'error[HF-CONFIG-078] two modules, "a" and "b", both have the virtual IP fd00::100',
    ]);
    assert.deepEqual(conflictsBetween([named('a', moduleXml)]), []);
  });

  it('fit into the filter of each device together', () => {
    const farm = (name: string, first: number, count: number) => {
      const vips = Array.from(
        { length: count },
        (_, n) => `<virtual_addr addr="10.1.${first}.${n + 1}"/>`,
      );
      const xml = `<safe><service mode="farm"><vip><interface_list><interface name="eth0">
        <virtual_interface type="vmac_invisible">${vips.join('')}</virtual_interface>
        </interface></interface_list></vip><user/></service></safe>`;
      return config(parseModuleConfig(xml, { name, cluster }));
    };
    assert.deepEqual(conflictsBetween([farm('a', 1, 16), farm('b', 2, 16)]), []);
    assert.deepEqual(lines(conflictsBetween([farm('a', 1, 17), farm('b', 2, 16)])), [
      'error[HF-CONFIG-104] modules a, b have 33 virtual IPs together; the filter of eth0 holds 32',
    ]);
  });
});
