import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Host, HostProcess } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { repoRoot, toolPath } from '../../src/lab/tool.ts';
import type { BeatLease } from '../../src/native/beat.ts';
import type { PuppetOrder } from './vip-puppet.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: it builds network namespaces';

type Line = Readonly<Record<string, unknown>>;

/** One server of the mirror: holdfastd and an agent that does as it is told. */
class Server {
  readonly host: Host;
  readonly process: HostProcess;
  readonly lines: Line[] = [];
  #at = 0;
  #wake: () => void = () => {};

  private constructor(host: Host, process: HostProcess) {
    this.host = host;
    this.process = process;
    process.child.stderr?.resume();
    createInterface({ input: process.child.stdout as Readable }).on('line', (line) => {
      this.lines.push(JSON.parse(line) as Line);
      this.#wake();
    });
  }

  static async start(host: Host, peer: Host, lab: Lab): Promise<Server> {
    const argv = [
      join(repoRoot, 'build/Release/holdfastd'),
      '--',
      process.execPath,
      join(repoRoot, 'dist/test/lab/vip-puppet.js'),
    ];
    const started = await host.spawn(argv, {
      env: {
        VIP_NODES: [host, peer]
          .toSorted((one, two) => one.name.localeCompare(two.name))
          .map((one) => `${one.name}=${one.address()}`)
          .join(','),
        VIP_ME: host.name,
        VIP_ADDRS: `${lab.vip(1)},${lab.vip(1, 6)};${secondVip(host)}`,
        VIP_PEER_MACS: `${peer.mac(0)},${peer.mac(1)}`,
      },
    });
    const server = new Server(host, started);
    await server.next((line) => 'started' in line);
    return server;
  }

  /** The next line that matches; what was passed is gone. The test's own timeout bounds it. */
  async next(match: (line: Line) => boolean): Promise<Line> {
    for (;;) {
      while (this.#at < this.lines.length) {
        const line = this.lines[this.#at++];
        if (line !== undefined && match(line)) return line;
      }
      // oxlint-disable-next-line no-await-in-loop
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async order(order: PuppetOrder): Promise<unknown> {
    const before = this.#at;
    this.process.child.stdin?.write(`${JSON.stringify(order)}\n`);
    const { answer } = await this.next((line) => 'answer' in line);
    // What came on the way to the answer is still to be read.
    this.#at = before;
    this.lines.splice(
      this.lines.findIndex((line, i) => i >= before && 'answer' in line),
      1,
    );
    return answer;
  }

  vip(order: Extract<PuppetOrder, { op: 'vip' }>['order']): Promise<unknown> {
    return this.order({ op: 'vip', order });
  }

  announce(lease: BeatLease, consent = false, epoch = 1): Promise<unknown> {
    return this.order({ op: 'announce', lease, consent, epoch });
  }

  async open(lease: BeatLease = own): Promise<void> {
    await this.vip('on');
    await this.announce(lease);
    await this.vip('open');
  }

  async close(): Promise<void> {
    await this.vip('shut');
    await this.announce({ rule: 'off' });
    await this.vip('off');
  }
}

/** The agent alone: holdfastd's command line ends as its own. */
const agent = /^\S*\/node \S*vip-puppet/;
const leaseMs = 600;
/** On the second network, which no client but the third host is on. */
const secondVip = (host: Host) => host.address(1).replace(/\d+\.\d+$/, '1.77');
const own: BeatLease = { rule: 'own', leaseMs };

describe('the virtual IP of a mirror', { skip, timeout: 240_000 }, () => {
  let lab: Lab;
  let a: Server;
  let b: Server;
  let client: Host;

  before(async () => {
    lab = await Lab.up({ hosts: 3, lans: 2, clients: 1, clientAddresses: 2 });
    client = lab.host('s3');
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
  });
  after(async () => lab?.down());
  beforeEach(async () => {
    a = await Server.start(lab.host('s1'), lab.host('s2'), lab);
    b = await Server.start(lab.host('s2'), lab.host('s1'), lab);
    await Promise.all([a, b].map((one) => one.next(({ reach }) => reach === 'both')));
    await client.exec(['ip', 'neigh', 'flush', 'all']);
  });
  afterEach(async () => {
    for (const server of [a, b]) {
      server.process.kill('SIGCONT');
      server.host.kill(agent, 'SIGCONT');
      server.process.kill('SIGTERM');
      // As after a restart of the machine: the next one does not know what this one did.
      server.host.writeFile('/run/vip-puppet.json', '{"announced":null,"where":"off"}');
    }
    await Promise.all([a, b].map(({ process: { ended } }) => ended));
  });

  const vips = () => [lab.vip(1), lab.vip(1, 6)] as const;
  /** Who answers at an address; null: nobody, within the time. */
  async function who(addr: string, from: Host = client): Promise<string | null> {
    const script = `
      const socket = require('net').connect({ host: '${addr}', port: 80 });
      const end = (text) => { console.log(text); process.exit(); };
      socket.setTimeout(400, () => end(''));
      socket.on('error', () => end(''));
      socket.on('connect', () => socket.write('GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'));
      socket.on('data', (data) => end(String(data).trim().split(/\\s+/).at(-1)));`;
    const { stdout } = await from.exec([process.execPath, '-e', script]);
    return stdout.trim() === '' ? null : stdout.trim();
  }
  const whoAll = async (from: Host = client) => {
    const answers: (string | null)[] = [];
    // oxlint-disable-next-line no-await-in-loop
    for (const addr of vips()) answers.push(await who(addr, from));
    return answers;
  };
  const both = (name: string | null) => [name, name];

  test('answers only while it is open and leased, on IPv4 and IPv6', async () => {
    assert.deepEqual(await whoAll(), both(null));
    await a.vip('on');
    assert.deepEqual(await whoAll(), both(null), 'the addresses are there, the filter is shut');
    await a.announce(own);
    assert.deepEqual(await whoAll(), both(null), 'and leased');
    await a.vip('open');
    assert.deepEqual(await whoAll(), both('s1'));
    assert.deepEqual(await whoAll(b.host), both('s1'), 'from the other server too');
    await a.vip('shut');
    assert.deepEqual(await whoAll(), both(null));
    await a.vip('open');
    assert.deepEqual(await whoAll(), both('s1'));
    await a.announce({ rule: 'off' });
    assert.deepEqual(await whoAll(), both(null), 'open, but not leased');
    await a.vip('off');
    const { stdout } = await a.host.exec(['ip', 'addr']);
    for (const addr of vips()) assert.ok(!stdout.includes(`${addr}/`), addr);
    const status = (await a.order({ op: 'status' })) as { open: boolean; addrs: readonly string[] };
    assert.equal(status.open, false);
    assert.deepEqual(status.addrs, [...vips(), secondVip(a.host)]);
  });

  test('is on each network to which one of its addresses belongs', async () => {
    const second = secondVip(a.host);
    await a.open();
    assert.equal(await who(second), 's1');
    const { stdout } = await client.exec(['ip', 'neigh', 'show', second]);
    assert.match(stdout, new RegExp(`dev eth1 lladdr ${a.host.mac(1)}`));
    assert.match(
      (await a.host.exec(['ip', '-o', 'addr', 'show', 'dev', 'eth1'])).stdout,
      new RegExp(second),
    );
    await a.announce({ rule: 'off' });
    assert.equal(await who(second), null);
    await a.close();
    assert.ok(!(await a.host.exec(['ip', 'addr'])).stdout.includes(second));
  });

  test('a lease that lapses silences it in the kernel, with all processes stopped', async () => {
    await b.announce({ rule: 'off' }, true);
    await a.open({ rule: 'peer', peer: 1, leaseMs });
    await a.next(({ lease }) => lease === true);
    assert.deepEqual(await whoAll(), both('s1'));
    // The agent alone, and then holdfastd with it: nobody is left to shut anything.
    assert.equal(a.host.kill(agent, 'SIGSTOP') > 0, true);
    assert.deepEqual(await whoAll(), both('s1'), 'holdfastd goes on');
    a.process.kill('SIGSTOP');
    await b.next(({ reach }) => reach === 'silent');
    while ((await who(vips()[0])) !== null);
    assert.deepEqual(await whoAll(), both(null));
    a.host.kill(agent, 'SIGCONT');
    a.process.kill('SIGCONT');
    await a.next(({ lease }) => lease === false);
    await a.next(({ lease }) => lease === true);
    assert.deepEqual(await whoAll(), both('s1'), 'and by consent it is back');
  });

  test('without the consent of the peer it lapses, though both hear each other', async () => {
    await b.announce({ rule: 'off' }, true);
    await a.open({ rule: 'peer', peer: 1, leaseMs });
    await a.next(({ lease }) => lease === true);
    await b.announce({ rule: 'off' }, false);
    const { why } = await a.next(({ lease }) => lease === false);
    assert.equal(why, 'no_consent');
    assert.deepEqual(await whoAll(), both(null));
  });

  test('moves: the neighbours that knew it know the other one at once', async () => {
    await a.open();
    assert.deepEqual(await whoAll(), both('s1'));
    const neighbour = async (addr: string) =>
      (await client.exec(['ip', 'neigh', 'show', addr])).stdout.match(/lladdr (\S+)/)?.[1];
    for (const addr of vips()) assert.equal(await neighbour(addr), a.host.mac());
    await a.close();
    await b.open();
    for (const addr of vips()) {
      // No traffic in between: by the announcement alone. Linux may heed it a second late (locktime).
      while ((await neighbour(addr)) !== b.host.mac()) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
    assert.deepEqual(await whoAll(), both('s2'));
  });

  test('what was sent as it and waits for the MAC of a neighbour does not leave once it is off', async () => {
    const [vip] = vips();
    const { host } = a;
    const lines = (process: HostProcess) => {
      const input = createInterface({ input: process.child.stdout as Readable });
      return input[Symbol.asyncIterator]();
    };
    const hears = `require('dgram').createSocket('udp4').on('message', (text, { address }) =>
      console.log(address + ' ' + text)).bind(5301, () => console.log('bound'))`;
    const ear = await client.spawn([process.execPath, '-e', hears]);
    const heard = lines(ear);
    await heard.next();
    const says = async (from: string, text: string) => {
      const script = `const s = require('dgram').createSocket('udp4');
        s.bind(0, '${from}', () => s.send('${text}', 5301, '${client.address()}', () => s.close()))`;
      await host.exec([process.execPath, '-e', script]);
    };
    const arp = (on: 'on' | 'off') => client.exec(['ip', 'link', 'set', 'eth0', 'arp', on]);
    /** Sends as the address to a client whose MAC nobody knows until `meanwhile` is done. */
    const held = async (text: string, meanwhile: () => Promise<void>) => {
      await arp('off');
      await host.exec(['ip', 'neigh', 'flush', 'dev', 'eth0']);
      await says(vip, text);
      const { stdout } = await host.exec(['ip', 'neigh', 'show', client.address(), 'dev', 'eth0']);
      assert.match(stdout, /INCOMPLETE/);
      await meanwhile();
      await arp('on');
    };
    // The kernel goes on asking, however long the rest takes.
    await host.exec(['sysctl', '-qw', 'net.ipv4.neigh.eth0.mcast_solicit=100']);
    await a.open();
    try {
      await held('while open', async () => undefined);
      assert.equal((await heard.next()).value, `${vip} while open`);
      await held('before off', () => a.close());
      // What waits for a MAC leaves in its order.
      await says(host.address(), 'after');
      assert.equal((await heard.next()).value, `${host.address()} after`);
    } finally {
      await arp('on');
      await host.exec(['sysctl', '-qw', 'net.ipv4.neigh.eth0.mcast_solicit=3']);
      ear.kill('SIGKILL');
    }
  });

  test('connections end when it goes', async () => {
    await a.open();
    const script = `const s=require('net').connect({host:'${vips()[0]}',port:80});s.on('connect',()=>console.log('up'));s.on('error',()=>{})`;
    const held = await client.spawn([process.execPath, '-e', script]);
    await once(held.child.stdout as Readable, 'data');
    const count = async () =>
      (await a.host.exec(['ss', '-Htn', 'state', 'established', 'src', vips()[0]])).stdout.trim();
    assert.notEqual(await count(), '');
    await a.close();
    assert.equal(await count(), '');
    await a.next(({ record }) => /1 connections .* were reset/.test(String(record)));
    held.kill('SIGKILL');
  });

  test('the gateway is asked, and said to know the address', async () => {
    await a.host.exec(['ip', 'route', 'add', 'default', 'via', client.address(), 'dev', 'eth0']);
    await a.host.exec([
      'ip',
      '-6',
      'route',
      'add',
      'default',
      'via',
      client.address(0, 6),
      'dev',
      'eth0',
    ]);
    try {
      await a.open();
      for (const addr of vips()) {
        await a.next(({ record }) =>
          new RegExp(`^gateway .* answers ${addr} `).test(String(record)),
        );
        const { stdout } = await client.exec(['ip', 'neigh', 'show', addr]);
        assert.match(stdout, new RegExp(a.host.mac()));
      }
    } finally {
      await a.host.exec(['ip', 'route', 'del', 'default']);
      await a.host.exec(['ip', '-6', 'route', 'del', 'default']);
    }
  });

  test('another host that answers for it is told of, before it opens and while it is open', async () => {
    const change = async (verb: 'add' | 'del') => {
      for (const [index, addr] of vips().entries()) {
        const words = ['addr', verb, `${addr}/${index === 0 ? 32 : 128}`, 'dev', 'eth0'];
        // oxlint-disable-next-line no-await-in-loop
        await client.exec(['ip', ...words, ...(verb === 'add' && index === 1 ? ['nodad'] : [])]);
      }
    };
    const told = async (on: boolean) => {
      for (const addr of vips()) {
        const id = `module.db.duplicate.${addr}`;
        // oxlint-disable-next-line no-await-in-loop
        const { message } = await a.next((line) => line['alert'] === id && line['on'] === on);
        if (on) assert.match(String(message), new RegExp(`another host, ${client.mac()}`));
      }
    };
    await change('add');
    await a.vip('probe');
    await told(true);
    await change('del');
    await a.open();
    await told(false);
    await change('add');
    // At the next question; the filter keeps the answer for IPv6, which the kernel does not see.
    await a.order({ op: 'reannounce' });
    await told(true);
    await change('del');
    await told(false);
  });

  test('a former primary that still answers is a record, no alert', async () => {
    await a.open();
    await b.vip('probe');
    for (const addr of [...vips(), secondVip(a.host)]) {
      const { record } = await b.next((line) => 'record' in line);
      assert.equal(record, `${addr} is still answered by the peer`);
    }
    assert.ok(b.lines.every(({ alert, on }) => alert === undefined || on === false));
  });

  test('addresses that a lost agent left are taken off before anything answers for them', async () => {
    const { host } = a;
    for (const addr of vips()) await host.exec(['ip', 'addr', 'add', addr, 'dev', 'eth0']);
    assert.equal(host.kill(agent, 'SIGKILL') > 0, true);
    for (const addr of vips()) {
      await a.next(({ record }) => String(record).startsWith(`${addr} was left on eth0`));
    }
    assert.deepEqual(await whoAll(), both(null));
  });

  test('an agent that follows takes it over without a gap', async () => {
    await a.open();
    assert.deepEqual(await whoAll(), both('s1'));
    const load = await lab.load({
      kind: 'udp',
      port: 53,
      server: vips()[0],
      count: 2,
      intervalMs: 5,
      timeoutMs: 500,
    });
    await load.until(({ answers }) => answers > 20, 10_000);
    await load.mark('agent');
    assert.equal(a.host.kill(agent, 'SIGKILL') > 0, true);
    await a.next((line) => 'started' in line);
    const stats = await load.until(({ answers }) => answers > 200, 10_000);
    assert.equal(stats.timeouts, 0);
    assert.deepEqual(await whoAll(), both('s1'));
  });
});
