/** The filter on a real cable: every hook, adoption, replacement, foreign programs, leases, sockets. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import {
  bucketFlag,
  filterObjectPath,
  type Hook,
  loadFilterAddon,
  openFilter,
} from '../../src/native/filter.ts';
import { builtFile } from '../../src/native/load.ts';
import {
  config,
  device,
  far,
  farmMac,
  hashKey,
  here,
  near,
  Pair,
  pinDir,
  shell,
  tcpPort,
} from './filter-pair.ts';
import { bucketOf } from './filter-siphash.ts';

const root = process.getuid?.() === 0;
const skip = root ? false : 'network namespaces and BPF need root';
const hooks: readonly Hook[] = ['xdp-native', 'xdp-generic', 'tc'];
const { own, hold, quiet } = bucketFlag;
const all = [true, true, true, true];
const none = [false, false, false, false];

describe('the filter on a cable', { skip }, async () => {
  if (!root) return;
  const addon = loadFilterAddon();
  const pair = await Pair.make(addon);
  after(() => pair.close());

  for (const hook of hooks) {
    test(`${hook}: answers, with the farm MAC, while the lease lives`, async () => {
      const filter = openFilter({ device, pinDir, hook });
      try {
        assert.deepEqual(
          { ...filter.info(), reasons: [] },
          { device, hook, adopted: false, reasons: [] },
        );
        filter.commit(config(own));
        pair.lease(true);
        await pair.forget();
        assert.deepEqual(await pair.answers(), all);
        const neighbours = String(await pair.shell('ip neigh show dev c0'));
        for (const vip of [near.vip4, near.vip6]) {
          assert.match(neighbours, new RegExp(`^${vip} lladdr ${farmMac}`, 'm'));
        }
        pair.lease(false);
        assert.deepEqual(await pair.answers(), none, 'silent after the lease');
        assert.ok((filter.counters().reasons['dropped_lease'] ?? 0) >= 4);
        await pair.forget();
        assert.equal(await pair.ask({ op: 'connect', addr: near.vip4, port: tcpPort }), 0);
        assert.doesNotMatch(String(await pair.shell('ip neigh show dev c0')), new RegExp(farmMac));
        pair.lease(true);
        await pair.forget();
        assert.deepEqual(await pair.answers(), all, 'open again');
        filter.commit(config(0));
        assert.deepEqual(await pair.answers(), none, "another server's buckets");
      } finally {
        filter.detach();
      }
    });

    test(`${hook}: outlives its process and is adopted`, async () => {
      const child = spawnSync(process.execPath, [here('filter-once.js'), hook]);
      assert.equal(child.signal, 'SIGKILL', child.stderr.toString());
      pair.lease(true);
      await pair.forget();
      assert.deepEqual(await pair.answers(), all, 'before anybody adopts it');
      const filter = openFilter({ device, pinDir });
      try {
        assert.deepEqual(
          { ...filter.info(), reasons: [] },
          { device, hook, adopted: true, reasons: [] },
        );
        assert.ok((filter.counters().reasons['accepted_own'] ?? 0) >= 4, 'counters go on');
        filter.commit(config(0));
        assert.deepEqual(await pair.answers(), none);
      } finally {
        filter.detach();
      }
    });

    test(`${hook}: another version takes over at its first commit`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'holdfast-filter-'));
      const objectPath = join(folder, 'farm.bpf.o');
      copyFileSync(filterObjectPath(), objectPath);
      appendFileSync(objectPath, 'another version');
      const old = openFilter({ device, pinDir, hook });
      try {
        old.commit(config(own));
        pair.lease(true);
        const before = openFilter({ device, pinDir, objectPath });
        assert.deepEqual([before.info().hook, before.info().adopted], [hook, false]);
        assert.deepEqual(await pair.answers(), all, 'the old one goes on');
        assert.equal(before.counters().reasons['accepted_own'], 0);
        before.commit(config(own));
        assert.deepEqual(await pair.answers(), all);
        assert.ok((before.counters().reasons['accepted_own'] ?? 0) >= 4, 'the new one decides');
        const again = openFilter({ device, pinDir, objectPath });
        assert.equal(again.info().adopted, true);
      } finally {
        old.detach();
        rmSync(folder, { recursive: true });
      }
    });

    test(`${hook}: the local socket decides while buckets move`, async () => {
      const filter = openFilter({ device, pinDir, hook });
      try {
        filter.commit(config(own));
        pair.lease(true);
        for (const addr of [near.vip4, near.vip6]) {
          const client = addr === near.vip4 ? far.v4 : far.v6;
          const local = Number(await pair.ask({ op: 'connect', addr, port: tcpPort }));
          assert.notEqual(local, 0);
          const [buckets] = await filter.socketBuckets(config(own));
          const bucket = bucketOf(hashKey, client, local);
          assert.ok(((buckets?.[bucket >> 3] ?? 0) >> (bucket & 7)) & 1, 'its bucket is reported');
          filter.commit(config(hold));
          assert.equal(await pair.ask({ op: 'echo', local }), true, 'HOLD keeps the connection');
          assert.equal(
            await pair.ask({ op: 'connect', addr, port: tcpPort }),
            0,
            'HOLD takes no new',
          );
          filter.commit(config(own | quiet));
          assert.equal(await pair.ask({ op: 'echo', local }), true, 'QUIET knows its own');
          const fresh = await pair.ask({ op: 'connect', addr, port: tcpPort });
          assert.notEqual(fresh, 0, 'QUIET takes new ones');
          filter.commit(config(0));
          assert.equal(await pair.ask({ op: 'echo', local }), false, 'without HOLD it is foreign');
          filter.commit(config(own));
        }
        const { reasons } = filter.counters();
        assert.ok((reasons['accepted_hold'] ?? 0) >= 2 && (reasons['accepted_quiet'] ?? 0) >= 2);
      } finally {
        filter.detach();
      }
    });

    test(`${hook}: SYN cookies are connections too`, async () => {
      const filter = openFilter({ device, pinDir, hook });
      try {
        shell('echo 2 > /proc/sys/net/ipv4/tcp_syncookies');
        filter.commit(config(own | quiet));
        pair.lease(true);
        for (const addr of [near.vip4, near.vip6]) {
          const local = Number(await pair.ask({ op: 'connect', addr, port: tcpPort }));
          assert.notEqual(local, 0);
          assert.equal(await pair.ask({ op: 'echo', local }), true);
        }
        assert.ok((filter.counters().reasons['accepted_cookie'] ?? 0) >= 2);
      } finally {
        shell('echo 1 > /proc/sys/net/ipv4/tcp_syncookies');
        filter.detach();
      }
    });
  }

  test('a foreign XDP program is left alone: tc, and the reason', async () => {
    const program = addon.loadProgram(builtFile('filter_bench.bpf.o'), 'bench_pass');
    const foreign = addon.attachProgram(program, device, true);
    try {
      assert.throws(() => openFilter({ device, pinDir, hook: 'xdp-native' }), {
        code: 'HF-NATIVE-010',
        message: /already runs another XDP program/,
      });
      const filter = openFilter({ device, pinDir });
      try {
        const { hook, reasons } = filter.info();
        assert.equal(hook, 'tc');
        assert.match(reasons.join('\n'), /^f0 already runs another XDP program \(id \d+\)$/);
        filter.commit(config(own));
        pair.lease(true);
        assert.deepEqual(await pair.answers(), all);
        const { reasons: remembered } = openFilter({ device, pinDir }).info();
        assert.deepEqual(remembered, reasons, 'who adopts it knows why');
      } finally {
        filter.detach();
      }
    } finally {
      foreign.close();
      program.close();
    }
  });

  test('a driver without native XDP: generic, and the reason', () => {
    const filter = openFilter({ device: 'lo', pinDir });
    try {
      assert.equal(filter.info().hook, 'xdp-generic');
      assert.deepEqual(filter.info().reasons, ['the driver of lo has no native XDP']);
    } finally {
      filter.detach();
    }
  });

  test('detach leaves nothing behind', () => {
    openFilter({ device, pinDir }).detach();
    assert.doesNotMatch(shell(`ip -d link show ${device}`), /xdp/);
    assert.equal(shell(`tc filter show dev ${device} ingress`), '');
    assert.equal(shell(`tc filter show dev ${device} egress`), '');
    assert.equal(existsSync(join(pinDir, device)), false);
    assert.equal(existsSync(join(pinDir, 'leases')), true, 'other devices use it');
  });

  test('without a bpffs one is mounted, and it says so', () => {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-filter-'));
    const filter = openFilter({ device, pinDir: folder });
    try {
      assert.match(
        filter.info().reasons.join('\n'),
        new RegExp(`a bpffs was mounted at ${folder}`),
      );
      assert.equal(existsSync(join(folder, 'leases')), true);
    } finally {
      filter.detach();
      shell(`umount ${folder}`);
      rmSync(folder, { recursive: true });
    }
  });

  test('what cannot be a farm device is refused with a sentence', () => {
    assert.throws(() => openFilter({ device: 'nothere', pinDir }), /no network device nothere/);
    shell('ip tuntap add hftun mode tun');
    assert.throws(() => openFilter({ device: 'hftun', pinDir }), /hftun is not an Ethernet device/);
    assert.throws(
      () => openFilter({ device, pinDir, objectPath: here('filter-live.test.js') }),
      /cannot read the filter program/,
    );
  });

  test('a device that went and came back gets a filter of its own', async () => {
    shell('ip link add v0 type veth peer name v1');
    openFilter({ device: 'v0', pinDir, hook: 'xdp-native' });
    shell('ip link del v0; ip link add v0 type veth peer name v1');
    const filter = openFilter({ device: 'v0', pinDir });
    assert.deepEqual([filter.info().hook, filter.info().adopted], ['xdp-native', false]);
    filter.detach();
    shell('ip link del v0');
  });
});
