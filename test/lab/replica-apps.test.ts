/** Real applications on a replicated directory; afterwards both servers hold the same, byte by byte. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Backing, mountBacking } from '../../src/lab/backing.ts';
import { Mariadb, Postgres } from '../../src/lab/databases.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { ReplicaPair } from '../../src/lab/replica.ts';
import { assertEqualTrees, replicaTool } from './replica-support.ts';
import { skip } from './support.ts';

const timeoutMs = 300_000;

describe('applications on a replicated directory', { skip, timeout: 1_200_000 }, () => {
  let lab: Lab;
  let backing: Backing;
  let pair: ReplicaPair;
  let host: Host;
  before(async () => {
    lab = await Lab.up({ hosts: 2, clients: 0 });
    backing = await mountBacking(lab, 'ext4');
    pair = await ReplicaPair.start(lab, {
      name: 'apps',
      dir: `${backing.base}/data`,
      stateDir: `${backing.base}/state`,
    });
    host = lab.host('s1');
  });
  after(async () => {
    await pair?.stop();
    await lab?.down();
  });
  const equal = () => assertEqualTrees(pair);
  const sh = async (script: string) =>
    (await host.exec(['bash', '-euc', script], { cwd: pair.dir, timeoutMs })).stdout.trim();

  test('PostgreSQL: initdb, pgbench with 8 clients', async () => {
    const postgres = new Postgres(host, pair.dir);
    await postgres.start();
    await postgres.fill(2);
    const { transactions } = await postgres.bench(8, 10);
    assert.ok(transactions > 0);
    assert.equal(
      (await postgres.query('SELECT count(*) FROM pgbench_history')).trim(),
      `${transactions}`,
    );
    await postgres.stop();
    await equal();
  });

  for (const mode of ['wal', 'delete']) {
    test(`SQLite in ${mode} mode`, async () => {
      const rows = 300;
      const script = [
        `PRAGMA journal_mode=${mode}; PRAGMA synchronous=FULL;`,
        'CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB);',
        ...Array.from({ length: rows }, () => 'INSERT INTO t (v) VALUES (randomblob(3000));'),
        'DELETE FROM t WHERE id % 3 = 0; VACUUM; PRAGMA integrity_check;',
      ].join('\n');
      const out = await host.exec(['sqlite3', '-bail', `${pair.dir}/${mode}.db`], {
        input: script,
        timeoutMs,
      });
      assert.deepEqual(out.stdout.trim().split('\n'), [mode, 'ok']);
      await equal();
    });
  }

  test('MariaDB: tables, transactions, shutdown', async () => {
    const mariadb = new Mariadb(host, pair.dir);
    await mariadb.start();
    await mariadb.query('CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v TEXT);');
    const inserts = Array.from(
      { length: 500 },
      (_, i) => `INSERT INTO shop.t VALUES (${i}, REPEAT('x', 2000));`,
    );
    await mariadb.query(inserts.join('\n'));
    assert.equal((await mariadb.query('SELECT COUNT(*) FROM shop.t;')).trim(), '500');
    await mariadb.stop();
    await equal();
  });

  test('git: clone and gc', async () => {
    await sh(`
      export HOME=/run GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b
      export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
      git init -q origin && cd origin
      for i in $(seq 60); do
        mkdir -p "d$((i % 7))" && seq $i $((i * 50)) > "d$((i % 7))/f$i"
        git add -A && git commit -qm "change $i"
      done
      cd .. && git clone -q --no-local origin clone && cd clone
      git repack -qad && git gc -q --aggressive --prune=now && git fsck --strict >/dev/null
    `);
    assert.equal(await sh('cd clone && git -c safe.directory=* rev-list --count HEAD'), '60');
    await equal();
  });

  test('tar of 100,000 files: hard links, sparse files, odd names, ACLs', async () => {
    const source = `${backing.base}/source`;
    await host.exec(['mkdir', '-p', source, `${pair.dir}/tree`]);
    await host.exec([replicaTool(), 'tree', source, '--files', '100000', '--seed', '1'], {
      timeoutMs,
    });
    await sh(
      `tar -C ${source} --sparse --acls --xattrs --xattrs-include='*' -cf - . |
       tar -C tree --sparse --acls --xattrs --xattrs-include='*' --same-owner -xpf -`,
    );
    await host.exec([replicaTool(), 'compare', source, `${pair.dir}/tree`], { timeoutMs });
    await equal();
  });
});
