import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  type ArbiterConfig,
  type ClusterConfig,
  parseClusterConfig,
  readClusterConfig,
  renderClusterXml,
} from '../../src/config/index.ts';
import { cluster, clusterXml, config, edited, lines, places } from './fixtures.ts';

describe('cluster.xml', () => {
  it('becomes the model, with defaults', () => {
    const { signature, ...rest } = cluster;
    assert.match(signature, /^[0-9a-f]{64}$/);
    const expected: Omit<ClusterConfig, 'signature'> = {
      nodes: [
        { id: 0, name: 'web1' },
        { id: 1, name: 'web2' },
        { id: 2, name: 'web3' },
      ],
      lans: [
        {
          name: 'office',
          command: true,
          nodes: [
            { node: 0, addr: '10.0.0.1', laddr: '10.0.0.1' },
            { node: 1, addr: '10.0.0.2', laddr: '10.0.0.2' },
            { node: 2, addr: '10.0.0.3', laddr: '10.0.0.3' },
          ],
        },
        {
          name: 'private',
          command: false,
          nodes: [
            { node: 0, addr: 'fd00::1', laddr: 'fd00::1' },
            { node: 1, addr: 'fd00::2', laddr: 'fd00::2' },
            { node: 2, addr: 'fd00::3', laddr: 'fd00::3' },
          ],
        },
      ],
      port: 4800,
      heartbeatMs: 50,
      lostCount: 4,
      leaseMs: 150,
      agentDeadlineMs: 5000,
      arbiter: null,
    };
    assert.deepEqual(rest, expected);
  });

  it('needs nothing but lans and nodes, and may hold one node', () => {
    const one = config(
      parseClusterConfig(
        '<cluster><lans><lan name="n"><node name="a" addr="192.0.2.1"/></lan></lans></cluster>',
      ),
    );
    assert.equal(one.heartbeatMs, 50);
    assert.equal(one.lostCount, 4);
    assert.equal(one.lans[0]?.command, true);
  });

  it('takes three quarters of the time to suspicion for the lease', () => {
    const slow = config(parseClusterConfig(edited(clusterXml, ['pulse="50ms"', 'pulse="1s"'])));
    assert.equal(slow.leaseMs, 3000);
    const own = edited(clusterXml, ['pulse="50ms"', 'pulse="50" lease="160ms"']);
    assert.equal(config(parseClusterConfig(own)).leaseMs, 160);
  });

  it('gives commands to the first network that holds all nodes', () => {
    const partial = edited(
      clusterXml,
      [' command="on"', ''],
      ['      <node name="web3" addr="10.0.0.3"/>\n', ''],
    );
    const parsed = parseClusterConfig(partial);
    assert.deepEqual(
      config(parsed).lans.map((lan) => lan.command),
      [false, true],
    );
    assert.deepEqual(places(parsed.warnings), ['037:6']);
  });

  it('reads an own address behind address translation', () => {
    const nat = edited(clusterXml, ['addr="10.0.0.2"', 'addr="10.0.0.2" laddr="172.16.0.2"']);
    assert.deepEqual(config(parseClusterConfig(nat)).lans[0]?.nodes[1], {
      node: 1,
      addr: '10.0.0.2',
      laddr: '172.16.0.2',
    });
  });

  it('has a signature of its meaning, not of its writing', () => {
    const signature = (xml: string) => config(parseClusterConfig(xml)).signature;
    const same = [
      clusterXml
        .replace(/<!--.*-->/, '')
        .replace(/\n\s*/g, ' ')
        .replace('?> ', '?>'),
      edited(clusterXml, ['port="4800" pulse="50ms"', 'pulse="50" port="4800" lease="150"']),
      edited(clusterXml, ['[FD00::3]', 'fd00:0::3']),
      clusterXml.replaceAll('\n', '\r\n'),
      `\ufeff${clusterXml}`,
    ];
    for (const xml of same) assert.equal(signature(xml), cluster.signature, xml);
    const other = [
      edited(clusterXml, ['10.0.0.2', '10.0.0.4']),
      edited(clusterXml, ['pulse="50ms"', 'pulse="51ms"']),
      edited(clusterXml, ['name="private"', 'name="privat"']),
    ];
    for (const xml of other) assert.notEqual(signature(xml), cluster.signature, xml);
  });

  it('is accepted with the hints of editors', () => {
    const hinted = edited(clusterXml, [
      '<cluster>',
      '<cluster xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="/usr/lib/holdfast/schema/cluster.xsd">',
    ]);
    assert.equal(config(parseClusterConfig(hinted)).signature, cluster.signature);
  });

  it('is written so that it reads back the same', () => {
    assert.deepEqual(config(parseClusterConfig(renderClusterXml(cluster))), cluster);
    const nat = config(
      parseClusterConfig(
        edited(clusterXml, ['addr="10.0.0.2"', 'addr="10.0.0.2" laddr="172.16.0.2"']),
      ),
    );
    assert.deepEqual(config(parseClusterConfig(renderClusterXml(nat))), nat);
  });

  it('says where the arbiter is, of each type', () => {
    const files = 'ca="/etc/etcd/ca.pem" cert="/etc/etcd/c.pem" key="/etc/etcd/k.pem"';
    const read: readonly (readonly [string, ArbiterConfig])[] = [
      ['type="operator"', { type: 'operator' }],
      ['type="static" node="web2"', { type: 'static', node: 1 }],
      ['type="directory" path="/mnt/shared/"', { type: 'directory', path: '/mnt/shared' }],
      [
        'type="witness" name="w1" addr="[FD00::9]"',
        { type: 'witness', name: 'w1', addr: 'fd00::9', port: 9530 },
      ],
      [
        'type="etcd" endpoints="http://10.0.0.5  https://[fd00::6]:4001/"',
        {
          type: 'etcd',
          endpoints: ['http://10.0.0.5:2379', 'https://[fd00::6]:4001'],
          prefix: '/holdfast/',
          caFile: null,
          certFile: null,
          keyFile: null,
        },
      ],
      [
        `type="etcd" endpoints="https://10.0.0.5:2379" prefix="/ha/" ${files}`,
        {
          type: 'etcd',
          endpoints: ['https://10.0.0.5:2379'],
          prefix: '/ha/',
          caFile: '/etc/etcd/ca.pem',
          certFile: '/etc/etcd/c.pem',
          keyFile: '/etc/etcd/k.pem',
        },
      ],
    ];
    const signatures = new Set([cluster.signature]);
    for (const [attributes, expected] of read) {
      const xml = edited(clusterXml, ['</cluster>', `<arbiter ${attributes}/></cluster>`]);
      const parsed = config(parseClusterConfig(xml));
      assert.deepEqual(parsed.arbiter, expected);
      assert.deepEqual(config(parseClusterConfig(renderClusterXml(parsed))), parsed);
      signatures.add(parsed.signature);
    }
    assert.equal(signatures.size, read.length + 1, 'each is another configuration');
  });

  it('warns of a witness that is one of the servers', () => {
    const parsed = parseClusterConfig(
      edited(clusterXml, [
        '  </lans>\n',
        '  </lans>\n<arbiter type="witness" name="w" addr="fd00::2"/>',
      ]),
    );
    assert.equal(config(parsed).arbiter?.type, 'witness');
    assert.deepEqual(places(parsed.warnings), ['136:17']);
    assert.match(lines(parsed.warnings).join(), /fd00::2 of node "web2"/);
  });

  it('is written with defaults left out where they are not given', () => {
    const xml = renderClusterXml({ nodes: cluster.nodes, lans: cluster.lans });
    assert.match(xml, /<lans>/);
    assert.equal(config(parseClusterConfig(xml)).signature, cluster.signature);
  });
});

describe('the file of cluster.xml', () => {
  it('is read, or the reason is one of the errors', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-config-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'cluster.xml');
    const missing = readClusterConfig(file);
    assert.equal(missing.config, null);
    assert.deepEqual(
      missing.errors.map((error) => error.code),
      ['HF-CONFIG-001'],
    );

    writeFileSync(file, clusterXml);
    assert.deepEqual(config(readClusterConfig(file)), cluster);

    writeFileSync(file, edited(clusterXml, ['pulse', 'puls']));
    const [error] = readClusterConfig(file).errors;
    assert.equal(
      error?.line(),
      `error[HF-CONFIG-012] ${file}:4: unknown attribute "puls" of <lans>; did you mean "pulse"?`,
    );
  });

  it('must be UTF-8', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-config-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'cluster.xml');
    writeFileSync(file, Buffer.from('<cluster>\n<!-- gr\u00fcn -->\n</cluster>', 'latin1'));
    const { errors } = readClusterConfig(file);
    assert.deepEqual(lines(errors), [`error[HF-CONFIG-003] ${file}:2: the file is not UTF-8`]);
  });
});
