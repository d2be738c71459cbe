/** What goes wrong around a mirror that decides for itself, with a witness as its arbiter. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { LoadGenerator } from '../../src/lab/clients.ts';
import type { Host } from '../../src/lab/host.ts';
import { dir, module, Pair } from './pair-support.ts';
import { eventually, skip } from './support.ts';

describe('faults of a mirror that decides', { skip, timeout: 600_000 }, () => {
  let pair: Pair;
  let a: Host;
  let b: Host;
  let load: LoadGenerator;

  before(async () => {
    pair = await Pair.up();
    ({ a, b } = pair);
    await pair.ready();
    load = await pair.lab.load({
      kind: 'udp',
      server: pair.lab.vip(1),
      port: 1053,
      count: 5,
      intervalMs: 50,
      timeoutMs: 50,
    });
    await load.until(({ answers }) => answers > 20, 20_000);
  });
  after(async () => pair?.down());

  /** Each test begins with `a` as the primary, both in sync. */
  beforeEach(async () => {
    await pair.settled();
    if ((await pair.status(a)).state !== 'PRIM') await pair.cluster.client(a).swap(module, true);
    await pair.becomes(a, 'PRIM Ready');
    await pair.becomes(b, 'SECOND Ready');
    await answeredBy(a);
  });

  const answeredBy = (host: Host): Promise<unknown> =>
    load.until(({ clientsByServer }) => clientsByServer[host.name] === 5, 30_000);

  /** Waits for the other server's answers, then tells how long there was none. */
  async function movesTo(host: Host, what: string): Promise<void> {
    await answeredBy(host);
    const { longestGapUs, doubles } = await load.stats();
    assert.equal(doubles, 0);
    console.log(`${what}: ${Math.round(longestGapUs / 1000)} ms without an answer`);
  }

  test('a primary that is cut off from everybody ends its service, and the other takes over', async (t) => {
    await load.mark('isolated');
    const writer = await pair.writer(a, 'isolated');
    t.after(() => pair.lab.heal());
    await pair.lab.cutAll(a.name);
    await movesTo(b, 'primary isolated');
    await pair.becomes(b, 'ALONE Ready');
    await pair.becomes(a, 'WAIT NotReady');
    await pair.assertWritten(b, writer.last(), 'isolated');
    assert.equal((await pair.status(a)).pair?.vip?.open, false);
    await pair.lab.heal();
    await pair.becomes(a, 'SECOND Ready');
    await pair.becomes(b, 'PRIM Ready');
    await pair.assertWritten(a, writer.last(), 'isolated');
  });

  test('a secondary that is cut off does not take over, and costs the writer a moment', async (t) => {
    await load.mark('second isolated');
    const writer = await pair.writer(a, 'second-isolated');
    t.after(() => pair.lab.heal());
    await pair.lab.cutAll(b.name);
    await pair.becomes(a, 'ALONE Ready');
    await pair.goesOn(writer);
    const { moves } = await load.stats();
    assert.equal(moves, 0);
    assert.match((await pair.status(b)).state, /SECOND|WAIT/);
    await pair.lab.heal();
    await pair.becomes(b, 'SECOND Ready');
    await pair.becomes(a, 'PRIM Ready');
    writer.process.kill('SIGKILL');
    await pair.assertWritten(b, writer.last(), 'second-isolated');
  });

  test('without its witness a mirror goes on, and says so', async () => {
    pair.stopWitness();
    await load.mark('no witness');
    await eventually('the silence of the arbiter to be told', async () => {
      const { pair: shown } = await pair.status(a);
      return shown?.arbiter.state === 'silent' ? true : null;
    });
    assert.match((await pair.status(a)).why.join(), /the arbiter does not answer/);
    const { answers } = await load.stats();
    await load.until((stats) => stats.answers > answers + 50, 20_000);
    assert.equal((await load.stats()).moves, 0);
    await pair.startWitness();
    await eventually('the arbiter to answer again', async () => {
      const { pair: shown } = await pair.status(a);
      return shown?.arbiter.state === 'ok' ? true : null;
    });
  });

  test('an engine of which nothing is left: the other server takes over', async () => {
    await load.mark('engine');
    // Stopped first: each would start the other again.
    assert.equal(a.kill(/holdfast-replica/, 'SIGSTOP'), 2);
    assert.equal(a.kill(/holdfast-replica/), 2);
    await movesTo(b, 'engine of the primary killed');
    await pair.becomes(a, 'SECOND Ready');
    await pair.becomes(b, 'PRIM Ready');
  });

  test('an engine of the secondary of which nothing is left is started again', async () => {
    await load.mark('second engine');
    const writer = await pair.writer(a, 'second-engine');
    assert.equal(b.kill(/holdfast-replica/, 'SIGSTOP'), 2);
    assert.equal(b.kill(/holdfast-replica/), 2);
    await pair.goesOn(writer, 20);
    await pair.becomes(b, 'SECOND Ready');
    await pair.becomes(a, 'PRIM Ready');
    assert.equal((await load.stats()).moves, 0);
    writer.process.kill('SIGKILL');
    await pair.assertWritten(b, writer.last(), 'second-engine');
  });

  test('an application that ceases to answer is started again', async () => {
    assert.equal(a.kill(/lab_tool serve/), 1);
    // That the address is shut meanwhile may be over before it can be asked for.
    await eventually('a restart to be counted', async () =>
      (await pair.status(a)).loopCount === 1 ? true : null,
    );
    await pair.becomes(a, 'PRIM Ready');
    const { answers } = await load.stats();
    await load.until((stats) => stats.answers > answers + 20, 20_000);
    assert.match(await pair.story(a), /restart/);
    assert.equal((await pair.status(b)).state, 'SECOND');
  });

  test('a secondary whose disk is full is given up by a new epoch, and not before', async () => {
    const full = 'full';
    const small = '/run/data3';
    const there = (host: Host) => pair.cluster.client(host).module(full);
    for (const host of [a, b]) await host.exec(['mkdir', '-p', small]);
    await b.exec(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', small]);
    await pair.cluster.install(full, 'test/fixtures/modules/lab_pair', (xml) =>
      xml
        .replace('value="/run/data"', `value="${small}"`)
        .replace(/<vip [^]*<\/vip>/, '')
        .replace(/<ready [^]*?\/>/, '')
        .replaceAll(/<\/?user.*>|<var .*>/g, '')
        .replace('</service>', '<user/></service>'),
    );
    for (const host of [a, b])
      await host.exec(['sh', '-c', `rm /etc/holdfast/modules/${full}/bin/*`]);
    await pair.cluster.startModule(full);
    await pair.cluster.client(a).prim(full, false);
    await eventually('both in sync', async () =>
      (await there(b)).readiness === 'Ready' ? true : null,
    );
    const script = `dd if=/dev/zero of=${small}/f bs=1M count=24 conv=fsync 2>/dev/null && echo done`;
    assert.equal((await pair.sh(a, script)).stdout, 'done\n');
    const alone = await eventually('the primary to be alone', async () => {
      const status = await there(a);
      return `${status.state} ${status.readiness}` === 'ALONE Ready' ? status : null;
    });
    assert.deepEqual(alone.pair?.record?.inSync, [a.name]);
    assert.equal((await there(b)).readiness, 'NotReady');
    assert.match((await there(b)).why.join(), /copy has failed/);
    for (const host of [b, a]) await pair.cluster.client(host).command(full, 'stop');
  });

  test('a secondary that is stopped in order holds no write up', async () => {
    const writer = await pair.writer(a, 'leaves');
    await pair.cluster.client(b).command(module, 'stop');
    await pair.becomes(a, 'ALONE Ready');
    await pair.goesOn(writer);
    await pair.cluster.client(b).command(module, 'start');
    await pair.becomes(b, 'SECOND Ready');
    await pair.becomes(a, 'PRIM Ready');
    writer.process.kill('SIGKILL');
    await pair.assertWritten(b, writer.last(), 'leaves');
  });

  test('failover off: the secondary of a lost primary waits', async () => {
    await pair.cluster.client(b).failover(module, false);
    await a.power();
    await pair.becomes(b, 'WAIT NotReady');
    assert.match((await pair.status(b)).why.join(), /Failover-off/);
    await pair.boot(a);
    await pair.becomes(a, 'PRIM Ready');
    await pair.becomes(b, 'SECOND Ready');
    await pair.cluster.client(b).failover(module, true);
  });

  test('after both lost their power the service comes back by itself, with all data', async () => {
    const writer = await pair.writer(a, 'both');
    await Promise.all([a.power(), b.power()]);
    const count = writer.last();
    await Promise.all([pair.boot(a), pair.boot(b)]);
    await pair.settled();
    for (const host of [a, b]) await pair.assertWritten(host, count, 'both');
  });

  test('agents that are killed at any moment lose nothing', async () => {
    const writer = await pair.writer(a, 'kills');
    for (let round = 0; round < 4; round++) {
      const host = round % 2 === 0 ? a : b;
      host.kill(/^\S*node \S*agent\.js/);
      await pair.goesOn(writer);
    }
    await pair.becomes(a, 'PRIM Ready');
    await pair.becomes(b, 'SECOND Ready');
    writer.process.kill('SIGKILL');
    await pair.assertWritten(b, writer.last(), 'kills');
    assert.match((await pair.sh(b, `cat ${dir}/primaries`)).stdout, /s1\n$/);
  });
});
