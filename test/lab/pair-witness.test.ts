/** Two servers of a mirror and a witness on a third machine, set up as an operator does it. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parseClusterConfig, renderClusterXml } from '../../src/config/index.ts';
import type { ModuleStatus } from '../../src/host/face.ts';
import type { LoadGenerator } from '../../src/lab/clients.ts';
import { LabCluster } from '../../src/lab/cluster.ts';
import type { Host, HostProcess } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { toolPath } from '../../src/lab/tool.ts';
import { builtFile } from '../../src/native/load.ts';
import { eventually, skip } from './support.ts';

const name = 'db';
const dir = '/run/data';

describe('a mirror that goes by a witness', { skip, timeout: 400_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;
  let w: Host;
  let witness: HostProcess;
  let load: LoadGenerator;

  before(async () => {
    lab = await Lab.up({ hosts: 3, clientAddresses: 10 });
    const names = lab.summary().hosts.map((host) => host.name);
    cluster = await LabCluster.start(lab, {}, names.slice(0, 2));
    [a, b] = cluster.hosts as [Host, Host];
    w = lab.host(names[2] ?? '');
    for (const host of [a, b]) await mountData(host);
  });
  after(async () => lab?.down());

  /** A folder that outlives the server's power. */
  async function mountData(host: Host): Promise<void> {
    const disk = join(lab.dir, `data-${host.name}`);
    await host.exec(['mkdir', '-p', disk, dir]);
    await host.exec(['mount', '--bind', disk, dir]);
  }
  const state = (): string => join(lab.dir, 'witness');
  const startWitness = (): Promise<HostProcess> =>
    w.spawn([builtFile('holdfast-witness'), '--state', state()]);
  const status = (host: Host): Promise<ModuleStatus> => cluster.client(host).module(name);
  const becomes = (host: Host, wanted: string): Promise<string> => {
    let last = '';
    return eventually(`${host.name} to be ${wanted}`, async () => {
      last = await status(host).then(
        (found) => `${found.state} ${found.readiness}`,
        (error: unknown) => String(error),
      );
      return last === wanted ? wanted : null;
    }).catch(async (error: unknown) => {
      const why = await cluster.client(host).why(name);
      const events = await cluster.client(host).events({ module: name, limit: 40 });
      const told = events.map(({ bootMs, text }) => `${Math.round(bootMs)} ${text}`).join('\n');
      throw new Error(`${String(error)}: ${last}\n${why.join('\n')}\n${told}`);
    });
  };
  const answersFrom = (host: Host) =>
    load.until(({ clientsByServer }) => clientsByServer[host.name] === 10, 30_000);

  test('a machine joins as a witness, and cluster.xml names it', async () => {
    const { token } = await cluster.client(a).issueToken();
    const words = ['witness', 'join', a.address(), '--token', token];
    const said = await cluster.cli(w, [...words, '--name', 'w1', '--state', state()]);
    assert.match(said, /<arbiter type="witness" name="w1" addr="ADDRESS"\/>/);
    witness = await startWitness();
    const { config } = parseClusterConfig(await cluster.client(a).clusterXml());
    assert.ok(config !== null);
    const arbiter = { type: 'witness', name: 'w1', addr: w.address(), port: 9530 } as const;
    await cluster.client(a).applyClusterXml(renderClusterXml({ ...config, arbiter }), 'cluster');
    await cluster.install(name, 'test/fixtures/modules/lab_pair', {
      VIP4: lab.vip(1),
      VIP6: lab.vip(1, 6),
      TOOL: toolPath(),
    });
    await cluster.startModule(name);
    await cluster.client(a).prim(name, false);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    load = await lab.load({
      kind: 'tcp',
      server: lab.vip(1),
      port: 1080,
      count: 10,
      intervalMs: 100,
      timeoutMs: 100,
    });
    await answersFrom(a);
  });

  test('service goes on while the witness is away, and roles change when it is back', async () => {
    await load.mark('away');
    assert.ok(witness.kill('SIGKILL'));
    await witness.ended;
    const { answers } = await load.until((stats) => stats.answers > 0, 20_000);
    const stats = await load.until((now) => now.answers > answers + 100, 20_000);
    assert.deepEqual(Object.keys(stats.clientsByServer), [a.name]);
    assert.equal((await status(a)).state, 'PRIM');
    witness = await startWitness();
    await load.mark('swap');
    await cluster.client(a).swap(name, true);
    await becomes(b, 'PRIM Ready');
    await becomes(a, 'SECOND Ready');
    await answersFrom(b);
  });

  test('the primary loses its power: the witness lets the other go on', async () => {
    await b.exec(['sh', '-c', `echo kept >${dir}/kept && sync ${dir}/kept`]);
    await load.mark('power');
    await b.power();
    await answersFrom(a);
    await becomes(a, 'ALONE Ready');
    assert.equal((await a.exec(['cat', `${dir}/kept`])).stdout, 'kept\n');
    await b.boot();
    await mountData(b);
    await cluster.startAgent(b);
    await becomes(b, 'SECOND Ready');
    await becomes(a, 'PRIM Ready');
  });

  test('without the witness nobody takes over; when it is back, somebody does', async () => {
    await load.mark('both');
    assert.ok(witness.kill('SIGKILL'));
    await witness.ended;
    const { pair } = await status(a);
    await a.power();
    await eventually('the secondary to say that the arbiter does not answer', async () => {
      const { state: shown, why } = await status(b);
      return shown === 'SECOND' && /arbiter/.test(why.join()) ? true : null;
    });
    witness = await startWitness();
    await becomes(b, 'ALONE Ready');
    await answersFrom(b);
    const after = (await status(b)).pair?.record;
    assert.ok((after?.epoch ?? 0) > (pair?.record?.epoch ?? 0));
    const stats = await load.stop();
    assert.equal(stats.doubles, 0);
  });
});
