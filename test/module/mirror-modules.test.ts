import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { installPackage, packageFolder, readUserconfig } from '../../src/module/package.ts';
import { startTicks } from '../../src/module/process.ts';
import { runScript, type ScriptAction, succeeded } from '../../src/module/scripts.ts';
import { eventually, temporaryPaths } from './helpers.ts';
import { configOf, decided, Host, repository } from './host.ts';

/*
 * The ready-made mirrors with the real servers, each in a network namespace of its own. The other server of
 * the mirror is a second folder of data: a copy of what was on the disk at some moment.
 */

interface App {
  readonly name: string;
  /** One of its programs, and what brings it. */
  readonly program: string;
  readonly install: string;
  readonly vars: Readonly<Record<string, string>>;
  /** Keeps a number; throws unless the server has acknowledged it. */
  readonly write: (host: Host, value: number) => void;
  readonly read: (host: Host) => readonly number[];
  /** A process id that the other server left in the data; null: there is none. */
  readonly pidFile: string | null;
}

const numbers = (text: string): number[] => text.trim().split(/\s+/).filter(Boolean).map(Number);

const psql = (host: Host, sql: string): string => {
  const words = [
    '-h',
    host.vars['SOCKETS'] ?? '',
    '-v',
    'ON_ERROR_STOP=1',
    '-Atqc',
    sql,
    'postgres',
  ];
  const user = ['--reuid=postgres', '--regid=postgres', '--init-groups', 'psql'];
  return host.exec('setpriv', [...user, ...words]);
};
const mariadb = (host: Host, sql: string): string => {
  const socket = `--socket=${host.vars['SOCKETS']}/mysqld.sock`;
  return host.exec('mariadb', ['--no-defaults', socket, '-uroot', '-N', '-e', sql]);
};
const redis = (host: Host, ...words: string[]): string =>
  host.exec('redis-cli', ['-e', '--no-auth-warning', '-a', 'secret', ...words]);
const notes = 'http://127.0.0.1/notes';

const apps: readonly App[] = [
  {
    name: 'postgresql',
    program: '/usr/lib/postgresql',
    install: 'postgresql',
    vars: {},
    write: (host, value) => {
      psql(host, `CREATE TABLE IF NOT EXISTS t (v int); INSERT INTO t VALUES (${value})`);
    },
    read: (host) => numbers(psql(host, 'SELECT v FROM t ORDER BY v')),
    pidFile: 'data/postmaster.pid',
  },
  {
    name: 'mariadb',
    program: '/usr/sbin/mariadbd',
    install: 'mariadb-server',
    vars: {},
    write: (host, value) => {
      mariadb(
        host,
        `CREATE DATABASE IF NOT EXISTS s; CREATE TABLE IF NOT EXISTS s.t (v INT) ENGINE=InnoDB; INSERT INTO s.t VALUES (${value})`,
      );
    },
    read: (host) => numbers(mariadb(host, 'SELECT v FROM s.t ORDER BY v')),
    pidFile: null,
  },
  {
    name: 'redis',
    program: '/usr/bin/redis-server',
    install: 'redis-server',
    vars: { PASSWORD: 'secret' },
    write: (host, value) => assert.match(redis(host, 'RPUSH', 'list', `${value}`), /^\d+\n$/),
    read: (host) => numbers(redis(host, 'LRANGE', 'list', '0', '-1')),
    pidFile: null,
  },
  {
    name: 'nginx_sqlite',
    program: '/usr/sbin/nginx',
    install: 'nginx-light',
    vars: {},
    write: (host, value) => {
      host.exec('curl', ['-fsS', '--max-time', '10', '-d', `${value}`, notes]);
    },
    read: (host) =>
      numbers(host.exec('curl', ['-fsS', '--max-time', '10', notes]).replace(/^\d+ /gm, '')),
    pidFile: null,
  },
];

const folderOf = ({ name }: App): string => join(repository, 'modules', name);

/** Where both servers have the data; the servers' users must reach it. */
function dataFolder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'hfd-'));
  chmodSync(dir, 0o755);
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

const varsOf = (t: TestContext, { vars }: App, dir: string) => ({
  ...vars,
  DIR: dir,
  SOCKETS: dataFolder(t),
});

/** Processes that work in the data. */
function members(dir: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/cwd`) === `${dir}/data`;
      } catch {
        return false;
      }
    });
}

/** Ends all at once, as a power cut does. */
function cutPower(dir: string): void {
  for (let pids = members(dir); pids.length > 0; pids = members(dir)) {
    spawnSync('kill', ['-KILL', ...pids.map(String)]);
  }
}

async function whyNot(host: Host): Promise<string> {
  const result = await runScript(host.scriptRun('start_prim'));
  assert.equal(result.exit, 1);
  return readFileSync(result.log ?? '', 'utf8');
}

/** What the health gate asks. */
function isReady(host: Host): boolean {
  const ready = join(host.dirs.bin, 'ready');
  if (!existsSync(ready)) {
    return (
      spawnSync('ip', [
        ...['netns', 'exec', host.netns, 'curl', '-fsS', '--max-time', '5'],
        'http://127.0.0.1/holdfast-ready',
      ]).status === 0
    );
  }
  const env = { ...host.vars, PATH: process.env['PATH'] ?? '', SAFEUSERBIN: host.dirs.bin };
  return spawnSync(ready, { env }).status === 0;
}

test('postgresql syncs file by file, unless a takeover has just synced everything', async (t) => {
  const app = apps.find(({ name }) => name === 'postgresql');
  if (process.getuid?.() !== 0) return t.skip('network namespaces need root');
  if (app === undefined || !existsSync(app.program)) return t.skip('needs postgresql');
  const dir = dataFolder(t);
  const host = await Host.create(t, app.name, folderOf(app), varsOf(t, app, dir));
  t.after(() => host.run('stop_prim', true));
  const starts = async (action: ScriptAction): Promise<string> => {
    const result = await runScript({ ...host.scriptRun('start_prim'), action });
    assert.equal(isReady(host), true);
    // The gate's question, asked again and again, is no error in the server's log.
    const log = readFileSync(result.log ?? '', 'utf8');
    assert.doesNotMatch(log, /FATAL/);
    assert.ok(succeeded(result), log);
    return psql(host, 'SHOW recovery_init_sync_method').trim();
  };

  assert.equal(await starts('start'), 'fsync');
  cutPower(dir);
  await host.run('prestart');
  assert.equal(await starts('failover'), 'syncfs');
  // It wrote, and crashed; the script runs again, as after a restart of the agent.
  cutPower(dir);
  assert.equal(await starts('failover'), 'fsync');
  cutPower(dir);
  await host.run('stop_prim', true);
  assert.equal(await starts('restart'), 'fsync');
  await host.run('stop_prim');
  await host.run('stop_prim', true);
  assert.equal(await starts('failover'), 'syncfs');

  // Where the mirror ends its service, an orderly end that does not come is not waited for.
  const checkpointer = members(dir).find((pid) =>
    readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('checkpointer'),
  );
  assert.ok(checkpointer !== undefined);
  process.kill(checkpointer, 'SIGSTOP');
  const stop = await runScript({ ...host.scriptRun('stop_prim'), action: 'stopwait' });
  assert.match(readFileSync(stop.log ?? '', 'utf8'), /has not ended within 5 s/);

  // One that ends at once is not waited for.
  await host.run('stop_prim', true);
  appendFileSync(join(dir, 'data/postgresql.conf'), 'nonsense\n');
  assert.match(await whyNot(host), /syntax error[^]*PostgreSQL did not start/);
});

test('postgresql: a recovery longer than START is waited for by the health gate', async (t) => {
  const app = apps.find(({ name }) => name === 'postgresql');
  if (process.getuid?.() !== 0) return t.skip('network namespaces need root');
  if (app === undefined || !existsSync(app.program)) return t.skip('needs postgresql');
  const vars = { ...varsOf(t, app, dataFolder(t)), START: '0' };
  const host = await Host.create(t, app.name, folderOf(app), vars);
  t.after(() => host.run('stop_prim', true));
  const { log, ...result } = await runScript(host.scriptRun('start_prim'));
  const said = readFileSync(log ?? '', 'utf8');
  assert.equal(result.exit, 0, said);
  assert.match(said, /does not answer yet/);
  await eventually(() => isReady(host), 'PostgreSQL to answer');
  app.write(host, 1);
  assert.deepEqual(app.read(host), [1]);
});

for (const app of apps) {
  test(`${app.name} is a whole module: it can be packaged, and its configuration is valid`, async (t) => {
    const paths = temporaryPaths(t);
    await installPackage(paths, app.name, await packageFolder(app.name, folderOf(app)), false);
    const xml = (await readUserconfig(paths, app.name)).replaceAll('net1', 'lan1');
    const config = configOf(app.name, xml, [], decided);
    assert.equal(config.service.mode, 'mirror');
    assert.ok(config.ready !== null);
    assert.equal(config.vip?.interfaces.length, 1);
    assert.equal(config.rfs?.async, 'none');
    for (const file of readdirSync(join(folderOf(app), 'bin'))) {
      if (file.endsWith('.py')) continue;
      execFileSync('/bin/sh', ['-n', join(folderOf(app), 'bin', file)]);
    }
  });

  test(`${app.name} serves, through all it may meet`, async (t) => {
    if (process.getuid?.() !== 0) return t.skip('network namespaces need root');
    if (!existsSync(app.program)) return t.skip(`needs ${app.install}`);
    const dir = dataFolder(t);
    const host = await Host.create(t, app.name, folderOf(app), varsOf(t, app, dir));
    t.after(() => host.run('stop_prim', true));
    await host.run('prestart');
    assert.equal(isReady(host), false);
    await host.run('start_prim');
    assert.equal(isReady(host), true);
    app.write(host, 1);
    assert.deepEqual(app.read(host), [1]);

    // Started again, as after a restart of the agent: the same processes go on.
    const first = members(dir)[0];
    await host.run('start_prim');
    assert.equal(members(dir)[0], first);

    // Asked to stop, it stops; then by force, as Holdfast does it; nothing is left in the folder.
    await host.run('stop_prim');
    assert.deepEqual(members(dir), []);
    await host.run('stop_prim', true);
    await host.run('stop_prim');
    assert.equal(isReady(host), false);

    // Stopped processes take no TERM: force ends them, and nothing is lost by it.
    await host.run('start_prim');
    app.write(host, 2);
    spawnSync('kill', ['-STOP', ...members(dir).map(String)]);
    await host.run('stop_prim', true);
    assert.deepEqual(members(dir), []);
    await host.run('start_prim');
    assert.deepEqual(app.read(host), [1, 2]);

    // One that hangs is not given the time that an orderly stop has.
    if (app.name !== 'nginx_sqlite') {
      spawnSync('kill', ['-STOP', ...members(dir).map(String)]);
      const { log } = await runScript(host.scriptRun('stop_prim'));
      assert.match(readFileSync(log ?? '', 'utf8'), /has not ended within 5 s/);
      await host.run('stop_prim', true);
      assert.deepEqual(members(dir), []);
      await host.run('start_prim');
      assert.deepEqual(app.read(host), [1, 2]);
    }

    // Replication has failed: the folder is mounted no more below those who work in it.
    const former = members(dir);
    assert.notEqual(former.length, 0);
    renameSync(join(dir, 'data'), join(dir, 'elsewhere'));
    assert.deepEqual(members(dir), []);
    await host.run('stop_prim', true);
    for (const pid of former) assert.equal(startTicks(pid), null);
    renameSync(join(dir, 'elsewhere'), join(dir, 'data'));
    await host.run('start_prim');
    assert.deepEqual(app.read(host), [1, 2]);

    // What is empty now was not empty before: no new data is made in the place of what is missing.
    await host.run('stop_prim', true);
    renameSync(join(dir, 'data'), join(dir, '..', `${host.netns}-away`));
    t.after(() => rmSync(join(dir, '..', `${host.netns}-away`), { recursive: true, force: true }));
    assert.match(
      await whyNot(host),
      /is empty, and this server had data there: is its file system/,
    );
    writeFileSync(join(dir, 'other'), '');
    assert.match(await whyNot(host), /is not empty/);
    assert.equal(existsSync(join(dir, 'data')), false);
  });

  test(`${app.name} is taken over with all that was acknowledged`, async (t) => {
    if (process.getuid?.() !== 0) return t.skip('network namespaces need root');
    if (!existsSync(app.program)) return t.skip(`needs ${app.install}`);
    const [here, there] = [dataFolder(t), dataFolder(t)];
    const one = await Host.create(t, app.name, folderOf(app), varsOf(t, app, here));
    t.after(() => one.run('stop_prim', true));
    await one.run('start_prim');
    for (const value of [1, 2, 3]) app.write(one, value);
    cutPower(here);
    execFileSync('cp', ['-a', `${here}/.`, there]);
    // The number is that of a living process on this server.
    if (app.pidFile !== null) {
      const file = join(there, app.pidFile);
      const text = readFileSync(file, 'utf8').replace(/^\d+/, String(process.pid));
      writeFileSync(file, text.replaceAll(here, there));
    }
    const two = await Host.create(t, app.name, folderOf(app), varsOf(t, app, there));
    t.after(() => two.run('stop_prim', true));
    await two.run('prestart');
    await two.run('start_prim');
    assert.deepEqual(app.read(two), [1, 2, 3]);
    app.write(two, 4);
    await two.run('stop_prim');
    await two.run('stop_prim', true);
    assert.deepEqual(members(there), []);
  });
}
