import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import type { LoadGenerator, LoadStats } from '../../src/lab/clients.ts';
import type { Host, HostProcess } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { toolPath } from '../../src/lab/tool.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: it builds network namespaces';

export async function serve(host: Host): Promise<HostProcess> {
  const argv = [toolPath(), 'serve', `name=${host.name}`, 'tcp=80', 'udp=53'];
  const server = await host.spawn(argv);
  await once(server.child.stdout as Readable, 'data');
  return server;
}

describe('hosts', { skip, timeout: 120_000 }, () => {
  let lab: Lab;
  before(async () => {
    lab = await Lab.up({ hosts: 2, lans: 2, clientAddresses: 20 });
    for (const host of lab.hosts) await serve(host);
  });
  after(async () => lab?.down());

  const answers = async (server: string, kind: 'tcp' | 'keep' | 'udp') => {
    const port = kind === 'udp' ? 53 : 80;
    const load = await lab.load({ kind, server, port, count: 20, intervalMs: 20, timeoutMs: 5000 });
    const stats = await load.until(({ answers: n }) => n >= 100, 20_000);
    await load.stop();
    return stats;
  };

  for (const kind of ['tcp', 'keep', 'udp'] as const) {
    for (const family of [4, 6] as const) {
      test(`${kind} clients of IPv${family} are answered, each from its own address`, async () => {
        const sniffer = await lab.sniff();
        const stats = await answers(lab.host('s1').address(0, family), kind);
        assert.deepEqual(stats.clientsByServer, { s1: 20 });
        assert.equal(stats.resets + stats.refused + stats.closed + stats.doubles, 0);
        const seen = await sniffer.stop();
        assert.deepEqual(Object.keys(kind === 'udp' ? seen.udpByMac : seen.synAcksByMac), [
          lab.host('s1').mac(),
        ]);
        assert.equal(seen.doubles, 0);
      });
    }
  }

  test('two networks, each with its own addresses', async () => {
    const [a, b] = [lab.host('s1'), lab.host('s2')];
    for (const lan of [0, 1]) {
      const get = `require('net').connect({ host: '${b.address(lan)}', port: 80, localAddress:
        '${a.address(lan)}' }).on('connect', () => process.exit(7))`;
      assert.equal((await a.exec([process.execPath, '-e', get], { check: false })).code, 7);
    }
  });

  test('files of one host are not seen by the other', async () => {
    const [a, b] = [lab.host('s1'), lab.host('s2')];
    for (const folder of [
      '/etc/holdfast',
      '/var/lib/holdfast',
      '/run/holdfast',
      '/var/log/holdfast',
    ]) {
      a.writeFile(`${folder}/mark`, 'a', 0o600);
      assert.equal((await a.exec(['cat', `${folder}/mark`])).stdout, 'a');
      assert.equal(b.exists(`${folder}/mark`), false);
    }
    assert.equal((await a.exec(['hostname'])).stdout.trim(), 's1');
  });

  test('each host has a bpf file system and a /sys of its own', async () => {
    const [a, b] = [lab.host('s1'), lab.host('s2')];
    await a.exec(['mkdir', '/sys/fs/bpf/holdfast']);
    assert.equal(b.exists('/sys/fs/bpf/holdfast'), false);
    const type = await a.exec(['stat', '-f', '-c', '%t', '/sys/fs/bpf']);
    assert.equal(type.stdout.trim(), 'cafe4a11'); // BPF_FS_MAGIC
    assert.equal((await a.exec(['ls', '/sys/class/net'])).stdout, 'eth0\neth1\nlo\n');
  });

  test('a command: its output, its code, its input, its time limit', async () => {
    const host = lab.host('s1');
    const output = await host.exec(['sh', '-c', 'cat; echo err >&2; exit 3'], {
      input: 'in',
      check: false,
    });
    assert.deepEqual(output, { code: 3, stdout: 'in', stderr: 'err\n' });
    await assert.rejects(host.exec(['false']), { code: 'HF-LAB-010' });
    assert.equal((await host.exec(['sleep', '60'], { timeoutMs: 50, check: false })).code, 137);
    assert.equal((await host.exec(['no-such-command'], { check: false })).code, 127);
  });

  test('a spawned process is known by its outside pid and dies by its own signal', async () => {
    const host = lab.host('s1');
    const child = await host.spawn(['sleep', '1000']);
    assert.ok(host.processes().some(({ id }) => id === child.id));
    assert.equal(child.kill('SIGTERM'), true);
    assert.equal(await child.ended, 128 + 15);
    assert.equal(child.kill('SIGTERM'), false);
  });

  test('an agent that ends at once is an error with its log', async () => {
    const argv = ['sh', '-c', 'echo broken; exit 1'];
    const host = lab.host('s1');
    await assert.rejects(host.startAgent({ argv, waitMs: 5000 }), {
      code: 'HF-LAB-007',
      message: /ended\nbroken/,
    });
  });

  test('an agent is up once its socket takes a connection', async () => {
    const host = lab.host('s1');
    const listen = "require('net').createServer().listen('/run/holdfast/agent.sock')";
    const argv = [process.execPath, '-e', `setTimeout(() => ${listen}, 300)`];
    const agent = await host.startAgent({ argv });
    assert.equal(host.exists('/run/holdfast/agent.sock'), true);
    agent.kill('SIGKILL');
    await agent.ended;
  });

  test('unknown names and bad values are refused', async () => {
    assert.throws(() => lab.host('nobody'), { code: 'HF-LAB-005' });
    await assert.rejects(lab.cut('s1', 'nobody'), { code: 'HF-LAB-005' });
    await assert.rejects(lab.cut('s1', 's2', 'both', 5), { code: 'HF-LAB-009' });
    assert.throws(() => lab.loss('s1', 101), { code: 'HF-LAB-009' });
    await assert.rejects(Lab.up({ hosts: 0 }), { code: 'HF-LAB-009' });
    assert.deepEqual(lab.faults, []);
  });
});

describe('power', { skip, timeout: 120_000 }, () => {
  let lab: Lab;
  before(async () => {
    lab = await Lab.up({ hosts: 2, clientAddresses: 10 });
  });
  after(async () => lab?.down());

  test('a power cut ends every process of the host without a word on the wire', async () => {
    const [a, b] = [lab.host('s1'), lab.host('s2')];
    const server = await serve(a);
    // A process in a session of its own, orphaned: nobody but the namespace can end it.
    await a.exec(['sh', '-c', '(setsid sleep 1000 &) ; exit 0']);
    const load = await lab.load({
      kind: 'keep',
      server: a.address(),
      count: 10,
      intervalMs: 10,
      timeoutMs: 0,
    });
    await load.until(({ answers }) => answers > 20, 20_000);
    const sniffer = await lab.sniff();
    const before = a.processes();
    assert.ok(before.length >= 2);
    await a.power();
    assert.equal(await server.ended, 137);
    assert.equal(a.isOn, false);
    assert.throws(() => a.process, { code: 'HF-LAB-008' });
    const gone = await load.until(({ waiting }) => waiting === 10, 20_000);
    assert.equal(gone.resets + gone.closed + gone.refused, 0);
    assert.equal((await sniffer.stop()).resets, 0);
    await load.stop();
    assert.equal(b.isOn, true);
  });

  test('its disk is there after boot, its memory and boot id are not', async () => {
    const host = lab.host('s1');
    if (!host.isOn) await host.boot();
    host.writeFile('/var/lib/holdfast/kept', 'disk');
    host.writeFile('/run/holdfast/lost', 'memory');
    await host.exec(['mkdir', '/sys/fs/bpf/lost']);
    const bootId = () => host.exec(['cat', '/proc/sys/kernel/random/boot_id']);
    const former = (await bootId()).stdout;
    assert.equal((await bootId()).stdout, former);
    assert.match(former, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n$/);
    await host.power();
    await host.power();
    await host.boot();
    await host.boot();
    assert.notEqual((await bootId()).stdout, former);
    assert.equal(host.readFile('/var/lib/holdfast/kept'), 'disk');
    assert.equal(host.exists('/run/holdfast/lost'), false);
    assert.equal(host.exists('/sys/fs/bpf/lost'), false);
    await serve(host);
    const load = await lab.load({
      kind: 'tcp',
      server: host.address(),
      count: 10,
      timeoutMs: 5000,
    });
    await load.until(({ answers }) => answers >= 10, 20_000);
    await load.stop();
  });
});

describe('clients', { skip, timeout: 120_000 }, () => {
  let lab: Lab;
  let load: LoadGenerator | null = null;
  before(async () => {
    lab = await Lab.up({ hosts: 2, clientAddresses: 50 });
    for (const host of lab.hosts) await serve(host);
  });
  after(async () => lab?.down());

  test('resets, refusals, ends and silence are told apart', async () => {
    const host = lab.host('s1');
    const program = `const net = require('net');
      net.createServer((s) => { s.on('error', () => {}); s.once('data', () => s.resetAndDestroy()); }).listen(81);
      net.createServer((s) => { s.on('error', () => {}); s.once('data', () => s.end('HTTP/1.1 2')); }).listen(82);
      net.createServer((s) => s.on('error', () => {}), console.log('ready')).listen(83);`;
    const server = await host.spawn([process.execPath, '-e', program]);
    await once(server.child.stdout as Readable, 'data');
    const tally = async (port: number, what: (stats: LoadStats) => number) => {
      const generator = await lab.load({
        kind: 'tcp',
        server: host.address(),
        port,
        count: 5,
        intervalMs: 50,
        timeoutMs: 200,
      });
      await generator.until((stats) => what(stats) >= 5, 20_000);
      const { resets, refused, closed, timeouts, answers } = await generator.stop();
      return {
        resets: resets > 0,
        refused: refused > 0,
        closed: closed > 0,
        timeouts: timeouts > 0,
        answers,
      };
    };
    const none = { resets: false, refused: false, closed: false, timeouts: false, answers: 0 };
    // The servers may still be starting when the first try comes: not refused is not asserted.
    assert.deepEqual(
      { ...(await tally(81, (s) => s.resets)), refused: false },
      { ...none, resets: true },
    );
    assert.deepEqual(await tally(82, (s) => s.closed), { ...none, closed: true });
    assert.deepEqual(await tally(83, (s) => s.timeouts), { ...none, timeouts: true });
    assert.deepEqual(await tally(84, (s) => s.refused), { ...none, refused: true });
    server.kill('SIGKILL');
  });

  test('two servers that both answer are both seen', async () => {
    // The clients' frames to one MAC that the switch floods; both hosts take it as theirs.
    const vip = lab.vip(1);
    const farm = '02:00:00:00:00:fa';
    for (const host of lab.hosts) {
      await host.exec(['ip', 'addr', 'add', `${vip}/32`, 'dev', 'lo']);
      await host.exec([
        'ip',
        'link',
        'add',
        'farm0',
        'link',
        'eth0',
        'address',
        farm,
        'type',
        'macvlan',
      ]);
      // Silent: the switch must go on flooding what is sent to this MAC.
      await host.exec(['sh', '-c', 'echo 1 > /proc/sys/net/ipv6/conf/farm0/disable_ipv6']);
      await host.exec(['ip', 'link', 'set', 'farm0', 'arp', 'off', 'up']);
    }
    const clients = lab.host('clients');
    await clients.exec(['ip', 'neigh', 'replace', vip, 'lladdr', farm, 'dev', 'eth0']);
    const sniffer = await lab.sniff();
    const udp = await lab.load({ kind: 'udp', server: vip, port: 53, count: 50, intervalMs: 100 });
    const doubled = await udp.until(({ doubles }) => doubles >= 50, 20_000);
    assert.ok(doubled.doubles <= doubled.tries);
    await udp.stop();
    const tcp = await lab.load({ kind: 'tcp', server: vip, count: 50, intervalMs: 100 });
    let seen = await sniffer.stats();
    while (seen.doubles < 50) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      seen = await sniffer.stats();
    }
    assert.equal(Object.keys(seen.synAcksByMac).length, 2);
    assert.match(seen.examples[0] ?? '', /answered by .* and /);
    await tcp.stop();
    await sniffer.stop();
  });

  test('a phase begins at 0 and hands over the one before', async () => {
    load = await lab.load({ kind: 'udp', server: lab.host('s1').address(), port: 53, count: 50 });
    await load.until(({ answers }) => answers >= 50, 20_000);
    await load.pause();
    await load.until(({ waiting }) => waiting === 0, 20_000);
    const first = await load.mark('second');
    assert.equal(first.mark, 'start');
    assert.equal(first.requests, first.answers);
    const second = await load.stats();
    assert.deepEqual([second.mark, second.requests, second.answers], ['second', 0, 0]);
    await load.resume();
    await load.until(({ answers }) => answers >= 50, 20_000);
    const list = await load.clients();
    assert.equal(new Set(list.map(({ addr }) => addr)).size, 50);
    assert.ok(list.every(({ server, moves }) => server === 's1' && moves === 0));
    await load.stop();
    await assert.rejects(load.stats(), { code: 'HF-LAB-013' });
  });
});
