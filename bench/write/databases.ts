/** Databases as writers: SQLite through its command line, PostgreSQL through pgbench. */
import { execFileSync } from 'node:child_process';
import { Postgres, postgresBin } from '../../src/lab/databases.ts';
import type { Job } from './jobs.ts';

const timeoutMs = 300_000;

/** One row per transaction, each durable when the command goes on. */
export function sqliteJob(mode: 'wal' | 'delete', count: number): Job {
  return {
    name: `sqlite-${mode}`,
    title: `SQLite, ${mode.toUpperCase()} mode, insert`,
    merit: 'rate',
    bytes: 0,
    run: async (host, dir) => {
      const file = `${dir}/sqlite-${mode}.db`;
      await host.exec(['rm', '-f', file, `${file}-wal`, `${file}-shm`, `${file}-journal`]);
      const script = [
        `PRAGMA journal_mode=${mode};`,
        'PRAGMA synchronous=FULL;',
        'CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);',
        ...Array.from({ length: count }, (_, i) => `INSERT INTO t (v) VALUES ('row ${i}');`),
      ].join('\n');
      const before = performance.now();
      await host.exec(['sqlite3', '-bail', file], { input: script, timeoutMs });
      const seconds = (performance.now() - before) / 1000;
      return { ops: count, p50Ns: null, p99Ns: null, opsPerS: count / seconds };
    },
  };
}

export function postgresVersion(): string {
  return execFileSync(`${postgresBin()}/postgres`, ['--version']).toString().trim();
}

const clients = 8;
const scale = 5;

export function pgbenchJob(seconds: number): Job {
  return {
    name: 'pgbench',
    title: `PostgreSQL, pgbench TPC-B, ${clients} clients`,
    merit: 'rate',
    bytes: 0,
    run: async (host, dir) => {
      const postgres = new Postgres(host, dir);
      if (await postgres.start()) await postgres.fill(scale);
      try {
        const { transactions, perS } = await postgres.bench(clients, seconds);
        return { ops: transactions, p50Ns: null, p99Ns: null, opsPerS: perS };
      } finally {
        await postgres.stop();
      }
    },
  };
}
