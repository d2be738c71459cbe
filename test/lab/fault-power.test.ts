/** Servers that lose their power and get it back, and applications that die. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { alerted, lastAnswerMs, ready, Traffic } from './fault-support.ts';
import { Farm, skip } from './support.ts';

const all = ['s1', 's2', 's3'];
const mode = 'invisible';

describe('faults of machines and applications', { skip, timeout: 300_000 }, () => {
  let farm: Farm;
  before(async () => {
    farm = await Farm.up();
  });
  after(async () => farm?.down());
  afterEach(() => Traffic.stop());

  /** Waits until a module on a host is as wanted, while the others have all its buckets. */
  const served = (by: readonly string[], state: string, readiness: string) =>
    farm.cluster.until(`${mode} to be ${state} (${readiness}) on s2`, (statuses) => {
      const found = statuses.map(({ node, modules }) => ({
        node,
        module: modules.find(({ name }) => name === mode),
      }));
      const own = found.find(({ node }) => node === 's2')?.module;
      const groups = found.flatMap(({ node, module }) =>
        by.includes(node) ? [module?.farm?.groups.map(({ buckets }) => buckets) ?? []] : [],
      );
      const sums = groups[0]?.map((_, g) => groups.reduce((sum, one) => sum + (one[g] ?? 0), 0));
      return (
        own?.state === state &&
        own.readiness === readiness &&
        groups.length === by.length &&
        sums?.every((sum) => sum === 4096) === true
      );
    });

  const crash = () => assert.equal(farm.host('s2').kill(/serve name=s2 tcp=1/), 1);

  test('an application that dies: its server closes, its share moves, it is started again', async () => {
    const host = farm.host('s2');
    const script = `/etc/holdfast/modules/${mode}/bin/start_both`;
    const whole = host.readFile(script);
    const held = whole.replace('\n', '\nwhile [ -e /run/hold ]; do sleep 0.05; done\n');
    host.writeFile(script, held, 0o755);
    host.writeFile('/run/hold', '');
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    crash();
    await served(['s1', 's3'], 'UP', 'Transient');
    await traffic.healthy();
    await traffic.mark();
    await traffic.healthy();
    const without = await traffic.mark();
    assert.deepEqual([without.breaks, without.timeouts], [0, 0], JSON.stringify(without));
    const { why } = await farm.status(mode, 's2');
    assert.ok(why.length > 0);

    await host.exec(['rm', '/run/hold']);
    await ready(farm, all);
    await farm.settled(all);
    assert.equal((await farm.status(mode, 's2')).loopCount, 1);
    await traffic.healthy();
    const again = await traffic.mark();
    assert.equal(again.breaks, 0, JSON.stringify(again));
    host.writeFile(script, whole, 0o755);
  });

  test('an application that dies again and again: maxloop ends it, the others serve', async () => {
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    const { maxloop, loopCount } = await farm.status(mode, 's2');
    for (let loop = loopCount; loop < maxloop; loop++) {
      crash();
      await farm.cluster.until(
        `start number ${loop + 1}`,
        ([status]) => {
          const module = status?.modules.find(({ name }) => name === mode);
          return module?.loopCount === loop + 1 && module.readiness === 'Ready';
        },
        [farm.host('s2')],
      );
    }
    crash();
    await served(['s1', 's3'], 'STOP', 'NotReady');
    assert.match((await farm.status(mode, 's2')).why.join('\n'), /maxloop/);
    await traffic.healthy();
    await traffic.mark();
    await traffic.healthy();
    const without = await traffic.mark();
    assert.deepEqual([without.breaks, without.timeouts], [0, 0], JSON.stringify(without));

    // What an administrator starts counts anew.
    const started = await farm.cluster.client(farm.host('s2')).command(mode, 'start');
    assert.deepEqual([started.state, started.readiness, started.loopCount], ['UP', 'Ready', 0]);
    await farm.settled(all);
    await traffic.healthy();
    await traffic.mark();
  });

  test('the power of the leader is pulled, then that of the next; both come back', async () => {
    // Modules are to start by themselves when their server does.
    for (const host of farm.cluster.hosts) {
      for (const name of farm.modes) {
        const xml = host.readFile(`/etc/holdfast/modules/${name}/conf/userconfig.xml`);
        const client = farm.cluster.client(host);
        await client.applyConfig(name, xml.replace('boot="off"', 'boot="auto"'));
      }
    }
    await farm.settled(all);
    const traffic = await Traffic.start(farm, { timeoutMs: 200 });
    let left = all;
    for (const name of ['s1', 's2']) {
      const host = farm.host(name);
      left = left.filter((other) => other !== name);
      const pulledUs = await traffic.strike(() => host.power());
      await farm.settled(left);
      await traffic.healthy();
      const phase = await traffic.mark();
      assert.ok(lastAnswerMs(phase.seen, host, pulledUs) <= 0, 'no answer without power');
      await traffic.healthy();
      const after = await traffic.mark();
      assert.deepEqual(Object.keys(after.servers).sort(), left);
    }
    for (const name of ['s2', 's1']) {
      await farm.host(name).boot();
      await farm.cluster.startAgent(farm.host(name));
      left = [...left, name].sort();
      await ready(farm, left);
      await farm.settled(left);
      await traffic.healthy();
      const phase = await traffic.mark();
      assert.equal(phase.breaks, 0, JSON.stringify(phase));
      assert.ok((phase.servers[name] ?? 0) > 0, `${name} serves again`);
    }
    for (const name of all) await alerted(farm, name, /^/, false);
  });
});
