/**
 * Clients of a table in PostgreSQL, in the clients' namespace of a lab. Each writer commits one value after the
 * other and never the same one twice; a reader reads all of them; a prober asks who answers. Says what it did and
 * saw, a line each (append-check.ts reads them): before a value is sent, and what became of it. Argument: the virtual IP.
 */
import { writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { PgSession } from './pg-wire.ts';

const [host = ''] = process.argv.slice(2);
const address = { host, port: 5432, user: 'postgres' };
const writers = 3;
const limitMs = 2000;
const pauseMs = 10;
const probeMs = 20;
const readMs = 250;

/** This start of the server, on which host, and its time in microseconds. */
const who =
  `rtrim(pg_read_file('/proc/sys/kernel/hostname'), E'\\n') || '@' || ` +
  `(extract(epoch FROM pg_postmaster_start_time()) * 1e6)::bigint, ` +
  `(extract(epoch FROM clock_timestamp()) * 1e6)::bigint`;

/** With the reader before the next step: what is killed has said all that it did. */
const say = (...words: readonly unknown[]): void => writeFileSync(1, `${words.join(' ')}\n`);
const nowNs = (): bigint => process.hrtime.bigint();

/** Goes on with new connections for ever; false from the work ends one. */
async function sessions(
  everyMs: number,
  work: (session: PgSession) => Promise<boolean>,
): Promise<never> {
  for (;;) {
    const session = await PgSession.open(address, limitMs);
    while (session !== null && (await work(session))) await delay(everyMs);
    await delay(pauseMs);
  }
}

function write(writer: number): Promise<never> {
  let next = 1;
  return sessions(pauseMs, async (session) => {
    const id = `${writer}.${next++}`;
    say('invoked', id, nowNs());
    const text = `BEGIN; INSERT INTO t VALUES ('${id}'); COMMIT; SELECT ${who}`;
    const { tags, rows, severity, isWhole } = await session.query(text, limitMs);
    const [run, us] = rows[0] ?? [];
    // What is undone by an error is not there; what was not answered may be, or come to be.
    if (tags.includes('COMMIT')) say('ok', id, nowNs(), run ?? '-', us ?? '-', Date.now());
    else say(severity === 'ERROR' ? 'fail' : 'unknown', id, nowNs());
    return isWhole && severity === null;
  });
}

function read(): Promise<never> {
  return sessions(readMs, async (session) => {
    const began = nowNs();
    const text = `SELECT ${who}, (SELECT string_agg(v, ',') FROM t)`;
    const { rows, isWhole } = await session.query(text, limitMs);
    const [run, us, ids] = rows[0] ?? [];
    if (isWhole && us !== undefined) say('read', began, nowNs(), run, us, Date.now(), ids ?? '');
    return isWhole;
  });
}

function probe(): Promise<never> {
  return sessions(probeMs, async (session) => {
    const { rows, isWhole } = await session.query(`SELECT ${who}`, limitMs);
    const [run, us] = rows[0] ?? [];
    if (isWhole && us !== undefined) say('probe', run, us, Date.now());
    return isWhole;
  });
}

await Promise.all([
  ...Array.from({ length: writers }, (_, writer) => write(writer + 1)),
  read(),
  probe(),
]);
