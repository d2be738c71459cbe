/** Processes as <errd> looks for them. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { type ProcessQuery, ProcessTable, probeProcesses } from '../../src/checkers/processes.ts';
import { posixRegex } from '../../src/config/posix.ts';

const query: ProcessQuery = {
  name: 'sleep',
  service: false,
  nameRegex: null,
  argRegex: null,
  atLeast: 1,
  atMost: -1,
};
let atMs = 0;
/** Each look is a new one. */
const table = (): ProcessTable => new ProcessTable({ nowMs: () => (atMs += 1000) });
const look = (change: Partial<ProcessQuery>): Promise<string | null> =>
  probeProcesses({ ...query, ...change }, table(), AbortSignal.timeout(30_000));

test('processes are found by name and arguments, and counted', async (t) => {
  // No other process has these arguments.
  const seconds = String(100_000 + process.pid);
  const argRegex = `^(.*/)?sleep ${seconds}[[:digit:]]$`;
  assert.equal(await look({ argRegex }), '0 of at least 1 processes');
  const sleepers = [1, 2].map((n) => spawn('sleep', [`${seconds}${n}`], { stdio: 'ignore' }));
  t.after(() => sleepers.forEach((one) => one.kill('SIGKILL')));
  await Promise.all(sleepers.map((one) => once(one, 'spawn')));
  assert.equal(await look({ argRegex }), null);
  assert.equal(await look({ argRegex, atLeast: 3 }), '2 of at least 3 processes');
  assert.equal(await look({ argRegex, atMost: 1 }), '2 processes, more than 1');
  assert.equal(await look({ argRegex, name: 'any', nameRegex: '^sl[e]+p$' }), null);
  assert.equal(await look({ argRegex, name: 'sleeper' }), '0 of at least 1 processes');
  const [first] = sleepers;
  first?.kill('SIGKILL');
  await Promise.all(first === undefined ? [] : [once(first, 'exit')]);
  assert.equal(await look({ argRegex, atLeast: 2 }), '1 of at least 2 processes');
});

test('a service that is not there is down, with what systemctl says', async () => {
  assert.match(String(await look({ service: true, name: 'no-such-service-here' })), /\w/);
});

test('POSIX expressions: classes, and signs between brackets', () => {
  for (const [regex, text, wanted] of [
    ['^[[:alpha:]_]+$', 'ab_c', true],
    ['^[[:alpha:]_]+$', 'ab1', false],
    ['^[^[:space:]]+$', 'a b', false],
    ['^[]a]+$', ']a]', true],
    ['^[\\.]+$', '\\.', true],
    ['^a\\.b$', 'a.b', true],
    ['^a\\.b$', 'axb', false],
    ['^[[]x$', '[x', true],
  ] as const) {
    assert.equal(posixRegex(regex).test(text), wanted, `${regex} on ${text}`);
  }
});
