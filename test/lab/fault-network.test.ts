/** Networks that lose heartbeats, one way or both, some or all, and farms in parts. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { alerted, calm, epochsAt, type Phase, Traffic } from './fault-support.ts';
import { Farm, skip } from './support.ts';

const all = ['s1', 's2', 's3'];
/** The second network carries heartbeats only; clients are on the first. */
const spare = 1;

describe('faults of networks', { skip, timeout: 300_000 }, () => {
  let farm: Farm;
  before(async () => {
    farm = await Farm.up({ lab: { lans: 2, clients: 2 } });
  });
  after(async () => farm?.down());
  afterEach(async () => {
    await Traffic.stop();
    await farm.lab.heal();
  });

  const assertUnmoved = async (phase: Phase, epochs: Readonly<Record<string, number>>) => {
    const { breaks, timeouts } = phase;
    assert.deepEqual({ breaks, timeouts }, { breaks: 0, timeouts: 0 }, JSON.stringify(phase));
    for (const name of all) assert.deepEqual(await epochsAt(farm, name), epochs, name);
  };

  test('one of two networks down: an alert, and nothing else happens', async () => {
    const epochs = await calm(farm, all);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();
    await farm.lab.cutAll('s2', 'both', spare);
    await alerted(farm, 's1', /^lan\.net2\.1$/);
    await alerted(farm, 's2', /^lan\.net2\.0$/);
    await alerted(farm, 's2', /^lan\.net2\.2$/);
    await traffic.healthy();
    const { alerts } = await farm.cluster.client(farm.host('s3')).status();
    assert.deepEqual(
      alerts.map(({ id }) => id),
      ['lan.net2.1'],
    );
    await farm.lab.heal();
    for (const name of all) await alerted(farm, name, /^lan\./, false);
    await assertUnmoved(await traffic.mark(), epochs);
  });

  test('a fifth of all packets of one network lost for 60 s: nothing moves', async () => {
    const epochs = await calm(farm, all);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();
    for (const name of all) await farm.lab.loss(name, 20, { lan: spare });
    await delay(60_000);
    await farm.lab.heal();
    for (const name of all) await alerted(farm, name, /^lan\./, false);
    await assertUnmoved(await traffic.mark(), epochs);
  });

  test('a farm in two parts: each side answers its clients; one farm again afterwards', async () => {
    // Less than TCP's first repeat of a SYN, which would hide a lost one; more than a busy machine takes.
    const near = await Traffic.start(farm, { timeoutMs: 900 });
    const far = await Traffic.start(farm, { timeoutMs: 900, clients: 'clients2' });
    await Promise.all([near.mark(), far.mark()]);
    await farm.lab.partition(['s1', 's2', 'clients'], ['s3', 'clients2']);
    await farm.settled(['s1', 's2']);
    await farm.settled(['s3']);
    await Promise.all([near.healthy(), far.healthy()]);
    await Promise.all([near.mark(), far.mark()]);
    await Promise.all([near.healthy(), far.healthy()]);
    const [two, one] = await Promise.all([near.mark(), far.mark()]);
    assert.deepEqual(Object.keys(two.servers).sort(), ['s1', 's2']);
    assert.deepEqual(Object.keys(one.servers), ['s3']);
    for (const phase of [two, one]) {
      assert.deepEqual([phase.breaks, phase.timeouts], [0, 0], JSON.stringify(phase));
    }

    await farm.lab.heal();
    await farm.settled(all);
    await Promise.all([near.healthy(), far.healthy()]);
    // Until the parts heard of each other, both answered: what counts is the farm from now on.
    await Promise.all([near.settle(), far.settle()]);
    await Promise.all([near.healthy(), far.healthy()]);
    for (const traffic of [near, far]) {
      const phase = await traffic.mark();
      assert.deepEqual(Object.keys(phase.servers).sort(), all);
      assert.deepEqual([phase.breaks, phase.timeouts], [0, 0], JSON.stringify(phase));
    }
  });

  /** Under a loss of one direction someone must serve every client, and never two one client. */
  const assertOneWay = async (cut: () => Promise<unknown>, heal: () => Promise<unknown>) => {
    const traffic = await Traffic.start(farm, { timeoutMs: 200 });
    await farm.settled(all);
    await traffic.mark();
    await cut();
    await alerted(farm, 's1', /^peer\.1\.oneway$/);
    await traffic.healthy();
    const during = await traffic.mark();
    assert.ok(during.answers > 0);
    await heal();
    await alerted(farm, 's1', /^peer\.1\.oneway$/, false);
    await farm.settled(all);
    await traffic.healthy();
    const phase = await traffic.mark();
    assert.deepEqual(Object.keys(phase.servers).sort(), all);
  };

  test('s1 no longer reaches s2, which reaches s1: nobody answers twice', async () => {
    await assertOneWay(
      () => farm.lab.cut('s1', 's2', 'to'),
      () => farm.lab.heal(),
    );
  });

  test('heartbeats alone are lost from s1 to s2: nobody answers twice', async () => {
    const nft = (script: string) => farm.host('s2').exec(['nft', '-f', '-'], { input: script });
    const from = [0, 1].map((lan) => farm.host('s1').address(lan)).join(', ');
    const lines = [
      'table ip fault {',
      'chain in {',
      'type filter hook input priority 0',
      `ip saddr { ${from} } udp dport 4800 drop`,
      '}',
      '}',
    ];
    await assertOneWay(
      () => nft(`${lines.join('\n')}\n`),
      () => nft('delete table ip fault'),
    );
  });
});
