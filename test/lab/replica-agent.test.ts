/** A mirror run by hand, by the real agents and the command line, on two hosts of a lab. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ModuleStatus } from '../../src/host/face.ts';
import { LabCluster } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { eventually, skip } from './support.ts';

const dir = '/run/data';
const name = 'db';

describe('a mirror run by hand', { skip, timeout: 300_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;

  before(async () => {
    lab = await Lab.up({ hosts: 2, clients: 0 });
    cluster = await LabCluster.start(lab);
    [a, b] = cluster.hosts as [Host, Host];
    for (const host of cluster.hosts) await host.exec(['mkdir', '-p', dir]);
    await cluster.install(name, 'test/fixtures/modules/lab_mirror', {});
  });
  after(async () => lab?.down());

  const status = (host: Host): Promise<ModuleStatus> => cluster.client(host).module(name);
  const shown = async (host: Host): Promise<string> => {
    const { state, readiness } = await status(host);
    return `${state} ${readiness}`;
  };
  const calls = (host: Host): string[] => {
    const file = `/var/lib/holdfast/modules/${name}/var/calls`;
    const lines = host.exists(file) ? host.readFile(file).trimEnd().split('\n') : [];
    host.writeFile(file, '');
    return lines.filter((line) => line !== '');
  };
  const sh = (host: Host, script: string) => host.exec(['sh', '-c', script], { check: false });
  const becomes = (host: Host, wanted: string): Promise<string> =>
    eventually(`${host.name} to be ${wanted}`, async () =>
      (await shown(host)) === wanted ? wanted : null,
    );
  const cli = async (host: Host, ...words: string[]) => cluster.cli(host, words);
  /** What the other server has in its directory, once it is applied. */
  const hasThere = (host: Host, path: string, text: string): Promise<string> =>
    eventually(`${path} on ${host.name}`, async () => {
      const { stdout } = await sh(host, `cat ${dir}/${path}`);
      return stdout === text ? text : null;
    });

  test('the primary waits for its secondary before it starts the application', async () => {
    const out = await cli(a, 'prim', '-m', name);
    assert.match(out, /^db {2}PRIM \(Transient\)\n {2}waits for s2/);
    assert.deepEqual(calls(a), ['prestart STOP PRIM start tmpfs']);
    assert.match((await sh(a, `stat -f -c %T ${dir}`)).stdout, /fuse/);
  });

  test('with the secondary both are ready', async () => {
    await cli(b, 'second', '-m', name);
    await becomes(a, 'PRIM Ready');
    await becomes(b, 'SECOND Ready');
    assert.deepEqual(calls(a), ['start_prim WAIT PRIM start fuseblk']);
    assert.deepEqual(calls(b), [
      'prestart STOP SECOND start tmpfs',
      'start_second WAIT SECOND start tmpfs',
    ]);
  });

  test('a second primary, and a start, are refused', async () => {
    const codes = async (host: Host, ...words: string[]) =>
      cli(host, ...words).then(
        () => 'done',
        (error: unknown) => /HF-[A-Z]+-\d+/.exec(String(error))?.[0],
      );
    assert.equal(await codes(b, 'prim', '-m', name), 'HF-MIRROR-006');
    assert.equal(await codes(b, 'start', '-m', name), 'HF-MIRROR-005');
    assert.equal(await codes(b, 'verify', '-m', name), 'HF-MIRROR-011');
  });

  test('what is synced on the primary is on the secondary, which is read-only', async () => {
    await a.exec(['sh', '-c', `mkdir ${dir}/sub && echo one >${dir}/sub/f && sync ${dir}/sub/f`]);
    await a.exec(['sh', '-c', `mkdir ${dir}/tmp && echo own >${dir}/tmp/f`]);
    await hasThere(b, 'sub/f', 'one\n');
    const refused = await sh(b, `echo two >${dir}/sub/f`);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /Read-only file system/);
    assert.equal((await sh(b, `cat ${dir}/tmp/f`)).code, 1);
  });

  test('verify finds both equal', async () => {
    assert.match(await cli(a, 'verify', '-m', name), /db: equal/);
  });

  test('the detailed status and the metrics show the engine', async () => {
    const detail = await cli(a, 'status', '-m', name, '--detail');
    assert.match(detail, /peer +s2 connected/);
    assert.match(detail, /engine features +\S/);
    const metrics = await cluster.client(a).metrics();
    assert.match(metrics, /holdfast_replica_last_lsn\{module="db"\} [1-9]/);
    assert.match(metrics, /holdfast_replica_peer_connected\{module="db"\} 1/);
  });

  test('an agent that is killed leaves the replication going, and the next one takes it over', async () => {
    const before = (await status(a)).replica?.engine['worker'];
    assert.ok(before !== undefined);
    assert.equal(a.kill(/^\S*node \S*agent\.js/), 1);
    await a.exec(['sh', '-c', `echo during >${dir}/sub/g && sync ${dir}/sub/g`]);
    await hasThere(b, 'sub/g', 'during\n');
    await eventually('the agent to be back', () =>
      shown(a).then(
        (now) => (now === 'PRIM Ready' ? now : null),
        () => null,
      ),
    );
    assert.equal((await status(a)).replica?.engine['worker'], before);
    assert.deepEqual(calls(a), []);
    await a.exec(['sh', '-c', `echo after >${dir}/sub/h && sync ${dir}/sub/h`]);
    await hasThere(b, 'sub/h', 'after\n');
  });

  test('a worker that is killed costs a pause and is told', async () => {
    const before = Number((await status(a)).replica?.engine['restarts']);
    const { worker } = (await status(a)).replica?.engine ?? {};
    assert.ok(worker !== undefined);
    await a.exec(['kill', '-9', worker]);
    await a.exec(['sh', '-c', `echo killed >${dir}/sub/i && sync ${dir}/sub/i`]);
    await hasThere(b, 'sub/i', 'killed\n');
    await becomes(a, 'PRIM Ready');
    assert.equal(Number((await status(a)).replica?.engine['restarts']), before + 1);
    const events = await cluster.client(a).events({ module: name });
    assert.ok(events.some(({ text }) => text.startsWith('replication: resumed')));
  });

  test('stopped, both have plain directories with the same files', async () => {
    await cli(a, 'stop', '-m', name);
    await cli(b, 'stop', '-m', name);
    assert.deepEqual(calls(a), [
      'stop_prim PRIM STOP stop fuseblk',
      'stop_prim force PRIM STOP stop fuseblk',
      'poststop WAIT STOP stop tmpfs',
    ]);
    for (const host of [a, b]) {
      assert.equal(await shown(host), 'STOP NotReady');
      assert.equal((await sh(host, `stat -f -c %T ${dir}`)).stdout, 'tmpfs\n');
      assert.equal((await sh(host, `cat ${dir}/sub/*`)).stdout, 'one\nduring\nafter\nkilled\n');
      assert.equal((await sh(host, `echo x >${dir}/plain`)).code, 0);
      assert.equal(host.processes().filter(({ command }) => /replica/.test(command)).length, 0);
      await host.exec(['rm', `${dir}/plain`]);
    }
  });

  test('started again the other way round, with what was there', async () => {
    await cli(a, 'second', '-m', name);
    await cli(b, 'prim', '-m', name);
    await becomes(b, 'PRIM Ready');
    await b.exec(['sh', '-c', `echo back >${dir}/sub/j && sync ${dir}/sub/j`]);
    await hasThere(a, 'sub/j', 'back\n');
    assert.equal((await status(b)).replica?.epoch, 2);
  });

  test('a primary whose secondary is away goes on alone by confirmed order only', async () => {
    await cli(a, 'stop', '-m', name);
    await becomes(b, 'PRIM Transient');
    const write = sh(b, `echo alone >${dir}/sub/k && sync ${dir}/sub/k && echo done`);
    await assert.rejects(cli(b, 'prim', '-m', name), /HF-MIRROR-008[^]*on this server only/);
    const alerts = (await cluster.client(b).status()).alerts.map(({ message }) => message);
    assert.ok(alerts.includes('db: s1 is not connected; synced writes wait'), alerts.join());
    assert.match(await cli(b, 'prim', '-m', name, '--alone'), /ALONE \(Ready\)/);
    assert.equal((await write).stdout, 'done\n');
    assert.equal((await status(b)).replica?.epoch, 3);
  });

  test('an engine of which nothing is left stops the module and leaves plain directories', async () => {
    calls(b);
    // Stopped first: each would start the other again.
    assert.equal(b.kill(/holdfast-replica/, 'SIGSTOP'), 2);
    assert.equal(b.kill(/holdfast-replica/), 2);
    await becomes(b, 'STOP NotReady');
    assert.deepEqual(
      calls(b).map((line) => line.split(' ').slice(0, 2).join(' ')),
      ['stop_prim force', 'poststop WAIT'],
    );
    assert.equal((await sh(b, `cat ${dir}/sub/k`)).stdout, 'alone\n');
    assert.match((await status(b)).why.join(), /the replication engine is gone/);
  });

  test('a secondary whose disk is full leaves, and the primary goes on alone by itself', async () => {
    const full = 'full';
    const small = '/run/data3';
    for (const host of [a, b]) await host.exec(['mkdir', '-p', small]);
    await b.exec(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', small]);
    await cluster.install(full, 'test/fixtures/modules/lab_mirror', { DIR: small });
    await cli(b, 'second', '-m', full);
    await cli(a, 'prim', '-m', full);
    const there = (host: Host) => cluster.client(host).module(full);
    await eventually('the mirror to be ready', async () =>
      (await there(a)).readiness === 'Ready' ? true : null,
    );
    const script = `dd if=/dev/zero of=${small}/f bs=1M count=24 conv=fsync 2>/dev/null && echo done`;
    assert.equal((await sh(a, script)).stdout, 'done\n');
    await eventually('the primary to be alone', async () => {
      const { state, readiness } = await there(a);
      return `${state} ${readiness}` === 'ALONE Ready' ? true : null;
    });
    await eventually('the secondary to be red', async () =>
      (await there(b)).readiness === 'NotReady' ? true : null,
    );
    assert.match((await there(b)).why.join(), /this copy has failed/);
    assert.equal((await sh(a, `stat -c %s ${small}/f`)).stdout, `${24 << 20}\n`);
    const alerts = (await cluster.client(a).status()).alerts.map(({ message }) => message);
    assert.ok(
      alerts.some((text) => text.startsWith('full: it runs alone')),
      alerts.join(),
    );
    for (const host of [a, b]) await cli(host, 'stop', '-m', full);
  });

  test('a secondary whose primary has lost its power becomes primary by order, with all data', async () => {
    const other = 'db2';
    const there = '/run/data2';
    for (const host of [a, b]) await host.exec(['mkdir', '-p', there]);
    await cluster.install(other, 'test/fixtures/modules/lab_mirror', { DIR: there });
    await cli(b, 'second', '-m', other);
    await cli(a, 'prim', '-m', other);
    await eventually('the second mirror to be ready', async () =>
      (await cluster.client(a).module(other)).readiness === 'Ready' ? true : null,
    );
    assert.equal((await cluster.client(a).module(other)).replica?.port, 5608);
    // An engine of which nothing is left, on the secondary: a plain directory, and back again.
    assert.equal(b.kill(/holdfast-replica.*--name db2/, 'SIGSTOP'), 2);
    assert.equal(b.kill(/holdfast-replica.*--name db2/), 2);
    await eventually('the secondary to be stopped', async () =>
      (await cluster.client(b).module(other)).state === 'STOP' ? true : null,
    );
    assert.equal((await sh(b, `touch ${there}/plain && rm ${there}/plain`)).code, 0);
    await cli(b, 'second', '-m', other);
    await eventually('both to be together again', async () =>
      (await cluster.client(a).module(other)).readiness === 'Ready' ? true : null,
    );
    // More than the secondary has brought into its directory when the power goes.
    const write = `for i in $(seq 300); do echo $i >${there}/f$i; done; sync ${there}/f300`;
    await a.exec(['sh', '-c', write]);
    await a.power();
    await eventually('the loss to be told', async () =>
      (await cluster.client(b).module(other)).readiness === 'Transient' ? true : null,
    );
    await cli(b, 'stop', '-m', other);
    assert.match(await cli(b, 'prim', '-m', other, '--alone'), /ALONE \(Ready\)/);
    const all = Array.from({ length: 300 }, (_, i) => `${i + 1}\n`).join('');
    assert.equal((await sh(b, `cd ${there} && cat $(ls | sort -V)`)).stdout, all);
    await cli(b, 'stop', '-m', other);
  });
});
