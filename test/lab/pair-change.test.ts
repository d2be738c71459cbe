/** A mirror that was run by hand gets an arbiter, and loses it again: docs/operate/mirror-by-hand.md. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LabCluster } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { toolPath } from '../../src/lab/tool.ts';
import { eventually, skip } from './support.ts';

const name = 'db';
const dir = '/run/data';

describe('a mirror run by hand that gets an arbiter', { skip, timeout: 300_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;

  before(async () => {
    lab = await Lab.up({ hosts: 2, clients: 0 });
    cluster = await LabCluster.start(lab);
    [a, b] = cluster.hosts as [Host, Host];
    for (const host of cluster.hosts) await host.exec(['mkdir', '-p', dir]);
    await cluster.install(name, 'test/fixtures/modules/lab_pair', {
      VIP4: lab.vip(1),
      VIP6: lab.vip(1, 6),
      TOOL: toolPath(),
    });
  });
  after(async () => lab?.down());

  const cli = (host: Host, ...words: string[]): Promise<string> => cluster.cli(host, words);
  const sh = async (host: Host, script: string): Promise<string> =>
    (await host.exec(['sh', '-c', script])).stdout;
  const becomes = (host: Host, wanted: string): Promise<true> => {
    let last = '';
    return eventually(`${host.name} to be ${wanted}`, async () => {
      const { state, readiness } = await cluster.client(host).module(name);
      last = `${state} ${readiness}`;
      return last === wanted ? true : null;
    }).catch(async (error: unknown) => {
      throw new Error(`${String(error)}: ${last}\n${await cli(host, 'events', '-H', '*')}`);
    });
  };
  async function stopBoth(primary: Host): Promise<void> {
    const secondary = primary === a ? b : a;
    await cli(secondary, 'stop', name);
    await cli(primary, 'stop', name);
  }
  async function arbiter(text: string): Promise<void> {
    const xml = (await cli(a, 'cluster', 'config')).replace(/\n *<arbiter [^]*?\/>/, '');
    a.writeFile('/root/new.xml', xml.replace('</lans>', `</lans>${text}`));
    await cli(a, 'cluster', 'config', '/root/new.xml');
    await eventually('both to have it', async () => {
      const nodes = (await cluster.client(a).clusterStatus()).nodes;
      return nodes.every(({ sameConfig }) => sameConfig !== false) ? true : null;
    });
  }

  test('by hand: several epochs', async () => {
    await cli(b, 'second', name);
    await cli(a, 'prim', name);
    await becomes(a, 'PRIM Ready');
    await cli(b, 'stop', name);
    await cli(a, 'prim', name, '--alone');
    await becomes(a, 'ALONE Ready');
    await sh(a, `echo by hand >${dir}/text && sync ${dir}/text`);
    await cli(b, 'second', name);
    await becomes(b, 'SECOND Ready');
    await stopBoth(a);
  });

  test('with an arbiter: start on both, prim once on the one with the newer data', async () => {
    const path = join(lab.dir, 'register');
    mkdirSync(path);
    writeFileSync(join(path, 'holdfast-register'), '');
    await arbiter(`\n  <arbiter type="directory" path="${path}"/>`);
    await cli(a, 'start', name, '-H', '*');
    assert.match(await cli(a, 'why', name), /HF-MIRROR-110/);
    await cli(a, 'prim', name);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    assert.equal(await sh(a, `cat ${dir}/text`), 'by hand\n');
    await cli(a, 'swap', name);
    await becomes(b, 'PRIM Ready');
    await becomes(a, 'SECOND Ready');
    assert.equal(await sh(b, `cat ${dir}/text`), 'by hand\n');
    await sh(b, `echo decided >${dir}/text && sync ${dir}/text`);
    await stopBoth(b);
  });

  test('without it again: by hand, where it was', async () => {
    await arbiter('');
    await cli(a, 'second', name);
    await cli(b, 'prim', name);
    await becomes(b, 'PRIM Ready');
    await becomes(a, 'SECOND Ready');
    assert.equal(await sh(a, `cat ${dir}/text`), 'decided\n');
    await stopBoth(b);
  });
});
