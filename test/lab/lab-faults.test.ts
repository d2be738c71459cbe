import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import type { LoadGenerator, LoadStats } from '../../src/lab/clients.ts';
import { Lab } from '../../src/lab/lab.ts';
import { toolPath } from '../../src/lab/tool.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: it builds network namespaces';

/** Probability under 1e-6 that n tries at p deviate so far from n p (5 standard deviations). */
const within = (seen: number, n: number, p: number) =>
  Math.abs(seen - n * p) <= 5 * Math.sqrt(n * p * (1 - p)) + 1;

describe('faults', { skip, timeout: 180_000 }, () => {
  let lab: Lab;
  let one: LoadGenerator;
  let two: LoadGenerator;

  before(async () => {
    lab = await Lab.up({ hosts: 2, clients: 2, clientAddresses: 50 });
    for (const host of lab.hosts) {
      const server = await host.spawn([
        toolPath(),
        'serve',
        `name=${host.name}`,
        'tcp=80',
        'udp=53',
      ]);
      await once(server.child.stdout as Readable, 'data');
    }
    const options = { kind: 'udp', port: 53, count: 50, intervalMs: 20, timeoutMs: 400 } as const;
    one = await lab.load({ ...options, server: lab.host('s1').address() });
    two = await lab.load({ ...options, server: lab.host('s2').address() });
  });
  after(async () => lab?.down());
  beforeEach(async () => {
    await lab.heal();
    assert.deepEqual(lab.faults, []);
    for (const load of [one, two]) await settle(load);
  });

  /** What was under way when the fault began is not the fault's: let it end first. */
  async function settle(load: LoadGenerator, resume = true): Promise<void> {
    await load.pause();
    await load.until(({ waiting }) => waiting === 0, 20_000);
    await load.mark('test');
    if (resume) await load.resume();
  }

  const flows = (load: LoadGenerator) => load.until(({ answers }) => answers >= 100, 20_000);
  const silent = async (load: LoadGenerator) => {
    const stats = await load.until(({ timeouts }) => timeouts >= 100, 20_000);
    assert.equal(stats.answers, 0);
  };

  /** What the server got, by its own count of datagrams. */
  const received = async (name: string) => {
    const { stdout } = await lab.host(name).exec(['cat', '/proc/net/snmp']);
    const rows = stdout.split('\n').filter((row) => row.startsWith('Udp:'));
    const column = rows[0]?.split(' ').indexOf('InDatagrams') ?? -1;
    return Number(rows[1]?.split(' ')[column]);
  };

  test('a cut of one way: questions arrive, answers do not', async () => {
    const before = await received('s1');
    await lab.cut('s1', 'clients', 'to');
    await one.mark('cut');
    await silent(one);
    assert.ok((await received('s1')) - before >= 100);
    await flows(two);
  });

  test('a cut of the other way: nothing arrives', async () => {
    await lab.cut('s1', 'clients', 'from');
    await one.mark('cut');
    const before = await received('s1');
    await silent(one);
    assert.equal(await received('s1'), before);
  });

  test('heal brings it back, one fault at a time', async () => {
    const [first] = await lab.cut('s1', 'clients', 'to');
    await lab.cut('s2', 'clients', 'to');
    assert.equal(lab.faults.length, 2);
    await lab.heal(first);
    assert.equal(lab.faults.length, 1);
    await flows(one);
    await two.mark('cut');
    await silent(two);
    await lab.heal();
    await flows(two);
  });

  test('cut from everybody', async () => {
    await lab.cutAll('s1');
    await one.mark('cut');
    await silent(one);
    await flows(two);
  });

  test('a partition keeps each side whole', async () => {
    const far = await lab.load({
      kind: 'udp',
      port: 53,
      count: 50,
      intervalMs: 20,
      timeoutMs: 400,
      clients: 'clients2',
      server: lab.host('s2').address(),
    });
    await lab.partition(['s1', 'clients'], ['s2', 'clients2']);
    for (const load of [one, two, far]) await load.mark('cut');
    await flows(one);
    await flows(far);
    await silent(two);
    await far.stop();
  });

  for (const direction of ['in', 'out'] as const) {
    test(`a loss of 20 % ${direction}`, async () => {
      await lab.loss('s1', 20, { direction });
      await settle(one, false);
      const before = await received('s1');
      await one.resume();
      await one.until(({ tries }) => tries >= 3000, 60_000);
      await one.pause();
      const stats = await one.until(({ waiting }) => waiting === 0, 20_000);
      // Every request ends with an answer: each other try is a loss.
      assert.ok(within(stats.timeouts, stats.tries, 0.2), `${stats.timeouts} of ${stats.tries}`);
      const got = (await received('s1')) - before;
      const lost = direction === 'in' ? stats.timeouts : 0;
      assert.ok(Math.abs(stats.tries - lost - got) <= 2, `${got} of ${stats.tries} arrived`);
      await one.resume();
    });
  }

  test('a delay of 30 ms each way, and less once it is changed', async () => {
    const gap = async (): Promise<LoadStats> => {
      await settle(one);
      return flows(one);
    };
    assert.ok((await gap()).p50GapUs < 30_000);
    const [id] = await lab.delay('s1', 30);
    const slow = await gap();
    // A bin of the histogram is named by its lower end, 6 % below at worst.
    assert.ok(slow.p50GapUs >= 60_000 * 0.94, `${slow.p50GapUs} us`);
    await lab.delay('s1', 20, { direction: 'in' });
    assert.ok((await gap()).p50GapUs >= 80_000 * 0.94);
    await lab.heal(id);
    const rest = await gap();
    assert.ok(rest.p50GapUs >= 20_000 * 0.94 && rest.p50GapUs < 60_000, `${rest.p50GapUs} us`);
    await flows(two);
  });

  test('a cut holds also while the cable is delayed', async () => {
    await lab.delay('s1', 1);
    await lab.cut('s1', 'clients', 'to');
    await one.mark('cut');
    await silent(one);
  });

  test('half of the frames twice', async () => {
    await lab.duplicate('s1', 50, { direction: 'in' });
    await settle(one);
    const stats = await one.until(({ answers }) => answers >= 2000, 60_000);
    assert.ok(within(stats.doubles, stats.answers, 0.5), `${stats.doubles} of ${stats.answers}`);
  });

  test('a pulled cable', async () => {
    await lab.unplug('s1');
    const carrier = await lab.host('s1').exec(['cat', '/sys/class/net/eth0/carrier']);
    assert.equal(carrier.stdout.trim(), '0');
    await one.mark('cut');
    await silent(one);
    await lab.heal();
    await flows(one);
  });

  test('a stopped process, and a stopped host', async () => {
    const host = lab.host('s1');
    const server = host.processes().find(({ command }) => command.includes('serve'));
    assert.ok(server !== undefined);
    await lab.pause('s1', [server.id]);
    await one.mark('cut');
    await silent(one);
    await lab.heal();
    await flows(one);
    await lab.pause('s1');
    await one.mark('cut');
    await silent(one);
    await lab.heal();
    await flows(one);
  });

  test('busy processes, which end with the fault', async () => {
    const host = lab.host('s1');
    const before = host.processes().length;
    await lab.slow('s1', 3);
    assert.equal(host.processes().length, before + 3);
    await lab.heal();
    while (host.processes().length > before) await new Promise((r) => setTimeout(r, 5));
  });

  test('faults of the cable outlive a power cycle', async () => {
    await lab.delay('s2', 30);
    await lab.host('s2').power();
    await lab.host('s2').boot();
    const host = lab.host('s2');
    const server = await host.spawn([toolPath(), 'serve', 'name=s2', 'tcp=80', 'udp=53']);
    await once(server.child.stdout as Readable, 'data');
    await settle(two);
    assert.ok((await flows(two)).p50GapUs >= 60_000 * 0.94);
    await lab.heal();
    await settle(two);
    assert.ok((await flows(two)).p50GapUs < 60_000);
  });
});
