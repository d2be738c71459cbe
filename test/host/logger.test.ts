import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { createLogger, type Logger, type LoggerOptions } from '../../src/host/logger.ts';
import { eventually, temporaryPaths } from '../module/helpers.ts';

interface Setup {
  readonly logger: Logger;
  readonly file: string;
  readonly out: string[];
  readonly clock: { ms: number };
  readonly troubles: (string | null)[];
}

function setup(
  t: TestContext,
  change: Partial<LoggerOptions> = {},
  tmpfs: string | null = null,
): Setup {
  const out: string[] = [];
  const clock = { ms: 0 };
  const troubles: (string | null)[] = [];
  const file = join(temporaryPaths(t, tmpfs).log, 'agent.log');
  const logger = createLogger({
    level: 'info',
    file,
    stream: { write: (text) => out.push(String(text)) > 0 },
    journald: false,
    wallMs: () => 1_700_000_000_000,
    nowMs: () => clock.ms,
    onTrouble: (message) => troubles.push(message),
    ...change,
  });
  return { logger, file, out, clock, troubles };
}

test('a record is one line of key=value, whatever is in it', async (t) => {
  const { logger, file, out } = setup(t);
  const web = logger.child({ module: 'web' });
  web.info('STOP -> WAIT', {
    epoch: 3,
    why: 'start by "admin"\nforged=1',
    none: null,
    not: undefined,
  });
  logger.debug('not shown');
  logger.error('plain', { path: '/var/lib/x' });
  await logger.close();
  const lines = [
    'time=2023-11-14T22:13:20.000Z level=info msg="STOP -> WAIT" module=web epoch=3 why="start by \\"admin\\"\\nforged=1" none=null',
    'time=2023-11-14T22:13:20.000Z level=error msg=plain path=/var/lib/x',
  ];
  assert.deepEqual(readFileSync(file, 'utf8').trimEnd().split('\n'), lines);
  assert.deepEqual(
    out,
    lines.map((line) => `${line}\n`),
  );
  assert.deepEqual(logger.tail(10), lines);
  assert.deepEqual(logger.tail(1), lines.slice(1));
});

test('for journald the priority stands in front and the time is left out', (t) => {
  const { logger, out } = setup(t, { journald: true, file: null });
  logger.warn('lease is late', { ms: 12 });
  assert.deepEqual(out, ['<4>level=warn msg="lease is late" ms=12\n']);
});

test('the level can change while it runs', (t) => {
  const { logger, out } = setup(t, { file: null });
  logger.setLevel('error');
  logger.warn('quiet');
  logger.setLevel('debug');
  logger.debug('loud');
  assert.equal(out.length, 1);
});

test('the same message is limited per window and the number left out is said', (t) => {
  const { logger, out, clock } = setup(t, { file: null });
  for (let i = 0; i < 100; i++) logger.warn('peer frame dropped', { i });
  logger.warn('another message');
  assert.equal(out.length, 21);
  assert.equal(logger.stats().suppressed, 80);
  clock.ms = 10_000;
  logger.warn('peer frame dropped', { i: 100 });
  assert.match(out.at(-1) ?? '', /i=100 suppressed=80\n$/);
  logger.warn('peer frame dropped', { i: 101 });
  assert.match(out.at(-1) ?? '', /i=101\n$/);
});

test('the file is rotated within its bounds and tail survives a restart', async (t) => {
  const { logger, file } = setup(t, { fileBytes: 1000, files: 2 });
  for (let i = 0; i < 100; i++) {
    logger.info(`message ${i}`);
    if (i % 3 === 0) await logger.flush();
  }
  await logger.close();
  assert.deepEqual(readdirSync(dirname(file)).sort(), ['agent.log', 'agent.log.1', 'agent.log.2']);
  for (const name of readdirSync(dirname(file))) {
    assert.ok(statSync(join(dirname(file), name)).size < 1500, name);
  }
  const again = createLogger({
    level: 'info',
    file,
    stream: null,
    journald: false,
    wallMs: () => 0,
    nowMs: () => 0,
  });
  assert.match(again.tail(1)[0] ?? '', /message 99/);
  again.info('after restart');
  await again.close();
  assert.match(readFileSync(file, 'utf8'), /message 99.*\n.*after restart"\n$/);
});

test('a full disk is said once, and the log goes on when there is room', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('mounting a small tmpfs needs root');
  const { logger, file, troubles } = setup(t, {}, '64k');
  logger.info('before');
  assert.ok(await logger.flush());
  const filler = join(dirname(file), 'filler');
  assert.throws(() => writeFileSync(filler, Buffer.alloc(1024 * 1024)), /ENOSPC/);
  for (let i = 0; i < 40; i++) logger.info(`during ${i} ${'x'.repeat(100)}`);
  assert.equal(await logger.flush(), false);
  assert.match(troubles.join(), /ENOSPC/);
  rmSync(filler);
  await eventually(() => troubles.length === 2, 'trouble ends');
  await logger.close();
  assert.match(readFileSync(file, 'utf8'), /before\n(.*during.*\n){40}$/);
});

test('a reader that stands still costs lines, not memory', (t) => {
  const { logger } = setup(t, {
    file: null,
    stream: { write: () => false, writableLength: 2 * 1024 * 1024 },
  });
  logger.info('one');
  assert.equal(logger.stats().lost, 1);
});
