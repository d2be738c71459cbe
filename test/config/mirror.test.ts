import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { whyNotEre } from '../../src/config/ere.ts';
import { conflictsBetween, parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import { formatSize, parseSize } from '../../src/config/values.ts';
import { config, edited, lines, places } from './fixtures.ts';
import { confXml, decidedCases, mirrorCases, mirrorClusterXml, mirrorXml } from './mirror-cases.ts';

const cluster = config(parseClusterConfig(mirrorClusterXml));
const parse = (xml: string, name = 'db') => parseModuleConfig(xml, { name, cluster });

describe('userconfig.xml of a mirror', () => {
  const parsed = parse(mirrorXml);
  const mirror = config(parsed);

  it('becomes the model: networks', () => {
    assert.equal(mirror.service.mode, 'mirror');
    assert.deepEqual(mirror.heart, {
      heartbeats: [
        { lan: 'office', ident: 'office', pulseMs: 700, timeoutMs: 30_000, line: 5 },
        { lan: 'private', ident: 'flow', pulseMs: 100, timeoutMs: 2000, line: 6 },
      ],
      timing: 'default',
      pace: { heartbeatMs: 50, suspectMs: 1000, leaseMs: 1500 },
    });
  });

  it('becomes the model: replication', () => {
    const skip = [
      { kind: 'path', value: 'tmp/cache', only: false },
      { kind: 'regex', value: '\\.(bak|old)$', only: false },
      { kind: 'regex', value: 'base/.*', only: true },
    ];
    assert.deepEqual(mirror.rfs, {
      async: 'second',
      ack: 'strict',
      resyncBytesPerS: 0,
      ringBytes: 16 * 1024 ** 2,
      journalBytes: 1024 ** 3,
      sendTimeoutMs: 10_000,
      lockTimeoutMs: 60_000,
      port: null,
      lan: 'private',
      nodes: [0, 1],
      distant: [],
      directories: [
        {
          dir: '/srv/data',
          skip,
          toCheck: ['base'],
          line: 10,
        },
        { dir: '/srv/conf', skip, toCheck: [], line: 16 },
      ],
    });
  });

  it('decides for itself where the cluster has an arbiter', () => {
    const decided = (attributes = '') => {
      const arbiter = '<arbiter type="directory" path="/mnt/arbiter"/></cluster>';
      const edits = [
        ['</cluster>', arbiter],
        ['<lans>', `<lans${attributes}>`],
      ] as const;
      return parseModuleConfig(
        edited(mirrorXml, ['mode="mirror"', 'mode="mirror" failover="off" defaultprim="db2"']),
        { name: 'db', cluster: config(parseClusterConfig(edited(mirrorClusterXml, ...edits))) },
      );
    };
    // Of SafeKit's pulse and timeout, which decide nothing.
    assert.deepEqual(places(decided().warnings), ['049:4', '049:4', '049:6', '049:6']);
    const slow = decided(' pulse="300ms"');
    assert.deepEqual(places(slow.errors), ['123:4']);
  });

  const arbiter = ['</cluster>', '<arbiter type="directory" path="/mnt"/></cluster>'] as const;
  const decidedCluster = config(parseClusterConfig(edited(mirrorClusterXml, arbiter)));
  for (const { at, says, edits } of decidedCases) {
    it(`HF-CONFIG-${at.join(' ')} ${says.source}`, () => {
      const { errors } = parseModuleConfig(edited(mirrorXml, ...edits), {
        name: 'db',
        cluster: decidedCluster,
      });
      assert.deepEqual(places(errors), at, lines(errors).join('\n'));
      assert.match(lines(errors).join('\n'), says);
    });
  }

  it('acts on checkers and rules where the cluster has an arbiter', () => {
    const xml = edited(mirrorXml, [
      '<user/>',
      `<user/><errd><proc name="db" class="prim"/></errd>
       <check><tcp ident="a" when="prim"><to port="80"/></tcp><splitbrain ident="w" arg="10.0.0.254 ::1"/></check>
       <failover handle_time="1s">up: if (tcp.a == down) then swap();</failover>`,
    ]);
    const read = parseModuleConfig(xml, { name: 'db', cluster: decidedCluster });
    const { checks, failover } = config(read);
    assert.ok(!places(read.warnings).some((place) => place.startsWith('067')));
    assert.deepEqual(
      checks.map(({ kind, when, action }) => [kind, when, action]),
      [
        ['tcp', 'prim', 'restart'],
        ['splitbrain', 'pre', 'noaction'],
      ],
    );
    const when = { is: 'state', resource: 'tcp.a', state: 'down' };
    assert.deepEqual(failover?.rules, [{ label: 'up', when, action: 'swap' }]);
    assert.equal(failover.handleTimeMs, 1000);
  });

  it('is said to be run by hand', () => {
    assert.deepEqual(places(parsed.warnings), ['060:3']);
  });

  it('has safe defaults', () => {
    const least = config(
      parse(
        '<safe><service mode="mirror"><heart><heartbeat name="private"/></heart>' +
          '<rfs><replicated dir="/d"/></rfs></service></safe>',
      ),
    );
    assert.deepEqual(least.heart?.heartbeats, [
      { lan: 'private', ident: 'private', pulseMs: 700, timeoutMs: 30_000, line: 1 },
    ]);
    assert.deepEqual(least.rfs, {
      async: 'none',
      ack: 'fsync',
      resyncBytesPerS: 0,
      ringBytes: 64 * 1024 ** 2,
      journalBytes: 256 * 1024 ** 2,
      sendTimeoutMs: 30_000,
      lockTimeoutMs: 100_000,
      port: null,
      lan: 'private',
      nodes: [0, 1],
      distant: [],
      directories: [{ dir: '/d', skip: [], toCheck: [], line: 1 }],
    });
  });

  it('takes a port, and as many directories and patterns as there may be', () => {
    const most = edited(
      mirrorXml,
      ['ring="16m"', 'port="7000"'],
      [confXml, ''],
      ['<tocheck path="base"/>', '<notreplicated path="x"/>'.repeat(61)],
    );
    const { rfs } = config(parse(most));
    assert.equal(rfs?.port, 7000);
    assert.equal(rfs?.directories[0]?.skip.length, 64);
    const wide = edited(mirrorXml, [confXml, replicated(15)]);
    assert.equal(config(parse(wide)).rfs?.directories.length, 16);
  });

  it('takes a profile of times, and figures in its place', () => {
    const heart = (attributes: string) =>
      config(parse(edited(mirrorXml, ['<heart ', `<heart ${attributes} `]))).heart;
    const pace = (attributes: string) => {
      const { suspectMs, leaseMs } = heart(attributes)?.pace ?? {};
      return [suspectMs, leaseMs];
    };
    assert.equal(heart('timing="wan"')?.timing, 'wan');
    assert.deepEqual(pace('timing="fast"'), [200, 300]);
    assert.deepEqual(pace('timing="vm"'), [2400, 3600]);
    assert.deepEqual(pace('timing="wan"'), [6000, 9000]);
    assert.deepEqual(pace('suspect="3s"'), [3000, 4500]);
    assert.deepEqual(pace('lease="4s"'), [1000, 4000]);
    assert.deepEqual(pace('timing="fast" suspect="300" lease="800"'), [300, 800]);
  });

  it('leaves the times of a mirror run by hand alone, however slow the cluster is', () => {
    const slow = edited(mirrorClusterXml, ['<lans>', '<lans pulse="1s" slost_count="10">']);
    const parsed = parseModuleConfig(mirrorXml, {
      name: 'db',
      cluster: config(parseClusterConfig(slow)),
    });
    config(parsed);
  });

  it('takes a health gate', () => {
    assert.equal(mirror.ready, null);
    const gate = '<ready kind="http" port="8080" path="/health"/>';
    const { ready } = config(parse(edited(mirrorXml, ['</heart>', `${gate}</heart>`])));
    assert.deepEqual(ready, {
      kind: 'http',
      addr: '127.0.0.1',
      port: 8080,
      path: '/health',
      intervalMs: 1000,
      timeoutMs: 1000,
      failures: 2,
      startTimeoutMs: 600_000,
      action: 'restart',
    });
  });

  it('takes the time that an application may take to start', () => {
    const limit = (value: string) => {
      const gate = `<ready port="1" start_timeout="${value}"/>`;
      return config(parse(edited(mirrorXml, ['</heart>', `${gate}</heart>`]))).ready
        ?.startTimeoutMs;
    };
    assert.deepEqual([limit('0'), limit('90'), limit('5m')], [0, 90_000, 300_000]);
  });

  it('says where service goes', () => {
    const service = (attributes: string) =>
      config(parse(edited(mirrorXml, ['mode="mirror"', `mode="mirror" ${attributes}`]))).service;
    assert.deepEqual([mirror.service.failover, mirror.service.defaultPrim], [true, 'alone']);
    assert.equal(service('failover="off"').failover, false);
    assert.equal(service('defaultprim="lastprim"').defaultPrim, 'lastprim');
    assert.deepEqual(service('defaultprim="db2"').defaultPrim, { node: 1 });
  });

  it('takes a limit for a resynchronisation, in KB per second', () => {
    const limited = edited(mirrorXml, ['ring="16m"', 'reiallowedbw="20000"']);
    assert.equal(config(parse(limited)).rfs?.resyncBytesPerS, 20_000 * 1024);
  });

  it('takes distant copies', () => {
    const distant = '<distant node="web1" lan="office"/>';
    const { rfs } = config(parse(edited(mirrorXml, [confXml, `${distant}${confXml}`])));
    assert.deepEqual(rfs?.distant, [{ node: 2, name: 'web1', lan: 'office', line: 16 }]);
    assert.deepEqual(rfs?.nodes, [0, 1]);
  });

  it('takes directories that only begin alike', () => {
    const alike = edited(mirrorXml, ['"/srv/conf"', '"/srv/data2"']);
    assert.equal(config(parse(alike)).rfs?.directories[1]?.dir, '/srv/data2');
  });

  it('keeps blanks in paths', () => {
    const odd = edited(mirrorXml, ['"/srv/conf"', '"/srv/a  b"'], ['"base"', '"x  y/z"']);
    const directories = config(parse(odd)).rfs?.directories;
    assert.equal(directories?.[1]?.dir, '/srv/a  b');
    assert.deepEqual(directories?.[0]?.toCheck, ['x  y/z']);
  });

  it('takes the network of <flow> where no heartbeat is marked', () => {
    const flow = parse(
      edited(mirrorXml, ['ident="flow" ', ''], [confXml, '<flow name="private"/>']),
    );
    assert.equal(config(flow).rfs?.lan, 'private');
    assert.deepEqual(places(flow.warnings), ['060:3', '116:16']);
  });
});

const replicated = (count: number) =>
  Array.from({ length: count }, (_, n) => confXml.replace('/srv/conf', `/data/${n}`)).join('');

describe('errors of a mirror', () => {
  for (const c of mirrorCases) {
    it(`HF-CONFIG-${c.at.join(' ')} ${c.says.source}`, () => {
      const { errors, config: none } = parse(edited(mirrorXml, ...c.edits));
      const said = lines(errors).join('\n');
      assert.deepEqual(places(errors), c.at, said);
      assert.equal(none, null);
      assert.match(said, c.says);
      assert.doesNotMatch(said + errors.map((e) => e.hint).join('\n'), /\{\w+\}/);
    });
  }
});

describe('attributes of SafeKit without effect', () => {
  const attributes: readonly (readonly [string, RegExp])[] = [
    ['packetsize="8192"', /packetsize of <rfs> is ignored: a request is as large/],
    ['nbremconn="4"', /nbremconn of <rfs> is ignored: one ordered stream/],
    [
      'reipacketsize="8388608"',
      /reipacketsize of <rfs> is ignored: a resynchronisation sends what/,
    ],
    ['ruzone_blocksize="8388608"', /ruzone_blocksize/],
    ['nbrei="6"', /nbrei/],
    ['namespacepolicy="4"', /namespacepolicy/],
    ['reitimeout="150s"', /reitimeout/],
    ['reicommit="0"', /reicommit/],
    ['reidetail="on"', /reidetail/],
    ['checktime="220000ms"', /checktime of <rfs> is ignored: the engine is watched/],
    ['checkintv="120s"', /checkintv/],
    ['syncat="0 2 * * *"', /syncat of <rfs> is ignored: replication is always in real time/],
    ['syncdelta="5"', /syncdelta of <rfs> is ignored: .* epochs/],
    ['mountoversuffix="_x"', /mountoversuffix of <rfs> is ignored: the directory keeps its name/],
    ['scripts="on"', /scripts of <rfs> is ignored: no _rfs_/],
    ['iotimeout="300s"', /iotimeout of <rfs> is ignored: it is of SafeKit for Windows/],
    ['roflags="0x10"', /roflags/],
    ['allocthreshold="1"', /allocthreshold/],
    ['nfsbox_options="cross"', /nfsbox_options/],
    ['acl="off"', /acl of <rfs> is ignored: access control lists are always replicated/],
  ];
  for (const [attribute, says] of attributes) {
    it(attribute, () => {
      const parsed = parse(edited(mirrorXml, ['ack="strict"', attribute]));
      config(parsed);
      assert.deepEqual(places(parsed.warnings), ['060:3', '049:8']);
      assert.match(parsed.warnings[1]?.message ?? '', says);
    });
  }

  it('are not warned of where they say what is so', () => {
    const parsed = parse(edited(mirrorXml, ['ack="strict"', 'acl="on"']));
    assert.deepEqual(places(parsed.warnings), ['060:3']);
  });

  it('are warned of outside <rfs> too', () => {
    const parsed = parse(
      edited(
        mirrorXml,
        ['mode="mirror"', 'mode="mirror" failover="off" defaultprim="lastprim"'],
        ['<heart ', '<heart port="8888" permanent_arp="off" '],
        [
          '<user/>',
          '<user/><vip><interface_list><interface><real_interface><virtual_addr addr="10.0.0.100"/></real_interface></interface></interface_list></vip><check><splitbrain ident="w" arg="10.0.0.254"/></check>',
        ],
      ),
    );
    config(parsed);
    assert.deepEqual(places(parsed.warnings), [
      '060:3',
      '049:3',
      '049:3',
      '049:4',
      '049:4',
      '067:18',
      '067:18',
    ]);
  });
});

describe('two mirrors on the same servers', () => {
  const one = config(parse(mirrorXml, 'one'));
  const conflicts = (...edits: readonly (readonly [string, string])[]) =>
    conflictsBetween([one, config(parse(edited(mirrorXml, ...edits), 'two'))]).map(
      (e) => e.message,
    );
  const elsewhere = [
    ['/srv/data', '/srv/data2'],
    ['/srv/conf', '/srv/conf2'],
  ] as const;

  it('have directories of their own', () => {
    assert.deepEqual(conflicts(...elsewhere), []);
    assert.deepEqual(conflicts(elsewhere[0], ['/srv/conf', '/srv/conf/deep']), [
      'two modules, "one" and "two", replicate directories in one another: /srv/conf, /srv/conf/deep',
    ]);
  });
  it('have ports of their own', () => {
    const port = (xml: string) => edited(xml, ['ring="16m"', 'port="7000"']);
    const modules = ['one', 'two'].map((name, index) =>
      config(parse(port(index === 0 ? mirrorXml : edited(mirrorXml, ...elsewhere)), name)),
    );
    assert.deepEqual(
      conflictsBetween(modules).map((e) => e.message),
      ['two modules, "one" and "two", both have the port 7000 of replication'],
    );
  });
});

describe('POSIX extended regular expressions', () => {
  it('are taken', () => {
    for (const text of [
      'a',
      '^tmp/.*\\.bak$',
      '(a|b)+',
      'a{2}b{2,}c{2,3}',
      '[]a]',
      '[^]a]',
      '[a-z0-9_.-]',
      '[[:alpha:][:digit:]]+',
      '[[.-.]]',
      '[[=a=]]',
      '[[a]',
      '((x)(y))?',
      '\\(\\*',
      'ä.*ö',
      'a|b|c',
    ]) {
      assert.equal(whyNotEre(text), null, text);
    }
  });
  it('are refused', () => {
    for (const text of ['()', 'a**{', '(*a)', '[[:alpha:]', '[[.ab.]]', '[', 'a{1', '{1}', '^*']) {
      assert.notEqual(whyNotEre(text), null, text);
    }
  });
});

describe('POSIX extended regular expressions, as the C library reads them', () => {
  const probe = spawnSync('grep', ['-E', '-e', 'a', '/dev/null']);
  it('are taken by both or refused by both', { skip: probe.error !== undefined }, () => {
    for (const text of [
      'a',
      'a(b|c)*',
      '(a',
      '[a',
      '[[:alpha:]]',
      '[[:letter:]]',
      '[z-a]',
      'a{3,2}',
      'x[^]]y',
      '\\.(bak|old)$',
      'a\\',
    ]) {
      // 0 or 1: an expression; 2: none.
      const { status } = spawnSync('grep', ['-E', '-e', text, '/dev/null']);
      assert.equal(whyNotEre(text) === null, status !== 2, text);
    }
  });
});

describe('sizes', () => {
  it('are read', () => {
    assert.equal(parseSize('4096'), 4096);
    assert.equal(parseSize('64k'), 65_536);
    assert.equal(parseSize('64m'), 67_108_864);
    assert.equal(parseSize('2g'), 2_147_483_648);
    for (const bad of ['', 'm', '1t', '-1', '1.5g', '1 m', '999999999999g']) {
      assert.equal(parseSize(bad), null, bad);
    }
  });
  it('are written as they are read', () => {
    for (const text of ['1', '1023', '1k', '64m', '3g', '1536m']) {
      assert.equal(formatSize(parseSize(text) ?? -1), text);
    }
  });
});
