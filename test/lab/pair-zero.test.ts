/** docs/operate/mirror.md "From nothing", command by command: two servers, a witness, one ready-made module. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LabCluster, setMacros } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { eventually, skip } from './support.ts';

const absent = existsSync('/usr/sbin/nginx') ? skip : 'needs nginx (apt install nginx-light)';
const dir = '/srv/notes';

describe('a mirror from nothing', { skip: absent, timeout: 400_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let db1: Host;
  let db2: Host;
  let vip: string;

  before(async () => {
    lab = await Lab.up({ hosts: ['db1', 'db2', 'w1', 'user'], lans: 2, clients: 0 });
    vip = lab.vip(1);
    // `cluster init`, `cluster join` and an agent on each.
    cluster = await LabCluster.start(lab, {}, ['db1', 'db2']);
    [db1, db2] = cluster.hosts as [Host, Host];
  });
  after(async () => lab?.down());

  const cli = (host: Host, ...words: string[]): Promise<string> => cluster.cli(host, words);
  const sh = async (host: Host, script: string): Promise<string> =>
    (await host.exec(['sh', '-c', script], { timeoutMs: 30_000 })).stdout;
  const becomes = (host: Host, wanted: string): Promise<true> =>
    eventually(`${host.name} to be ${wanted}`, async () => {
      const { state, readiness } = await cluster.client(host).module('notes');
      return `${state} ${readiness}` === wanted ? true : null;
    });
  const ask = (words: string): Promise<string> =>
    sh(lab.host('user'), `curl -fsS --max-time 2 ${words} http://${vip}/notes`);
  async function mountData(host: Host): Promise<void> {
    const disk = join(lab.dir, `notes-${host.name}`);
    await host.exec(['mkdir', '-p', disk, dir]);
    await host.exec(['mount', '--bind', disk, dir]);
  }

  test('a witness joins, and cluster.xml names it', async () => {
    const w1 = lab.host('w1');
    const token = /hf1\.\S+/.exec(await cli(db1, 'cluster', 'token'))?.[0] ?? '';
    const joined = await cli(
      w1,
      ...['witness', 'join', db1.address(), '--token', token, '--name', 'w1'],
    );
    const line = /<arbiter .*\/>/.exec(joined)?.[0].replace('ADDRESS', w1.address()) ?? '';
    assert.match(line, /type="witness" name="w1"/);
    const main = join(process.cwd(), 'dist/src/cli/main.js');
    const listen = `${w1.address()}:9530`;
    await w1.spawn([process.execPath, main, 'witness', 'run', '--listen', listen]);
    await eventually('the witness to listen', () =>
      sh(db1, `bash -c ': </dev/tcp/${w1.address()}/9530'`).then(
        () => true as const,
        () => null,
      ),
    );
    const xml = await cli(db1, 'cluster', 'config');
    db1.writeFile('/root/new.xml', xml.replace('</lans>', `</lans>\n  ${line}`));
    await cli(db1, 'cluster', 'config', '/root/new.xml');
    assert.ok((await cli(db2, 'cluster', 'config')).includes('name="w1"'));
  });

  test('a ready-made module, its macros, start on both, prim once', async () => {
    for (const host of cluster.hosts) await mountData(host);
    await cli(db1, 'module', 'install', 'nginx_sqlite', '-m', 'notes', '-H', '*');
    for (const host of cluster.hosts) {
      const file = '/etc/holdfast/modules/notes/conf/userconfig.xml';
      host.writeFile(file, setMacros(host.readFile(file), { VIP: vip, DIR: dir, LAN: 'net2' }));
    }
    assert.doesNotMatch(await cli(db1, 'confcheck', 'notes'), /error|warning/);
    await cli(db1, 'config', 'notes', '-H', '*');
    await cli(db1, 'start', 'notes', '-H', '*');
    await cli(db1, 'prim', 'notes');
    await becomes(db1, 'PRIM Ready');
    await becomes(db2, 'SECOND Ready');
    assert.match(await cli(db2, 'status', 'notes'), /arbiter +witness w1 \(.*\), answers/);
    assert.equal(await ask('-d one'), '1\n');
    assert.match(await ask('-i'), /^X-Holdfast-Node: db1\r\n/m);
  });

  test('the plug of the primary: the user goes on with the other server, with every note', async () => {
    const startMs = performance.now();
    await db1.power();
    await eventually('an answer of db2', async () =>
      (await ask('-i').catch(() => '')).includes('X-Holdfast-Node: db2') ? true : null,
    );
    console.log(`notes: ${Math.round(performance.now() - startMs)} ms without an answer`);
    assert.equal(await ask(''), '1 one\n');
    assert.equal(await ask('-d two'), '2\n');
  });

  test('the plug again: it is brought up to date by itself, and a swap brings it back', async () => {
    await db1.boot();
    await mountData(db1);
    await cluster.startAgent(db1);
    // boot="auto": it ran before.
    await becomes(db1, 'SECOND Ready');
    await cli(db1, 'swap', 'notes');
    await becomes(db1, 'PRIM Ready');
    assert.match(await ask('-i'), /^X-Holdfast-Node: db1\r\n[^]*1 one\n2 two\n$/m);
    await becomes(db2, 'SECOND Ready');
  });

  test('without its witness service goes on, and says that no failure would be survived', async () => {
    lab.host('w1').kill(/holdfast-witness/);
    await eventually('the primary to notice', async () =>
      /no failure would be survived \[HF-MIRROR-149\]/.test(await cli(db1, 'why', 'notes'))
        ? true
        : null,
    );
    const alerts = (await cluster.client(db1).status()).alerts.map(({ id }) => id);
    assert.ok(alerts.includes('module.notes.arbiter'), alerts.join());
    assert.equal(await ask('-d three'), '3\n');
    await becomes(db1, 'PRIM Ready');
  });
});
