/** What a farm puts on the wire, seen by a client's capture: who says that the virtual IP is where. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import type { HostProcess } from '../../src/lab/host.ts';
import { packageRoot } from '../../src/version.ts';
import { Farm, skip } from './support.ts';
import type { Frame } from './wire-capture.ts';

/** The default of the configuration reference: 5a:fe and the VIP in hex. */
function farmMac(vip: string): string {
  return [
    '5a',
    'fe',
    ...vip.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0')),
  ].join(':');
}

describe('frames of a farm', { skip }, () => {
  let farm: Farm;
  const frames: Frame[] = [];
  let capture: HostProcess;

  before(async () => {
    farm = await Farm.up({ on: ['s1', 's2'] });
    const [clients] = farm.lab.clients;
    assert.ok(clients !== undefined);
    const script = join(packageRoot, 'dist/test/lab/wire-capture.js');
    capture = await clients.spawn([process.execPath, script, 'eth0', 'arp or tcp or udp']);
    assert.ok(capture.child.stdout !== null);
    const lines = createInterface({ input: capture.child.stdout });
    await once(lines, 'line');
    lines.on('line', (line) => frames.push(JSON.parse(line) as Frame));
    // The clients' namespace must ask for the virtual IPs, and hear answers from both servers.
    await clients.exec(['ip', 'neigh', 'flush', 'all']);
    for (const mode of farm.modes) {
      const load = await farm.lab.load({
        kind: 'tcp',
        server: farm.vip(mode, 4),
        port: farm.port(mode, 'spread', 'tcp'),
        count: 50,
        intervalMs: 100,
        timeoutMs: 500,
      });
      await load.until(
        ({ answers, servers }) => answers >= 200 && Object.keys(servers).length === 2,
        20_000,
      );
      await load.stop();
    }
  });

  after(async () => {
    capture?.kill('SIGTERM');
    await farm?.down();
  });

  const said = (vip: string) =>
    new Set(
      frames.filter(({ senderAddr }) => senderAddr === vip).map(({ senderMac }) => senderMac),
    );

  test('vmac_invisible: the virtual IP is only ever said to be at the farm MAC', () => {
    const vip = farm.vip('invisible', 4);
    assert.deepEqual([...said(vip)], [farmMac(vip)]);
  });

  test('no frame has the farm MAC as its source, so that switches keep flooding it', () => {
    const sources = new Set(frames.map(({ source }) => source));
    assert.ok(sources.has(farm.host('s1').mac()) && sources.has(farm.host('s2').mac()));
    assert.ok(!sources.has(farmMac(farm.vip('invisible', 4))));
  });

  test('vmac_directed: the virtual IP is said to be at a server, by that server itself', () => {
    const vip = farm.vip('directed', 4);
    const macs = [farm.host('s1').mac(), farm.host('s2').mac()];
    const answers = frames.filter(({ senderAddr }) => senderAddr === vip);
    assert.ok(answers.length > 0);
    for (const { source, senderMac } of answers) {
      assert.ok(macs.includes(senderMac));
      assert.equal(source, senderMac);
    }
  });
});
