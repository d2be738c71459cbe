import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import type { Readable } from 'node:stream';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { repoRoot, toolPath } from '../../src/lab/tool.ts';
import type { LinkAddress, LinkDevice, LinkEvent } from '../../src/native/link.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: it builds network namespaces';

interface Answer {
  readonly result?: unknown;
  readonly error?: { readonly code: string };
}

/** A Link that lives in a lab host. */
class Puppet {
  readonly events: LinkEvent[] = [];
  private readonly answers: ((answer: { result?: unknown; error?: { code: string } }) => void)[] =
    [];
  private readonly watchers = new Set<() => void>();
  private readonly stdin: NodeJS.WritableStream;

  private constructor(stdin: NodeJS.WritableStream, stdout: Readable) {
    this.stdin = stdin;
    createInterface({ input: stdout }).on('line', (line) => {
      const message = JSON.parse(line) as { event?: LinkEvent } & Answer;
      if (message.event === undefined) return this.answers.shift()?.(message);
      this.events.push(message.event);
      for (const watcher of this.watchers) watcher();
    });
  }

  static async start(host: Host): Promise<Puppet> {
    const script = join(repoRoot, 'dist/test/native/link-puppet.js');
    const { child } = await host.spawn([process.execPath, script]);
    child.stderr?.pipe(process.stderr);
    return new Puppet(child.stdin as NodeJS.WritableStream, child.stdout as Readable);
  }

  async call<T>(verb: string, ...args: unknown[]): Promise<T> {
    const answer = new Promise<Answer>((resolve) => {
      this.answers.push(resolve);
    });
    this.stdin.write(`${JSON.stringify({ verb, args })}\n`);
    const { result, error } = await answer;
    if (error !== undefined) throw Object.assign(new Error(JSON.stringify(error)), error);
    return result as T;
  }

  /** Waits for an event; the test's own timeout bounds it. */
  event(match: (event: LinkEvent) => boolean): Promise<LinkEvent> {
    return new Promise((resolve) => {
      const look = () => {
        const found = this.events.find(match);
        if (found === undefined) return;
        this.watchers.delete(look);
        resolve(found);
      };
      this.watchers.add(look);
      look();
    });
  }
}

describe('link', { skip, timeout: 60_000 }, () => {
  let lab: Lab;
  let a: Host;
  let b: Host;
  let link: Puppet;

  before(async () => {
    lab = await Lab.up({ hosts: ['a', 'b'], clients: 0 });
    [a, b] = [lab.host('a'), lab.host('b')];
    link = await Puppet.start(a);
  });
  after(async () => lab?.down());

  const neighbour = async (host: Host, addr: string) =>
    /lladdr (\S+)/.exec((await host.exec(['ip', 'neigh', 'show', addr])).stdout)?.[1] ?? null;

  test('lists devices and addresses', async () => {
    const devices = await link.call<LinkDevice[]>('devices');
    const eth0 = devices.find((device) => device.name === 'eth0');
    assert.deepEqual(
      { mac: eth0?.mac, up: eth0?.up, mtu: eth0?.mtu },
      { mac: a.mac(), up: true, mtu: 1500 },
    );
    const addresses = await link.call<LinkAddress[]>('addresses');
    assert.ok(addresses.some((each) => each.addr === a.address() && each.prefix === 16));
    assert.ok(addresses.some((each) => each.addr === a.address(0, 6) && each.prefix === 64));
  });

  for (const family of [4, 6] as const) {
    test(`adds and removes an IPv${family} address, each twice without harm`, async () => {
      const vip = lab.vip(1, family);
      const prefix = family === 4 ? 32 : 128;
      const has = async () =>
        (await link.call<LinkAddress[]>('addresses')).some((each) => each.addr === vip);
      for (let i = 0; i < 2; i++) await link.call('addAddress', 'eth0', vip, prefix);
      assert.equal(await has(), true);
      const shown = (await a.exec(['ip', 'addr', 'show', 'to', vip])).stdout;
      assert.match(shown, /noprefixroute/);
      assert.doesNotMatch(shown, /tentative/);
      for (let i = 0; i < 2; i++) await link.call('removeAddress', 'eth0', vip, prefix);
      assert.equal(await has(), false);
      await link.call('removeAddress', 'none0', vip, prefix);
    });
  }

  test('says which device is missing', async () => {
    await assert.rejects(link.call('addAddress', 'none0', '10.0.0.1', 32), {
      code: 'HF-NATIVE-020',
      message: /none0.*ENODEV/,
    });
    await assert.rejects(link.call('announce', 'none0', '10.0.0.1', a.mac()), /ENODEV/);
    await assert.rejects(link.call('probe', 'none0', '10.0.0.1', 100), /ENODEV/);
  });

  for (const family of [4, 6] as const) {
    test(`an announcement moves a known IPv${family} neighbour to the new MAC`, async () => {
      const vip = lab.vip(2, family);
      const old = '02:00:00:00:00:0b';
      await b.exec(['ip', 'neigh', 'replace', vip, 'lladdr', old, 'dev', 'eth0', 'nud', 'stale']);
      assert.equal(await neighbour(b, vip), old);
      // Linux heeds an override within a second of the last change only if it is gratuitous.
      await link.call('announce', 'eth0', vip, a.mac());
      while ((await neighbour(b, vip)) !== a.mac()) await new Promise((r) => setTimeout(r, 10));
    });
  }

  test('the announcement of a farm MAC does not teach it to the switch', async () => {
    const farm = '03:00:00:00:00:99';
    const vip = lab.vip(3);
    await b.exec(['ip', 'neigh', 'replace', vip, 'lladdr', a.mac(), 'dev', 'eth0', 'nud', 'stale']);
    await link.call('announce', 'eth0', vip, farm);
    while ((await neighbour(b, vip)) !== farm) await new Promise((r) => setTimeout(r, 10));
    assert.doesNotMatch(await lab.switchExec(['bridge', 'fdb']), new RegExp(farm));
  });

  for (const family of [4, 6] as const) {
    test(`a probe finds who has an IPv${family} address, and nobody otherwise`, async () => {
      assert.equal(await link.call('probe', 'eth0', b.address(0, family), 2000), b.mac());
      assert.equal(await link.call('probe', 'eth0', lab.vip(99, family), 100), null);
      // Our own address is not somebody else's.
      assert.equal(await link.call('probe', 'eth0', a.address(0, family), 100), null);
    });
  }

  for (const family of [4, 6] as const) {
    test(`a question about IPv${family} teaches who is asked where the asker is`, async () => {
      const vip = lab.vip(7, family);
      const prefix = family === 4 ? 32 : 128;
      await link.call('addAddress', 'eth0', vip, prefix);
      await b.exec(['ip', 'neigh', 'flush', 'all']);
      assert.equal(await link.call('ask', 'eth0', vip, b.address(0, family), 2000), b.mac());
      assert.equal(await neighbour(b, vip), a.mac());
      assert.equal(await link.call('ask', 'eth0', vip, lab.vip(99, family), 100), null);
      await link.call('removeAddress', 'eth0', vip, prefix);
    });
  }

  test('a further MAC is let in and shut out', async () => {
    const list = async () => (await a.exec(['bridge', 'fdb', 'show', 'dev', 'eth0'])).stdout;
    const promiscuity = async () =>
      (await a.exec(['ip', '-d', 'link', 'show', 'eth0'])).stdout.match(/promiscuity (\d+)/)?.[1];
    for (const mac of ['02:00:00:00:00:99', '03:00:00:00:00:99']) {
      assert.equal(await link.call('allowMac', 'eth0', mac), 'fdb');
      assert.equal(await link.call('allowMac', 'eth0', mac), 'fdb');
      // The kernel lists unicast entries of the device itself; multicast ones are in maddr.
      const maddr = (await a.exec(['ip', 'maddr', 'show', 'dev', 'eth0'])).stdout;
      assert.match((await list()) + maddr, new RegExp(mac));
      await link.call('disallowMac', 'eth0', mac);
      await link.call('disallowMac', 'eth0', mac);
      const rest = (await a.exec(['ip', 'maddr', 'show', 'dev', 'eth0'])).stdout;
      assert.doesNotMatch((await list()) + rest, new RegExp(mac));
    }
    assert.equal(await promiscuity(), '0');
  });

  test('tells changes of links and addresses once each', async () => {
    await link.call('onEvents');
    const seen = link.events.length;
    await link.call('addAddress', 'eth0', lab.vip(5), 32);
    await link.event((e) => e.kind === 'addr' && e.added && e.addr === lab.vip(5));
    await link.call('removeAddress', 'eth0', lab.vip(5), 32);
    await link.event((e) => e.kind === 'addr' && !e.added && e.addr === lab.vip(5));
    const ids = await lab.unplug('a');
    await link.event((e) => e.kind === 'link' && e.device === 'eth0' && !e.up);
    for (const id of ids) await lab.heal(id);
    await link.event((e) => e.kind === 'link' && e.device === 'eth0' && e.up);
    const links = link.events.slice(seen).filter((e) => e.kind === 'link');
    assert.deepEqual(links, [
      { kind: 'link', device: 'eth0', up: false },
      { kind: 'link', device: 'eth0', up: true },
    ]);
  });

  for (const family of [4, 6] as const) {
    test(`resets the IPv${family} connections of one address and no others`, async () => {
      const vip = lab.vip(6, family);
      const prefix = family === 4 ? 16 : 64;
      await link.call('addAddress', 'eth0', vip, prefix);
      const server = await a.spawn([toolPath(), 'serve', 'name=a', 'tcp=80', 'udp=0']);
      await once(server.child.stdout as Readable, 'data');
      const connect = async (addr: string) => {
        const open = `const s = require('net').connect(80, '${addr}');
          s.on('connect', () => console.log('connect'));
          s.on('error', (e) => console.log(e.code)); s.on('end', () => console.log('end'));`;
        const { child } = await b.spawn([process.execPath, '-e', open]);
        const lines = createInterface({ input: child.stdout as Readable });
        const [first] = (await once(lines, 'line')) as [string];
        assert.equal(first, 'connect');
        return { child, next: () => once(lines, 'line') };
      };
      const onVip = await connect(vip);
      const other = await connect(a.address(0, family));
      const told = onVip.next();
      assert.equal(await link.call('resetConnections', vip), 1);
      assert.deepEqual(await told, ['ECONNRESET']);
      assert.equal(await link.call('resetConnections', vip), 0);
      assert.equal(await link.call('resetConnections', a.address(0, family)), 1);
      other.child.kill('SIGKILL');
      server.kill('SIGKILL');
      await server.ended;
    });
  }

  test('says that there is no service manager', async () => {
    assert.equal(await link.call('notify', 'READY=1'), false);
  });

  test('closes while events come in', async () => {
    const other = await Puppet.start(b);
    await other.call('onEvents');
    for (let i = 1; i <= 20; i++) await other.call('addAddress', 'lo', `10.99.0.${i}`, 32);
    await other.call('close');
    await other.call('close');
    assert.ok((await other.call<LinkDevice[]>('devices')).length > 0);
  });
});
