/** A distant copy beside a mirror that decides for itself: it follows whoever is primary. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseClusterConfig, renderClusterXml } from '../../src/config/cluster.ts';
import type { Lan } from '../../src/config/model.ts';
import type { ModuleStatus } from '../../src/host/face.ts';
import { LabCluster, setMacros } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { toolPath } from '../../src/lab/tool.ts';
import { eventually, skip } from './support.ts';

const name = 'db';
const dir = '/run/data';
const limitMs = 90_000;

describe('a distant copy of a mirror that decides for itself', { skip, timeout: 500_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;
  let c: Host;

  const mountData = async (host: Host): Promise<void> => {
    const disk = join(lab.dir, `data-${host.name}`);
    await host.exec(['mkdir', '-p', disk, dir]);
    await host.exec(['mount', '--bind', disk, dir]);
  };
  const sh = async (host: Host, script: string): Promise<string> =>
    (await host.exec(['sh', '-c', script])).stdout;
  const status = (host: Host): Promise<ModuleStatus> => cluster.client(host).module(name);
  const becomes = (host: Host, wanted: string): Promise<true> => {
    let last = '';
    const look = async (): Promise<true | null> => {
      const { state, readiness, why } = await status(host);
      last = `${state} ${readiness}: ${why.join('; ')}`;
      return `${state} ${readiness}` === wanted ? true : null;
    };
    return eventually(`${host.name} to be ${wanted}`, look, limitMs).catch((error: unknown) => {
      throw new Error(`${String(error)}; it is ${last}`);
    });
  };
  /** It says so, and the copy has what is there. */
  const hasAll = async (primary: Host): Promise<void> => {
    let last = '';
    const look = async (): Promise<true | null> => {
      const [copy] = (await status(primary)).replica?.distant ?? [];
      last = JSON.stringify(copy);
      return copy?.inSync === true && copy.lagBytes === 0 && copy.resync === null ? true : null;
    };
    await eventually(`the copy of ${primary.name} to have all`, look, limitMs).catch(
      (error: unknown) => {
        throw new Error(`${String(error)}; it says ${last}`);
      },
    );
    await eventually('the copy to be equal', async () => {
      const [here, there] = await Promise.all(
        [primary, c].map((host) => sh(host, `cat ${dir}/log`)),
      );
      return here === there ? true : null;
    });
    assert.equal((await status(c)).replica?.peer, primary.name);
  };
  const write = (host: Host, line: string): Promise<string> =>
    sh(host, `echo ${line} >>${dir}/log && sync ${dir}/log`);
  const comesBack = async (host: Host): Promise<void> => {
    await host.boot();
    await mountData(host);
    await cluster.startAgent(host);
  };

  before(async () => {
    lab = await Lab.up({ hosts: 3, lans: 2, clients: 0 });
    const path = join(lab.dir, 'register');
    mkdirSync(path);
    writeFileSync(join(path, 'holdfast-register'), '');
    cluster = await LabCluster.start(lab, { arbiter: { type: 'directory', path } });
    [a, b, c] = cluster.hosts as [Host, Host, Host];
    const { config } = parseClusterConfig(await cluster.client(a).clusterXml());
    assert.ok(config !== null);
    const on = (lan: number, hosts: readonly Host[]): Lan['nodes'] =>
      config.nodes.flatMap(({ id, name: node }) => {
        const addr = hosts.find((host) => host.name === node)?.address(lan);
        return addr === undefined ? [] : [{ node: id, addr, laddr: addr }];
      });
    const lans: Lan[] = [
      { name: 'wan', command: true, nodes: on(0, [a, b, c]) },
      { name: 'lan', command: false, nodes: on(1, [a, b]) },
    ];
    await cluster.client(a).applyClusterXml(renderClusterXml({ ...config, lans }));
    await cluster.until('all nodes to have the same networks', (statuses) =>
      statuses.every(({ peers }) =>
        peers.every(({ reach, connected, sameConfig }) =>
          reach === 'self' ? true : connected && sameConfig === true && reach === 'both',
        ),
      ),
    );
    for (const host of cluster.hosts) await mountData(host);
    const macros = { VIP4: lab.vip(1), VIP6: lab.vip(1, 6), TOOL: toolPath() };
    await cluster.install(name, 'test/fixtures/modules/lab_pair', (xml) =>
      setMacros(xml, macros)
        .replace('<heartbeat name="net1"', '<heartbeat name="lan"')
        .replace('</rfs>', '<distant node="s3" lan="wan"/></rfs>'),
    );
  });
  after(async () => lab?.down());

  test('it is run by hand, and gets what the primary writes', async () => {
    await cluster.startModule(name, [a, b]);
    await cluster.client(a).prim(name, false);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    await cluster.client(c).second(name, 'plain');
    await write(a, 'first');
    await becomes(c, 'SECOND Ready');
    await hasAll(a);
  });

  test('it follows the one that takes over, with all that was acknowledged', async () => {
    await write(a, 'acknowledged');
    await a.power();
    await becomes(b, 'ALONE Ready');
    await write(b, 'after');
    await hasAll(b);
    assert.equal(await sh(c, `cat ${dir}/log`), 'first\nacknowledged\nafter\n');
    await comesBack(a);
    await becomes(a, 'SECOND Ready');
    await becomes(b, 'PRIM Ready');
    await hasAll(b);
  });

  test('it follows a swap', async () => {
    await cluster.client(b).swap(name, true);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    await write(a, 'swapped');
    await hasAll(a);
  });

  test('while it is primary after a disaster, a server that returns claims nothing', async () => {
    await Promise.all([a.power(), b.power()]);
    await becomes(c, 'SECOND Transient');
    await cluster.client(c).command(name, 'stop');
    await assert.rejects(cluster.client(c).prim(name, false), { code: 'HF-MIRROR-026' });
    await cluster.client(c).prim(name, false, true);
    await write(c, 'disaster');
    await comesBack(a);
    await becomes(a, 'WAIT NotReady');
    await eventually('it to say why', async () =>
      /the distant copy on s3 is primary/.test((await status(a)).why.join()) ? true : null,
    );
    assert.equal((await status(c)).state, 'ALONE');
    // That was a drill: what it did is given up there.
    await cluster.client(c).command(name, 'stop');
    await becomes(a, 'ALONE Ready');
    assert.equal(await sh(a, `tail -1 ${dir}/log`), 'swapped\n');
  });
});
