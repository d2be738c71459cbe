import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clearAddresses, nextAnnouncementMs, type VipOrder } from '../../src/host/mirror-vip.ts';
import { configOf, foreign, peerMac, vip4, vip6, World } from './mirror-vip-world.ts';
import { fc } from '../support/random.ts';

describe('the virtual IP of a mirror: its orders', () => {
  it('on, open, shut, open, off: each state of the filter once, resets before the addresses go', async (t) => {
    const world = new World(t);
    assert.equal(world.vip.status().open, false);
    for (const order of ['on', 'open', 'shut', 'open', 'off'] as const) {
      // oxlint-disable-next-line no-await-in-loop
      await world.vip.perform(order);
    }
    assert.deepEqual(world.log, [
      'shut',
      'open',
      'shut',
      'open',
      'shut',
      `reset ${vip4}`,
      `reset ${vip6}`,
      'guard',
    ]);
    assert.ok(world.records.includes(`2 connections of ${vip4} were reset`));
    assert.deepEqual(world.vip.status(), {
      addrs: [vip4, vip6],
      open: false,
      device: 'eth0',
      hook: 'tc',
    });
  });

  it('repeats nothing, and shuts or takes off nothing that is not there', async (t) => {
    const world = new World(t);
    for (const order of [
      'off',
      'shut',
      'on',
      'on',
      'open',
      'open',
      'off',
      'off',
      'shut',
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop
      await world.vip.perform(order);
    }
    assert.deepEqual(
      world.log.filter((what) => !what.startsWith('reset')),
      ['guard', 'shut', 'open', 'shut', 'guard'],
    );
  });

  it('resets no connections where the configuration says so', async (t) => {
    const world = new World(t, configOf('', 'tcpreset="off"'));
    await world.open();
    await world.vip.perform('off');
    assert.ok(!world.log.some((what) => what.startsWith('reset')));
  });

  it('is shut before perform returns, and waits for what is taken off before it puts it on again', async (t) => {
    const world = new World(t);
    await world.open();
    let done: (count: number) => void = () => {};
    world.resetting = new Promise((resolve) => {
      done = resolve;
    });
    world.log.length = 0;
    const off = world.vip.perform('off');
    assert.deepEqual(world.log, ['shut']);
    const on = world.vip.perform('on');
    const open = world.vip.perform('open');
    const shut = world.vip.perform('shut');
    const again = world.vip.perform('on');
    await world.pass(100);
    assert.deepEqual(world.log, ['shut', `reset ${vip4}`]);
    done(0);
    await Promise.all([off, on, open, shut, again]);
    // It was never open again: that order was overtaken.
    assert.deepEqual(world.log, ['shut', `reset ${vip4}`, `reset ${vip6}`, 'guard', 'shut']);
  });

  it('whatever is asked for and when: never open against the last order, and in the end where that says', async (t) => {
    const orders = fc.array(
      fc.record({
        order: fc.constantFrom<VipOrder>('probe', 'on', 'open', 'shut', 'off'),
        // How long to wait before the next one: not at all, for a moment, or until it is done.
        wait: fc.constantFrom('no', 'moment', 'done'),
      }),
      { maxLength: 12 },
    );
    t.mock.timers.enable({ apis: ['setTimeout'] });
    await fc.assert(
      fc.asyncProperty(orders, async (list) => {
        const world = new World(null);
        const at = () => world.log.filter((what) => !what.startsWith('reset')).at(-1) ?? 'guard';
        const pending: Promise<void>[] = [];
        for (const { order, wait } of list) {
          pending.push(world.vip.perform(order));
          if (order !== 'probe' && order !== 'open') assert.notEqual(at(), 'open');
          // oxlint-disable-next-line no-await-in-loop
          if (wait === 'moment') await new Promise((resolve) => setImmediate(resolve));
          // oxlint-disable-next-line no-await-in-loop
          if (wait === 'done') await Promise.all(pending);
        }
        await Promise.all(pending);
        const last = list.findLast(({ order }) => order !== 'probe')?.order ?? 'off';
        const expected = { on: 'shut', open: 'open', shut: 'shut', off: 'guard', probe: '' }[last];
        // An `on` that `shut` overtook may have been left out: then there is nothing to shut.
        const also = last === 'shut' ? 'guard' : expected;
        assert.ok([expected, also].includes(at()), `${at()} after ${last}`);
        assert.equal(world.vip.status().open, last === 'open');
        world.vip.abandon();
      }),
      { numRuns: 500 },
    );
  });

  it('tells of what the kernel refuses, and tries again until something else is asked for', async (t) => {
    const world = new World(t);
    world.refuses = true;
    await world.open();
    assert.match(world.alerts.get('module.db.vip') ?? '', /cannot be opened: no/);
    assert.equal(world.vip.status().open, false);
    await world.pass(2000);
    assert.equal(world.vip.status().open, false);
    world.refuses = false;
    await world.pass(1000);
    assert.equal(world.vip.status().open, true);
    assert.equal(world.alerts.size, 0);
    await world.vip.perform('off');
    await world.pass(5000);
    assert.equal(world.log.at(-1), 'guard');
    world.vip.remove();
    assert.equal(world.log.at(-1), 'removed');
  });

  it('guards them from the start on, and tries again where the filter refuses', async (t) => {
    const world = new World(t);
    world.refuses = true;
    world.vip.guard();
    assert.match(world.alerts.get('module.db.vip') ?? '', /cannot be guarded: no/);
    world.refuses = false;
    await world.pass(1000);
    assert.deepEqual(world.log, ['guard']);
    assert.equal(world.alerts.size, 0);
  });

  it('clears what nobody knows of, and only that', (t) => {
    const world = new World(t);
    world.addresses = [
      { device: 'eth1', addr: vip4, prefix: 24 },
      { device: 'eth0', addr: '10.0.0.1', prefix: 24 },
    ];
    clearAddresses(configOf(), world.link, (text) => world.records.push(text));
    assert.deepEqual(world.log, [`removed ${vip4}/24 eth1`]);
  });
});

describe('the virtual IP of a mirror: its announcements', () => {
  it('spread over the first seconds, then each minute, while it is open', async (t) => {
    const world = new World(t);
    await world.open();
    await world.pass(145_000);
    assert.deepEqual(
      world.announcedMs,
      [0, 200, 1300, 2500, 5000, 10_000, 20_000, 80_000, 140_000],
    );
    await world.vip.perform('shut');
    await world.pass(100_000);
    assert.equal(world.announcedMs.length, 9);
  });

  it('are said again when the lease runs again, and not while it is shut', async (t) => {
    const world = new World(t);
    world.vip.reannounce();
    assert.deepEqual(world.announcedMs, []);
    world.mute = true;
    await world.open();
    assert.deepEqual(world.records, [], 'the lease begins a moment later: no news');
    await world.pass(100);
    world.mute = false;
    world.vip.reannounce();
    await world.pass(1400);
    assert.deepEqual(world.announcedMs, [100, 300, 1400]);
  });

  it('that the kernel goes on refusing are recorded once', async (t) => {
    const world = new World(t);
    world.mute = true;
    await world.open();
    await world.pass(30_000);
    assert.deepEqual(world.records, ['the virtual IP is not announced: ENOBUFS']);
  });

  it('do not start anew for an agent that follows', async (t) => {
    const world = new World(t);
    world.vip.adopt(true);
    assert.deepEqual(world.log, ['open']);
    assert.equal(world.vip.status().open, true);
    await world.pass(61_000);
    assert.deepEqual(world.announcedMs, [60_000]);
    world.vip.abandon();
    await world.pass(120_000);
    assert.equal(world.announcedMs.length, 1);
  });

  it('by arpreroute come as often as it says, as long as it says', () => {
    const pace = { arpreroute: true, arpIntervalMs: 2000, arpElapseMs: 30_000 };
    const times: number[] = [0];
    while ((times.at(-1) ?? 0) < 100_000) times.push(nextAnnouncementMs(times.at(-1) ?? 0, pace));
    assert.deepEqual(times.slice(0, 7), [0, 200, 1300, 2500, 4500, 5000, 7000]);
    assert.deepEqual(times.slice(-4), [28_000, 30_000, 90_000, 150_000]);
    assert.ok(times.includes(20_000));
  });
});

describe('the virtual IP of a mirror: its neighbours', () => {
  it('another host that answers is told of; the address is defended each 10 s, no more', async (t) => {
    const world = new World(t);
    await world.open();
    await world.pass(30_000);
    assert.equal(world.alerts.size, 0);
    world.answers.set(vip4, foreign);
    await world.pass(60_000);
    const id = `module.db.duplicate.${vip4}`;
    assert.match(world.alerts.get(id) ?? '', new RegExp(`another host, ${foreign}`));
    world.announcedMs.length = 0;
    const fromMs = world.nowMs;
    await world.pass(60_000);
    const defences = world.announcedMs.length;
    assert.ok(defences >= 5 && defences <= 7, `${defences} announcements in a minute`);
    assert.ok(world.nowMs - fromMs === 60_000);
    world.answers.clear();
    await world.pass(10_000);
    assert.equal(world.alerts.size, 0);
    assert.ok(world.records.includes(`nobody else answers for ${vip4} any more`));
  });

  it('a claim that the filter saw is told of at once, and defended no more often', async (t) => {
    const world = new World(t);
    await world.open();
    await world.pass(25_000);
    world.announcedMs.length = 0;
    // Each 3 s another host advertises the IPv6 address; no question brings that to light.
    for (let round = 0; round < 10; round++) {
      world.claim = { mac: foreign, atMs: world.nowMs };
      // oxlint-disable-next-line no-await-in-loop
      await world.pass(1500);
      if (round === 0) {
        const alert = world.alerts.get(`module.db.duplicate.${vip6}`);
        assert.match(alert ?? '', new RegExp(`another host, ${foreign}`));
      }
      // oxlint-disable-next-line no-await-in-loop
      await world.pass(1500);
    }
    assert.ok(world.announcedMs.length <= 4, `${world.announcedMs.length} announcements in 30 s`);
    await world.pass(21_000);
    assert.equal(world.alerts.size, 0);
  });

  it('before it opens: a former primary is no alert, another host is one', async (t) => {
    const world = new World(t);
    world.answers.set(vip4, peerMac);
    world.answers.set(vip6, foreign);
    await world.vip.perform('probe');
    await world.pass(50);
    assert.deepEqual([...world.alerts.keys()], [`module.db.duplicate.${vip6}`]);
    assert.ok(world.records.includes(`${vip4} is still answered by db1`));
    // Once it is open, whoever answers is a duplicate; and one that is gone is none.
    await world.open();
    world.answers.delete(vip6);
    await world.pass(11_000);
    assert.deepEqual([...world.alerts.keys()], [`module.db.duplicate.${vip4}`]);
    await world.vip.perform('off');
    assert.equal(world.alerts.size, 0);
  });

  it('a probe that the opening overtook is made up for at once; one that the end overtook is void', async (t) => {
    const world = new World(t);
    let answer: () => void = () => {};
    world.probing = new Promise((resolve) => {
      answer = resolve;
    });
    world.answers.set(vip4, foreign);
    await world.vip.perform('probe');
    await world.open();
    await world.pass(50);
    answer();
    await world.pass(100);
    assert.deepEqual(world.probed, [vip4, vip4, vip6]);
    assert.deepEqual([...world.alerts.keys()], [`module.db.duplicate.${vip4}`]);

    world.probing = new Promise((resolve) => {
      answer = resolve;
    });
    await world.vip.perform('shut');
    await world.vip.perform('probe');
    await world.vip.perform('off');
    answer();
    await world.pass(100);
    assert.equal(world.alerts.size, 0);
  });

  it('a device that is down for a while ends no watch', async (t) => {
    const world = new World(t);
    world.gateway = '10.0.0.254';
    world.gatewayKnows = false;
    await world.open();
    const broken = Promise.reject(new Error('ENETDOWN'));
    broken.catch(() => {});
    world.probing = broken;
    world.asking = broken;
    await world.pass(90_000);
    assert.equal(world.records.filter((text) => text.includes('ENETDOWN')).length, 2);
    world.probing = world.asking = Promise.resolve();
    world.gatewayKnows = true;
    world.answers.set(vip4, foreign);
    await world.pass(60_000);
    assert.deepEqual([...world.alerts.keys()], [`module.db.duplicate.${vip4}`]);
    assert.ok(world.records.some((text) => text.startsWith('gateway 10.0.0.254 answers')));
  });

  it('the gateway that answers is recorded once, with the time it took', async (t) => {
    const world = new World(t);
    world.gateway = '10.0.0.254';
    await world.open();
    await world.pass(90_000);
    assert.equal(world.asked, 2);
    assert.ok(
      world.records.some((text) =>
        /^gateway 10.0.0.254 answers 10.0.0.100 \d+ ms after/.test(text),
      ),
    );
  });

  it('the gateway that does not is an alert after 20 s, until it does', async (t) => {
    const world = new World(t);
    world.gateway = '10.0.0.254';
    world.gatewayKnows = false;
    await world.open();
    await world.pass(19_000);
    assert.equal(world.alerts.size, 0);
    await world.pass(2000);
    assert.match(
      world.alerts.get(`module.db.gateway.${vip4}`) ?? '',
      /10.0.0.254 does not answer 10.0.0.100/,
    );
    world.gatewayKnows = true;
    await world.pass(60_000);
    assert.equal(world.alerts.size, 0);
  });
});
