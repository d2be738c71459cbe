import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { LinkView } from '../../src/checkers/address.ts';
import {
  type Checker,
  type CheckerDeps,
  type CheckReport,
  startChecker,
  startReadyGate,
} from '../../src/checkers/checker.ts';
import { internetChecksum, Pinger } from '../../src/checkers/ping.ts';
import { systemTimers } from '../../src/checkers/poll.ts';
import { ProcessTable } from '../../src/checkers/processes.ts';
import type { CheckConfig, ReadyConfig } from '../../src/config/model.ts';
import { startTicks } from '../../src/module/process.ts';
import type { LinkAddress, LinkDevice, LinkEvent } from '../../src/native/link.ts';
import { eventually, handMade, lineOf, temporaryPaths } from '../module/helpers.ts';

const base = { ident: 'x', when: 'both', action: 'restart', line: 1 } as const;
const timing = { intervalMs: 100, timeoutMs: 5000 };

class Links implements LinkView {
  device: LinkDevice[] = [];
  address: LinkAddress[] = [];
  readonly #listeners = new Set<(event: LinkEvent) => void>();

  devices(): readonly LinkDevice[] {
    return this.device;
  }

  addresses(): readonly LinkAddress[] {
    return this.address;
  }

  subscribe(listener: (event: LinkEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  changed(): void {
    for (const one of this.#listeners) one({ kind: 'link', device: 'eth0', up: true });
  }

  listeners(): number {
    return this.#listeners.size;
  }
}

function setup(t: TestContext, scripts: Readonly<Record<string, string>> = {}) {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', scripts);
  const reports: CheckReport[] = [];
  const links = new Links();
  const deps: CheckerDeps = {
    paths,
    processes: new ProcessTable(systemTimers),
    module: { name: 'web', node: 'n1', vars: { COLOUR: 'red' } },
    state: () => 'UP',
    timers: systemTimers,
    links,
    pinger: new Pinger(),
    clusterCa: '',
    report: (report) => reports.push(report),
  };
  const started: Checker[] = [];
  t.after(() => Promise.all(started.map((checker) => checker.stop())));
  const keep = (checker: Checker): Checker => {
    started.push(checker);
    return checker;
  };
  return {
    paths,
    links,
    reports,
    check: (config: CheckConfig) => keep(startChecker(config, deps)),
    gate: (config: Partial<ReadyConfig>) =>
      keep(startReadyGate({ ...gateConfig, ...config }, deps)),
    next: (count: number) =>
      eventually(() => (reports.length >= count ? reports[count - 1] : null), `report ${count}`),
  };
}

const gateConfig: ReadyConfig = {
  kind: 'tcp',
  addr: '127.0.0.1',
  port: 0,
  path: '',
  intervalMs: 100,
  timeoutMs: 5000,
  failures: 2,
  startTimeoutMs: 0,
  action: 'restart',
};

async function listening(server: Server, port = 0): Promise<number> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function closed(server: Server): Promise<void> {
  server.close();
  await once(server, 'close');
}

test('tcp: down while nothing listens, up while something does', async (t) => {
  const server = createServer((socket) => socket.destroy());
  const port = await listening(server);
  const { check, next } = setup(t);
  const checker = check({ ...base, kind: 'tcp', addr: '127.0.0.1', port, ...timing });
  assert.equal(checker.resource, 'tcp.x');
  assert.equal(checker.set('down', 'by hand'), false);
  assert.deepEqual(await next(1), { resource: 'tcp.x', state: 'up', reason: 'answers' });
  await closed(server);
  assert.deepEqual(await next(2), {
    resource: 'tcp.x',
    state: 'down',
    reason: `127.0.0.1:${port} ECONNREFUSED`,
  });
  await listening(server, port);
  t.after(() => server.close());
  assert.equal((await next(3)).state, 'up');
});

test('ready gate over http: opens by status, closes after failures in a row', async (t) => {
  const seen: string[] = [];
  const status = { code: 503 };
  const server = createHttpServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    response.writeHead(status.code).end('x'.repeat(100_000));
  });
  const port = await listening(server);
  t.after(() => server.close());
  const { gate, next, reports } = setup(t);
  gate({ kind: 'http', port, path: '/health?full=1' });
  assert.match((await next(1)).reason, /answers 503/);
  status.code = 204;
  assert.deepEqual(await next(2), { resource: 'farm.ready', state: 'up', reason: 'answers' });
  status.code = 500;
  assert.equal((await next(3)).state, 'down');
  status.code = 302;
  assert.equal((await next(4)).state, 'up');
  assert.deepEqual([...new Set(seen)], ['GET /health?full=1']);
  assert.equal(reports.length, 4);
});

test('a server that accepts and says nothing is down at the timeout', async (t) => {
  const server = createServer(() => undefined);
  const port = await listening(server);
  t.after(() => server.close());
  const { gate, next } = setup(t);
  gate({ kind: 'http', port, path: '/', timeoutMs: 50, failures: 1 });
  assert.deepEqual(await next(1), {
    resource: 'farm.ready',
    state: 'down',
    reason: 'no answer within 50 ms',
  });
});

test('ready gate by script: its exit decides, its last line says why', async (t) => {
  const { gate, next, paths } = setup(t, {
    ready: `[ -e "$SAFEUSERCONF/ok" ] && exit 0; echo noise; echo "$COLOUR $HOLDFAST_STATE not yet"; exit 1`,
  });
  gate({ kind: 'script', path: 'ready' });
  assert.equal((await next(1)).reason, 'bin/ready: red UP not yet');
  writeFileSync(join(paths.modules, 'web/conf/ok'), '');
  assert.equal((await next(2)).state, 'up');
});

test('a check script that overruns is ended with what it started', async (t) => {
  const { gate, next, paths } = setup(t, {
    ready: `sleep 1000 & echo "$$ $!" >"$SAFEUSERCONF/pids"; wait`,
  });
  const checker = gate({ kind: 'script', path: 'ready', timeoutMs: 300, failures: 1 });
  assert.equal((await next(1)).reason, 'no answer within 300 ms');
  await checker.stop();
  const pids = readFileSync(join(paths.modules, 'web/conf/pids'), 'utf8').trim().split(' ');
  assert.equal(pids.length, 2);
  for (const pid of pids) assert.equal(startTicks(Number(pid)), null);
});

test('a check script that is missing is down, not a crash', async (t) => {
  const { gate, next } = setup(t);
  gate({ kind: 'script', path: 'ready', failures: 1 });
  assert.equal((await next(1)).reason, 'bin/ready cannot run: ENOENT');
});

test('module: asks for ready.txt of the other module', async (t) => {
  const ready = { value: false };
  const seen: string[] = [];
  const server = createHttpServer((request, response) => {
    seen.push(request.url ?? '');
    response.writeHead(ready.value ? 200 : 404).end();
  });
  const port = await listening(server);
  t.after(() => server.close());
  const { check, next } = setup(t);
  check({ ...base, kind: 'module', name: 'db', addr: null, port, ...timing });
  assert.equal((await next(1)).state, 'down');
  ready.value = true;
  assert.deepEqual(await next(2), { resource: 'module.x', state: 'up', reason: 'answers' });
  assert.equal(seen[0], '/var/modules/db/ready.txt');
});

test('intf: follows the device that carries the address', async (t) => {
  const { check, next, links } = setup(t);
  const eth0 = { index: 2, name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1500 };
  const checker = check({ ...base, kind: 'intf', localAddr: '10.0.0.1' });
  assert.deepEqual(await next(1), {
    resource: 'intf.x',
    state: 'down',
    reason: 'no interface has 10.0.0.1',
  });
  links.device = [{ ...eth0, up: true }];
  links.address = [{ device: 'eth0', addr: '10.0.0.1', prefix: 24 }];
  links.changed();
  assert.equal((await next(2)).state, 'up');
  links.device = [{ ...eth0, up: false }];
  links.changed();
  assert.equal((await next(3)).reason, 'interface eth0 is down');
  await checker.stop();
  assert.equal(links.listeners(), 0);
});

test('ip: an IPv6 address counts however it is spelt', async (t) => {
  const { check, next, links } = setup(t);
  links.address = [{ device: 'eth0', addr: '2001:db8::1', prefix: 64 }];
  check({ ...base, kind: 'ip', addr: '2001:DB8:0:0::0001', intervalMs: 100 });
  assert.equal((await next(1)).state, 'up');
  links.address = [];
  assert.equal((await next(2)).reason, '2001:DB8:0:0::0001 is on no interface');
});

test('custom: runs the program, takes what it sets, and ends it', async (t) => {
  const { check, next, paths, reports } = setup(t, {
    watch: `echo "$* $COLOUR" >"$SAFEUSERVAR/args"; echo $$ >"$SAFEUSERVAR/pid"; echo hello; while :; do sleep 0.05; done`,
  });
  const folder = join(paths.state, 'modules/web/var');
  mkdirSync(folder, { recursive: true });
  const checker = check({ ...base, kind: 'custom', exec: 'watch', arg: ' -v  2 ' });
  const pid = Number(await eventually(() => lineOf(join(folder, 'pid')), 'checker runs'));
  assert.equal(lineOf(join(folder, 'args')), '-v 2 red');
  assert.deepEqual(reports, []);
  assert.ok(checker.set('up', 'set by the checker'));
  checker.set('up', 'again');
  checker.set('down', 'disk');
  assert.deepEqual(reports, [
    { resource: 'custom.x', state: 'up', reason: 'set by the checker' },
    { resource: 'custom.x', state: 'down', reason: 'disk' },
  ]);
  assert.equal((await next(2)).state, 'down');
  await checker.stop();
  assert.equal(startTicks(pid), null);
  checker.set('up', 'too late');
  assert.equal(reports.length, 2);
  const logs = readdirSync(join(paths.log, 'modules/web'));
  assert.equal(logs.length, 1);
  assert.match(logs[0] ?? '', /_custom\.x\.ulog$/);
});

test('custom: one that a former agent left is ended before a new one starts', async (t) => {
  const { check, paths } = setup(t, {
    watch: `echo $$ >>"$SAFEUSERVAR/pids"; while :; do sleep 0.05; done`,
  });
  const folder = join(paths.state, 'modules/web/var');
  mkdirSync(folder, { recursive: true });
  const config: CheckConfig = { ...base, kind: 'custom', exec: 'watch', arg: '' };
  const pids = (): number[] => (lineOf(join(folder, 'pids')) ?? '').split('\n').map(Number);
  // The first checker stands for the former agent's: it is not stopped, only forgotten.
  check(config);
  await eventually(
    () => (pids()[0] ?? 0) > 0 && readdirSync(join(paths.run, 'modules'))[0],
    'first',
  );
  check(config);
  await eventually(() => pids().length === 2, 'second');
  assert.equal(startTicks(pids()[0] ?? 0), null);
  assert.notEqual(startTicks(pids()[1] ?? 0), null);
});

test('custom: one that does not stay up makes its resource down', async (t) => {
  const { check, next } = setup(t);
  const config: CheckConfig = { ...base, kind: 'custom', exec: 'missing', arg: '' };
  check(config);
  assert.deepEqual(await next(1), {
    resource: 'custom.x',
    state: 'down',
    reason: 'bin/missing does not stay up: ENOENT',
  });
});

test('ping: answers, silence and nonsense, IPv4 and IPv6, without leaks', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('raw sockets need root');
  const pinger = new Pinger();
  const files = (): number => readdirSync('/proc/self/fd').length;
  const ping = (addr: string, ms = 5000): Promise<string | null> =>
    pinger.ping(addr, AbortSignal.timeout(ms));
  assert.equal(await ping('127.0.0.1'), null);
  assert.equal(await ping('::1'), null);
  const before = files();
  for (let i = 0; i < 50; i++) {
    assert.deepEqual(await Promise.all(['127.0.0.1', '127.0.0.2', '::1'].map((a) => ping(a))), [
      null,
      null,
      null,
    ]);
  }
  await eventually(() => files() <= before + 1, 'sockets are closed');
  // 0.0.0.0/8 beyond 0.0.0.0 has no route to answer from; broadcast of lo is refused or silent.
  assert.notEqual(await ping('127.255.255.255', 100), null);
  assert.notEqual(await ping('not an address', 100), null);
  assert.equal(await pinger.ping('127.0.0.1', AbortSignal.abort()), 'given up');
});

test('splitbrain: one witness that answers is enough', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('raw sockets need root');
  const { check, next } = setup(t);
  check({ ...base, kind: 'splitbrain', exec: 'ping', arg: '127.0.0.1  ::1' });
  assert.deepEqual(await next(1), { resource: 'splitbrain.x', state: 'up', reason: 'answers' });
});

test('the checksum is that of RFC 1071', () => {
  assert.equal(internetChecksum(Buffer.from('0001f203f4f5f6f7', 'hex')), 0x220d);
  assert.equal(internetChecksum(Buffer.from('ff', 'hex')), 0x00ff);
  const frame = Buffer.from('08000000123400010102', 'hex');
  frame.writeUInt16BE(internetChecksum(frame), 2);
  assert.equal(internetChecksum(frame), 0);
});
