/** Mirrors of more than two servers, by the real agents and the command line. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { parseClusterConfig, renderClusterXml } from '../../src/config/cluster.ts';
import type { Lan } from '../../src/config/model.ts';
import type { ModuleStatus } from '../../src/host/face.ts';
import { LabCluster, setMacros } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { replicaTool } from './replica-support.ts';
import { eventually, skip } from './support.ts';

const fixture = 'test/fixtures/modules/lab_mirror';

/** One network of cluster.xml: which hosts are on it, by which of their addresses. */
interface Network {
  readonly name: string;
  readonly on: readonly Host[];
  readonly at: (host: Host) => string;
}

/** Gives the cluster other networks than all hosts on each; resolves when all nodes have them. */
async function setNetworks(cluster: LabCluster, networks: readonly Network[]): Promise<void> {
  const [first] = cluster.hosts;
  assert.ok(first !== undefined);
  const { config } = parseClusterConfig(await cluster.client(first).clusterXml());
  assert.ok(config !== null);
  const lans = networks.map(({ name, on, at }, index): Lan => {
    const nodes = config.nodes.flatMap(({ id, name: node }) => {
      const host = on.find((one) => one.name === node);
      return host === undefined ? [] : [{ node: id, addr: at(host), laddr: at(host) }];
    });
    return { name, command: index === 0, nodes };
  });
  await cluster.client(first).applyClusterXml(renderClusterXml({ ...config, lans }));
  await cluster.until('all nodes to have the same networks', (statuses) =>
    statuses.every(({ peers }) =>
      peers.every(({ reach, connected, sameConfig }) =>
        reach === 'self' ? true : connected && sameConfig === true && reach === 'both',
      ),
    ),
  );
}

/** A module's status on a host. */
const statusOf = (cluster: LabCluster, host: Host, name: string): Promise<ModuleStatus> =>
  cluster.client(host).module(name);

const becomes = (cluster: LabCluster, host: Host, name: string, wanted: string): Promise<string> =>
  eventually(`${name} to be ${wanted} on ${host.name}`, async () => {
    const { state, readiness } = await statusOf(cluster, host, name);
    return `${state} ${readiness}` === wanted ? wanted : null;
  });

const sh = async (host: Host, script: string): Promise<string> =>
  (await host.exec(['sh', '-c', script])).stdout;

/** Waits until two directories hold the same: content, names, links, attributes. */
async function becomeEqual(first: Host, other: Host, dir: string): Promise<void> {
  let last = '';
  const equal = async (): Promise<true | null> => {
    try {
      await promisify(execFile)(replicaTool(), ['compare', first.path(dir), other.path(dir)]);
      return true;
    } catch (error) {
      last = String((error as { stdout?: string }).stdout ?? error);
      return null;
    }
  };
  const what = `${first.name} and ${other.name} to have the same in ${dir}`;
  await eventually(what, equal, 60_000).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${last.slice(-2000)}`);
  });
}

describe('two mirrors with one backup server', { skip, timeout: 300_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;
  let c: Host;
  const dirs = { one: '/run/one', two: '/run/two' } as const;
  const cli = (host: Host, ...words: string[]): Promise<string> => cluster.cli(host, words);
  const install = (name: keyof typeof dirs, lan: string, port: string, hosts: readonly Host[]) =>
    cluster.install(
      name,
      fixture,
      (xml) =>
        setMacros(xml, { DIR: dirs[name] })
          .replace('<heartbeat name="net1"', `<heartbeat name="${lan}"`)
          .replace('<rfs ', `<rfs ${port} `),
      hosts,
    );

  before(async () => {
    lab = await Lab.up({ hosts: 3, lans: 2, clients: 0 });
    cluster = await LabCluster.start(lab);
    [a, b, c] = cluster.hosts as [Host, Host, Host];
    await setNetworks(cluster, [
      { name: 'all', on: [a, b, c], at: (host) => host.address(0) },
      { name: 'left', on: [a, c], at: (host) => host.address(1) },
      { name: 'right', on: [b, c], at: (host) => host.address(1, 6) },
    ]);
    for (const host of cluster.hosts) await host.exec(['mkdir', '-p', dirs.one, dirs.two]);
    await install('one', 'left', '', [a, c]);
    await install('two', 'right', '', [b, c]);
  });
  after(async () => lab?.down());

  test('ports that differ, since one server has more modules, are refused with what to do', async () => {
    await cli(c, 'second', '-m', 'two');
    await assert.rejects(cli(b, 'prim', '-m', 'two'), /HF-MIRROR-014[^]*set <rfs port=/);
    await cli(c, 'stop', '-m', 'two');
    await install('two', 'right', 'port="5700"', [b, c]);
  });

  test('the backup server takes the changes of both primaries at the same time', async () => {
    for (const [name, host] of [
      ['one', a],
      ['two', b],
    ] as const) {
      await cli(c, 'second', '-m', name);
      await cli(host, 'prim', '-m', name);
      await becomes(cluster, host, name, 'PRIM Ready');
      await becomes(cluster, c, name, 'SECOND Ready');
    }
    const write = (dir: string) =>
      `for i in $(seq 200); do echo ${dir} $i >${dir}/f$i && sync ${dir}/f$i || exit 1; done`;
    await Promise.all([sh(a, write(dirs.one)), sh(b, write(dirs.two))]);
    await becomeEqual(a, c, dirs.one);
    await becomeEqual(b, c, dirs.two);
    assert.match(await cli(a, 'verify', '-m', 'one'), /one: equal/);
    assert.match(await cli(b, 'verify', '-m', 'two'), /two: equal/);
  });

  test('it takes one over, and goes on as the secondary of the other', async () => {
    await a.power();
    await becomes(cluster, c, 'one', 'SECOND Transient');
    await cli(c, 'stop', '-m', 'one');
    assert.match(await cli(c, 'prim', '-m', 'one', '--alone'), /ALONE \(Ready\)/);
    assert.equal(await sh(c, `cat ${dirs.one}/f200`), `${dirs.one} 200\n`);
    await sh(c, `echo more >${dirs.one}/more && sync ${dirs.one}/more`);
    await sh(b, `echo on >${dirs.two}/on && sync ${dirs.two}/on`);
    assert.equal((await statusOf(cluster, c, 'two')).state, 'SECOND');
    await becomeEqual(b, c, dirs.two);
  });
});
