/** A mirror that decides for itself: two servers, a register, clients of its virtual IP. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ModuleStatus } from '../../src/host/face.ts';
import type { LoadGenerator, LoadStats } from '../../src/lab/clients.ts';
import type { LabCluster } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { dir, module as name, Pair } from './pair-support.ts';
import { eventually, skip } from './support.ts';

/** Silence on all networks to the virtual IP answering elsewhere, with the default profile. */
const gapMaxMs = 6000;

describe('a mirror that decides for itself', { skip, timeout: 400_000 }, () => {
  let mirror: Pair;
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;
  let load: LoadGenerator;

  before(async () => {
    mirror = await Pair.up({ arbiter: 'directory' });
    ({ lab, cluster, a, b } = mirror);
  });
  after(async () => mirror?.down());

  const status = (host: Host): Promise<ModuleStatus> => mirror.status(host);
  const becomes = (host: Host, wanted: string): Promise<void> => mirror.becomes(host, wanted);
  const answerers = ({ servers }: LoadStats): string[] =>
    Object.keys(servers).filter((server) => (servers[server] ?? 0) > 0);

  test('started on both, nobody is primary until an operator says so once', async () => {
    await cluster.startModule(name);
    await becomes(a, 'WAIT NotReady');
    // An arbiter that is not quick is asked again.
    await eventually('it to be said', async () =>
      /nobody was primary yet/.test((await status(b)).why.join()) ? true : null,
    );
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
    const written = await mirror.writer(a);
    const primaries = (await mirror.sh(b, `cat ${dir}/primaries`)).stdout;
    assert.match(primaries, new RegExp(`${a.name}\n$`));
    await a.power();
    await probe.until(({ clientsByServer }) => clientsByServer[b.name] === 5, 30_000);
    const gapMs = (await probe.stop()).longestGapUs / 1000;
    await becomes(b, 'ALONE Ready');
    const count = written.last();
    assert.ok(count > 10);
    await mirror.assertWritten(b, count);
    console.log(
      `power pulled: ${Math.round(gapMs)} ms without an answer; ${count} writes acknowledged`,
    );
    assert.ok(gapMs < gapMaxMs, `${gapMs}`);
    assert.equal((await status(b)).pair?.lease.rule, 'own');
  });

  test('the one that returns is brought up to date, and follows', async () => {
    await mirror.sh(b, `echo while >${dir}/away && sync ${dir}/away`);
    await mirror.boot(a);
    await becomes(a, 'SECOND Ready');
    await becomes(b, 'PRIM Ready');
    assert.equal((await mirror.sh(a, `cat ${dir}/away`)).stdout, 'while\n');
  });

  test('a swap moves the service in order', async () => {
    await load.mark('swap');
    await cluster.client(b).swap(name, true);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    const stats = await load.until(({ clientsByServer }) => clientsByServer[a.name] === 10, 20_000);
    console.log(`swap: ${Math.round(stats.longestGapUs / 1000)} ms without an answer`);
    await mirror.assertWritten(a, 10);
  });

  test('a cut between the servers moves nothing: the primary goes on alone', async (t) => {
    await load.mark('cut');
    const written = await mirror.writer(a);
    t.after(() => lab.heal());
    await lab.cut(a.name, b.name);
    await becomes(a, 'ALONE Ready');
    await becomes(b, 'SECOND NotReady');
    await eventually('the secondary to say why it stays', async () =>
      /not taking over .*not up to date/.test((await status(b)).why.join()) ? true : null,
    );
    await mirror.goesOn(written);
    const stats = await load.until(({ answers }) => answers > 50, 20_000);
    assert.deepEqual(answerers(stats), [a.name]);
    written.process.kill('SIGKILL');
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
    await becomes(a, 'SECOND Ready');
    const seen = await sniffer.stop();
    assert.equal(seen.doubles, 0, JSON.stringify(seen));
    const stats = await load.stop();
    assert.equal(stats.doubles, 0);
    console.log(`agent hung: ${Math.round(stats.longestGapUs / 1000)} ms without an answer`);
  });

  test('stopped, both have plain directories with the same files', async () => {
    for (const host of [b, a]) await cluster.client(host).command(name, 'stop');
    for (const host of [a, b]) assert.equal(await mirror.shown(host), 'STOP NotReady');
    const [one, two] = await Promise.all(
      [a, b].map(
        async (host) => (await mirror.sh(host, `cd ${dir} && md5sum log away primaries`)).stdout,
      ),
    );
    assert.equal(one, two);
  });
});
