/** A mirror that decides for itself: two servers, a register, clients of its virtual IP. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ModuleStatus } from '../../src/host/face.ts';
import type { LoadGenerator, LoadStats } from '../../src/lab/clients.ts';
import { LabCluster } from '../../src/lab/cluster.ts';
import type { Host, HostProcess } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { toolPath } from '../../src/lab/tool.ts';
import { eventually, skip } from './support.ts';

const name = 'db';
const dir = '/run/data';
/** Silence on all networks to the virtual IP answering elsewhere, with the default profile. */
const gapMaxMs = 6000;

describe('a mirror that decides for itself', { skip, timeout: 400_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;
  let load: LoadGenerator;

  before(async () => {
    lab = await Lab.up({ hosts: 2, clientAddresses: 10 });
    const path = join(lab.dir, 'register');
    mkdirSync(path);
    writeFileSync(join(path, 'holdfast-register'), '');
    cluster = await LabCluster.start(lab, { arbiter: { type: 'directory', path } });
    [a, b] = cluster.hosts as [Host, Host];
    for (const host of cluster.hosts) await mountData(host);
    await cluster.install(name, 'test/fixtures/modules/lab_pair', {
      VIP4: lab.vip(1),
      VIP6: lab.vip(1, 6),
      TOOL: toolPath(),
    });
  });
  after(async () => lab?.down());

  /** A folder that outlives the server's power. */
  async function mountData(host: Host): Promise<void> {
    const disk = join(lab.dir, `data-${host.name}`);
    await host.exec(['mkdir', '-p', disk, dir]);
    // A server that was switched on again has another boot id. Here it is the same one, and this mount may get the
    // number of one that was the engine's, who would take it away.
    await host.exec(['sh', '-c', 'rm -f /var/lib/holdfast/modules/*/replica/mounted*']);
    await host.exec(['mount', '--bind', disk, dir]);
  }
  const status = (host: Host): Promise<ModuleStatus> => cluster.client(host).module(name);
  const shown = async (host: Host): Promise<string> => {
    const { state, readiness } = await status(host);
    return `${state} ${readiness}`;
  };
  const becomes = (host: Host, wanted: string): Promise<string> => {
    let last = '';
    return eventually(`${host.name} to be ${wanted}`, async () => {
      last = await shown(host).catch((error: unknown) => String(error));
      return last === wanted ? wanted : null;
    }).catch(async (error: unknown) => {
      const why = await cluster.client(host).why(name);
      const events = await cluster.client(host).events({ module: name, limit: 40 });
      const told = events.map(({ bootMs, text }) => `${Math.round(bootMs)} ${text}`).join('\n');
      throw new Error(`${String(error)}: ${last}\n${why.join('\n')}\n${told}`);
    });
  };
  const sh = (host: Host, script: string) => host.exec(['sh', '-c', script], { check: false });
  const other = (host: Host): Host => (host === a ? b : a);

  /** Writes numbers, each synced before it is said; what was said is acknowledged. */
  async function writer(host: Host): Promise<{ process: HostProcess; said: string[] }> {
    const script = `i=0; while :; do i=$((i+1)); echo $i >>${dir}/log && sync ${dir}/log && echo $i; done`;
    const process = await host.spawn(['sh', '-c', script]);
    const said: string[] = [];
    process.child.stdout?.on('data', (data: Buffer) => said.push(data.toString()));
    await eventually('some writes', async () =>
      said.join('').split('\n').length > 20 ? true : null,
    );
    return { process, said };
  }
  const answerers = ({ servers }: LoadStats): string[] =>
    Object.keys(servers).filter((server) => (servers[server] ?? 0) > 0);
  const lastOf = (said: readonly string[]): number =>
    Number(said.join('').split('\n').slice(0, -1).at(-1) ?? 0);

  async function hasAll(host: Host, count: number): Promise<void> {
    const { stdout } = await sh(host, `cat ${dir}/log`);
    const found = stdout.trimEnd().split('\n');
    assert.deepEqual(
      found.slice(0, count),
      Array.from({ length: count }, (_, i) => String(i + 1)),
    );
  }

  test('started on both, nobody is primary until an operator says so once', async () => {
    await cluster.startModule(name);
    assert.equal(await shown(a), 'WAIT NotReady');
    assert.match((await status(b)).why.join(), /nobody was primary yet/);
    await cluster.client(a).prim(name, false);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    const { pair } = await status(a);
    assert.deepEqual(pair?.record?.inSync, [a.name, b.name]);
    assert.equal(pair?.lease.rule, 'peer');
    assert.equal(pair?.lease.held, true);
    load = await lab.load({
      kind: 'tcp',
      server: lab.vip(1),
      port: 1080,
      count: 10,
      intervalMs: 100,
      timeoutMs: 100,
    });
    const stats = await load.until(({ answers }) => answers > 50, 20_000);
    assert.deepEqual(answerers(stats), [a.name]);
  });

  test('a primary whose agent is killed goes on, and its peer stays where it is', async () => {
    const { pair } = await status(a);
    await load.mark('agent');
    assert.equal(a.kill(/^\S*node \S*agent\.js/), 1);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    const stats = await load.until(({ answers }) => answers > 100, 20_000);
    assert.deepEqual(answerers(stats), [a.name]);
    assert.equal((await status(a)).pair?.record?.epoch, pair?.record?.epoch);
    assert.equal((await status(b)).pair?.record?.epoch, pair?.record?.epoch);
    console.log('agent killed: longest wait', Math.round(stats.longestGapUs / 1000), 'ms');
  });

  test('a primary that loses its power: the other answers, with all that was acknowledged', async () => {
    // Datagrams are asked again at the same pace, however long nobody answers.
    const probe = await lab.load({
      kind: 'udp',
      server: lab.vip(1),
      port: 1053,
      count: 5,
      intervalMs: 50,
      timeoutMs: 50,
    });
    const { said } = await writer(a);
    const primaries = (await sh(b, `cat ${dir}/primaries`)).stdout;
    assert.match(primaries, new RegExp(`${a.name}\n$`));
    await a.power();
    await probe.until(({ clientsByServer }) => clientsByServer[b.name] === 5, 30_000);
    const gapMs = (await probe.stop()).longestGapUs / 1000;
    await becomes(b, 'ALONE Ready');
    const count = lastOf(said);
    assert.ok(count > 10);
    await hasAll(b, count);
    console.log(
      `power pulled: ${Math.round(gapMs)} ms without an answer; ${count} writes acknowledged`,
    );
    assert.ok(gapMs < gapMaxMs, `${gapMs}`);
    assert.equal((await status(b)).pair?.lease.rule, 'own');
  });

  test('the one that returns is brought up to date, and follows', async () => {
    await sh(b, `echo while >${dir}/away && sync ${dir}/away`);
    await a.boot();
    await mountData(a);
    await cluster.startAgent(a);
    await becomes(a, 'SECOND Ready');
    await becomes(b, 'PRIM Ready');
    assert.equal((await sh(a, `cat ${dir}/away`)).stdout, 'while\n');
  });

  test('a swap moves the service in order', async () => {
    await load.mark('swap');
    await cluster.client(b).swap(name, true);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    const stats = await load.until(({ clientsByServer }) => clientsByServer[a.name] === 10, 20_000);
    console.log(`swap: ${Math.round(stats.longestGapUs / 1000)} ms without an answer`);
    await hasAll(a, 10);
  });

  test('a cut between the servers moves nothing: the primary goes on alone', async (t) => {
    await load.mark('cut');
    const { process, said } = await writer(a);
    t.after(() => lab.heal());
    await lab.cut(a.name, b.name);
    await becomes(a, 'ALONE Ready');
    await becomes(b, 'SECOND NotReady');
    await eventually('the secondary to say why it stays', async () =>
      /not taking over .*not up to date/.test((await status(b)).why.join()) ? true : null,
    );
    const before = lastOf(said);
    await eventually('writes to go on', async () => (lastOf(said) > before + 10 ? true : null));
    const stats = await load.until(({ answers }) => answers > 50, 20_000);
    assert.deepEqual(answerers(stats), [a.name]);
    process.kill('SIGKILL');
    await lab.heal();
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
  });

  test('an agent that hangs loses the address to the other server; never two answer', async () => {
    const sniffer = await lab.sniff();
    await load.mark('hang');
    assert.equal(a.kill(/^\S*node \S*agent\.js/, 'SIGSTOP'), 1);
    await load.until(({ clientsByServer }) => clientsByServer[b.name] === 10, 30_000);
    a.kill(/^\S*node \S*agent\.js/, 'SIGCONT');
    await becomes(b, 'PRIM Ready');
    await becomes(other(b), 'SECOND Ready');
    const seen = await sniffer.stop();
    assert.equal(seen.doubles, 0, JSON.stringify(seen));
    const stats = await load.stop();
    assert.equal(stats.doubles, 0);
    console.log(`agent hung: ${Math.round(stats.longestGapUs / 1000)} ms without an answer`);
  });

  test('stopped, both have plain directories with the same files', async () => {
    for (const host of [b, a]) await cluster.client(host).command(name, 'stop');
    for (const host of [a, b]) assert.equal(await shown(host), 'STOP NotReady');
    const [one, two] = await Promise.all(
      [a, b].map(async (host) => (await sh(host, `cd ${dir} && md5sum log away primaries`)).stdout),
    );
    assert.equal(one, two);
  });
});
