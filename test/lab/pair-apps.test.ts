/** The ready-made mirrors on two servers that decide for themselves: the primary loses its power. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LabCluster } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { eventually, skip } from './support.ts';

interface App {
  readonly module: string;
  readonly program: string;
  readonly port: number;
  readonly macros: Readonly<Record<string, string>>;
  /** Shell: makes what the numbers are kept in. */
  readonly make: string;
  /** Shell: keeps $i; succeeds when the server has acknowledged it. */
  readonly write: string;
  /** Shell: prints the numbers that are kept. */
  readonly read: string;
}

const psql =
  'setpriv --reuid=postgres --regid=postgres --init-groups psql -h /run/postgresql -Atqc';
const mariadb = 'mariadb --no-defaults --socket=/run/mysqld/mysqld.sock -uroot -N -e';
const notes = 'http://127.0.0.1/notes';

const apps: readonly App[] = [
  {
    module: 'postgresql',
    program: '/usr/lib/postgresql',
    port: 5432,
    macros: {},
    make: `${psql} 'CREATE TABLE t (v int)' postgres`,
    write: `${psql} "INSERT INTO t VALUES ($i)" postgres`,
    read: `${psql} 'SELECT v FROM t ORDER BY v' postgres`,
  },
  {
    module: 'mariadb',
    program: '/usr/sbin/mariadbd',
    port: 3306,
    macros: {},
    make: `${mariadb} 'CREATE DATABASE s; CREATE TABLE s.t (v INT) ENGINE=InnoDB'`,
    write: `${mariadb} "INSERT INTO s.t VALUES ($i)"`,
    read: `${mariadb} 'SELECT v FROM s.t ORDER BY v'`,
  },
  {
    module: 'redis',
    program: '/usr/bin/redis-server',
    port: 6379,
    macros: { PASSWORD: 'secret' },
    make: 'true',
    write: 'redis-cli -e --no-auth-warning -a secret RPUSH list "$i" >/dev/null',
    read: 'redis-cli -e --no-auth-warning -a secret LRANGE list 0 -1',
  },
  {
    module: 'nginx_sqlite',
    program: '/usr/sbin/nginx',
    port: 80,
    macros: {},
    make: 'true',
    write: `curl -fsS --max-time 10 -o /dev/null -d "$i" ${notes}`,
    read: `curl -fsS --max-time 10 ${notes} | cut -d' ' -f2`,
  },
];

const timeoutMs = 60_000;

describe('ready-made mirrors', { skip, timeout: 600_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;

  before(async () => {
    lab = await Lab.up({ hosts: 2 });
    const path = join(lab.dir, 'register');
    mkdirSync(path);
    writeFileSync(join(path, 'holdfast-register'), '');
    cluster = await LabCluster.start(lab, { arbiter: { type: 'directory', path } });
    [a, b] = cluster.hosts as [Host, Host];
  });
  after(async () => lab?.down());

  const sh = async (host: Host, script: string): Promise<string> =>
    (await host.exec(['sh', '-c', script], { timeoutMs })).stdout;

  /** A folder that outlives the server's power. */
  async function mountData(host: Host, module: string): Promise<string> {
    const disk = join(lab.dir, `${module}-${host.name}`);
    const dir = `/srv/${module}`;
    await host.exec(['mkdir', '-p', disk, dir]);
    await host.exec(['mount', '--bind', disk, dir]);
    return dir;
  }

  async function becomes(module: string, host: Host, wanted: string): Promise<void> {
    let last = '';
    await eventually(
      `${module} to be ${wanted} on ${host.name}`,
      async () => {
        const found = await cluster
          .client(host)
          .module(module)
          .catch(() => null);
        last = found === null ? 'no answer' : `${found.state} ${found.readiness}`;
        return last === wanted ? true : null;
      },
      timeoutMs,
    ).catch(async (error: unknown) => {
      const client = cluster.client(host);
      const events = await client.events({ module, limit: 30 });
      const told = [...(await client.why(module)), ...events.map(({ text }) => text)];
      const log = await client.log(module, 30);
      throw new Error(`${String(error)}: ${last}\n${[...told, ...log].join('\n')}`);
    });
  }

  /** Numbers, one after the other; what was said is acknowledged. */
  async function writer(host: Host, app: App): Promise<() => number> {
    const script = `i=0; while :; do i=$((i+1)); ${app.write} || continue; echo $i; done`;
    const process = await host.spawn(['sh', '-c', script]);
    let said = '';
    process.child.stdout?.on('data', (data: Buffer) => (said += data.toString()));
    const last = (): number => Number(said.split('\n').slice(0, -1).at(-1) ?? 0);
    await eventually('some writes', async () => (last() >= 100 ? true : null), timeoutMs);
    return last;
  }

  for (const [index, app] of apps.entries()) {
    const { module } = app;
    const absent = existsSync(app.program) ? false : `needs ${app.program}`;
    test(`${module}: what was acknowledged is there after a takeover`, {
      skip: absent,
    }, async () => {
      const vip = lab.vip(index + 1);
      let dir = '';
      for (const host of cluster.hosts) dir = await mountData(host, module);
      await cluster.install(module, `modules/${module}`, { ...app.macros, VIP: vip, DIR: dir });
      await cluster.startModule(module);
      await cluster.client(a).prim(module, false);
      await becomes(module, a, 'PRIM Ready');
      await becomes(module, b, 'SECOND Ready');
      await sh(a, app.make);
      const last = await writer(a, app);

      const startMs = performance.now();
      await a.power();
      const count = last();
      await becomes(module, b, 'ALONE Ready');
      const gapMs = Math.round(performance.now() - startMs);
      const found = (await sh(b, app.read)).trim().split('\n').map(Number);
      assert.deepEqual(
        found.slice(0, count),
        Array.from({ length: count }, (_, at) => at + 1),
      );
      console.log(`${module}: ${gapMs} ms until it served again; ${count} writes acknowledged`);

      await a.boot();
      await mountData(a, module);
      await cluster.startAgent(a);
      await becomes(module, a, 'SECOND Ready');
      await becomes(module, b, 'PRIM Ready');
      // Nothing is left of the engine: the application works on nothing, and is ended; the other takes over.
      assert.equal(b.kill(/holdfast-replica/, 'SIGSTOP'), 2);
      assert.equal(b.kill(/holdfast-replica/), 2);
      await becomes(module, a, 'PRIM Ready');
      await becomes(module, b, 'SECOND Ready');
      assert.equal((await sh(a, app.read)).trim().split('\n').length, found.length);
      await cluster.client(b).swap(module, true);
      await becomes(module, b, 'PRIM Ready');
      await becomes(module, a, 'SECOND Ready');
      await cluster.client(b).swap(module, true);
      await becomes(module, a, 'PRIM Ready');
      assert.ok((await sh(a, app.read)).trim().split('\n').length >= count);
      for (const host of [b, a]) await cluster.client(host).command(module, 'stop');
    });
  }
});
