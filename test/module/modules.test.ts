import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { moduleDirs } from '../../src/module/name.ts';
import { installPackage, packageFolder, readUserconfig } from '../../src/module/package.ts';
import { startTicks } from '../../src/module/process.ts';
import { runScript, type ScriptName } from '../../src/module/scripts.ts';
import { eventually, temporaryPaths } from './helpers.ts';
import { byHand, configOf, decided, Host, repository } from './host.ts';

/*
 * The ready-made modules, with the real applications, each in a network namespace of its own. The
 * test's scripts run there because `ip netns exec` stands before them.
 */

const modules = {
  nginx_farm: join(repository, 'modules/nginx_farm'),
  farm: join(repository, 'modules/farm'),
  echo_farm: join(repository, 'test/fixtures/modules/echo_farm'),
};
const mirrors = {
  mirror: join(repository, 'modules/mirror'),
  lab_mirror: join(repository, 'test/fixtures/modules/lab_mirror'),
};

for (const [name, folder] of Object.entries(modules)) {
  test(`${name} is a whole module: it can be packaged, and its configuration is valid`, async (t) => {
    const paths = temporaryPaths(t);
    await installPackage(paths, name, await packageFolder(name, folder), false);
    const config = configOf(name, await readUserconfig(paths, name));
    assert.equal(config.service.mode, 'farm');
    assert.ok(config.ready !== null);
    const bin = moduleDirs(paths, name).bin;
    for (const script of readdirSync(bin)) {
      const first = readFileSync(join(bin, script), 'utf8').split('\n')[0];
      if (first === '#!/bin/sh') assert.equal(sh(['-n', join(bin, script)]), '', script);
    }
    for (const script of ['start_both', 'stop_both']) assert.ok(existsSync(join(bin, script)));
  });
}

for (const [name, folder] of Object.entries(mirrors)) {
  test(`${name} is a whole module: it can be packaged, and its configuration is valid`, async (t) => {
    const paths = temporaryPaths(t);
    await installPackage(paths, name, await packageFolder(name, folder), false);
    const xml = (await readUserconfig(paths, name)).replaceAll('net1', 'lan1');
    const config = configOf(name, xml, [], decided);
    // That it is run by hand, and has no virtual IP then.
    const warnings = ['HF-CONFIG-060', ...(config.vip === null ? [] : ['HF-CONFIG-067'])];
    configOf(name, xml, warnings, byHand);
    assert.equal(config.service.mode, 'mirror');
    assert.equal(config.rfs?.directories.length, 1);
    const bin = moduleDirs(paths, name).bin;
    for (const script of readdirSync(bin)) assert.equal(sh(['-n', join(bin, script)]), '', script);
    for (const script of ['start_prim', 'stop_prim']) assert.ok(existsSync(join(bin, script)));
  });
}

test('nginx_farm serves with the name of its server, through all it may meet', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('network namespaces need root');
  if (!existsSync('/usr/sbin/nginx')) return t.skip('needs nginx (apt install nginx-light)');
  const host = await Host.create(t, 'nginx_farm', modules.nginx_farm);
  const { dirs } = host;
  t.after(() => host.run('stop_both', true));
  const get = (path = '/'): string =>
    host.exec('curl', ['-sS', '-i', '--max-time', '5', `http://127.0.0.1:80${path}`]);
  const master = (): number => Number(readFileSync(join(dirs.userVar, 'nginx.pid'), 'utf8'));

  await host.run('prestart');
  await host.run('start_both');
  const page = get();
  assert.match(page, /^HTTP\/1.1 200/);
  assert.match(page, /X-Holdfast-Node: node1\r\n/);
  assert.match(page, /served by node1/);
  assert.match(get('/holdfast-ready'), /^HTTP\/1.1 204/);
  assert.match(host.exec('curl', ['-sS', '--max-time', '5', 'http://[::1]/']), /served by node1/);

  // Started again, as after a restart of the agent: the same process goes on.
  const first = master();
  await host.run('start_both');
  assert.equal(master(), first);

  // Asked to stop, it stops; asked again, it is content; twice, as Holdfast does it.
  await host.run('stop_both');
  await host.run('stop_both', true);
  assert.equal(startTicks(first), null);
  assert.throws(get, /Failed to connect|Connection refused/);
  await host.run('stop_both');

  // Its master killed: the workers go on serving and hold the port. It starts anew all the same.
  await host.run('start_both');
  const second = master();
  await eventually(() => group(second).length === 3, 'two workers');
  process.kill(second, 'SIGKILL');
  await eventually(() => startTicks(second) === null, 'master is gone');
  assert.match(get(), /^HTTP\/1.1 200/);
  assert.equal(group(second).length, 2);
  await host.run('start_both');
  assert.notEqual(master(), second);
  assert.deepEqual(group(second), []);
  assert.match(get(), /^HTTP\/1.1 200/);

  // Stopped processes take no TERM: force ends them.
  process.kill(master(), 'SIGSTOP');
  await host.run('stop_both', true);
  assert.throws(get, /Failed to connect|Connection refused/);

  // A pid file of long ago names a process that is none of its business.
  writeFileSync(join(dirs.userVar, 'nginx.pid'), `${process.pid}\n`);
  await host.run('stop_both');
  await host.run('stop_both', true);
  await host.run('start_both');
  assert.match(get(), /^HTTP\/1.1 200/);
  await host.run('stop_both', true);
});

test('nginx_farm says why it did not start', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('network namespaces need root');
  if (!existsSync('/usr/sbin/nginx')) return t.skip('needs nginx (apt install nginx-light)');
  const host = await Host.create(t, 'nginx_farm', modules.nginx_farm);
  rmSync(join(host.dirs.conf, 'nginx.conf'));
  writeFileSync(join(host.dirs.conf, 'nginx.conf'), 'pid @VAR@/nginx.pid;\nnonsense;\n');
  const result = await runScript(host.scriptRun('start_both'));
  assert.equal(result.exit, 1);
  assert.match(
    readFileSync(result.log ?? '', 'utf8'),
    /unknown directive "nonsense".*nginx.conf:2/,
  );
});

test('farm starts and stops systemd services in order', async (t) => {
  const paths = temporaryPaths(t);
  await installPackage(paths, 'app', await packageFolder('app', modules.farm), false);
  // A systemctl of our own that notes what it was asked.
  const dirs = moduleDirs(paths, 'app');
  const notes = join(dirs.bin, 'notes');
  writeFileSync(join(dirs.bin, 'systemctl'), `#!/bin/sh\necho "$*" >>${notes}\n`, { mode: 0o755 });
  const run = (script: ScriptName, force = false): void => {
    const args = force ? ['force', 'UP', 'STOP', 'stop'] : ['UP', 'STOP', 'stop'];
    const env = { PATH: `${dirs.bin}:/usr/bin:/bin`, SERVICES: 'db web', SAFEUSERBIN: dirs.bin };
    assert.equal(spawnSync(join(dirs.bin, script), args, { env, encoding: 'utf8' }).status, 0);
  };
  run('start_both');
  run('stop_both');
  assert.deepEqual(readFileSync(notes, 'utf8').trim().split('\n'), [
    'start db',
    'start web',
    'stop web',
    'stop db',
  ]);
  rmSync(notes);
  run('prestart');
  assert.deepEqual(readFileSync(notes, 'utf8').trim().split('\n'), [
    'stop web',
    'kill --signal=KILL web',
    'stop db',
    'kill --signal=KILL db',
  ]);
});

test('the echo application answers over TCP and UDP, from the address that was asked', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('network namespaces need root');
  const host = await Host.create(t, 'echo_farm', modules.echo_farm);
  t.after(() => host.run('stop_both', true));
  await host.run('prestart');
  await host.run('start_both');
  for (const address of ['10.77.0.100/32', 'fd77::100/128']) {
    host.exec('ip', ['address', 'add', address, 'dev', 'lo']);
  }
  const client = `
import socket, sys
for family, vip in ((socket.AF_INET, '10.77.0.100'), (socket.AF_INET6, 'fd77::100')):
  for port in (7000, 7001):
    u = socket.socket(family, socket.SOCK_DGRAM); u.settimeout(5); u.connect((vip, port))
    u.send(b'ping'); print(u.recv(100).decode())
    c = socket.create_connection((vip, port), 5); f = c.makefile('rw')
    f.write('a\\nb\\n'); f.flush(); print(f.readline().strip(), f.readline().strip(), f.readline().strip())`;
  const lines = host.exec('python3', ['-c', client]).trim().split('\n');
  assert.deepEqual(lines, Array(4).fill(['node1 ping', 'node1 node1 a node1 b']).flat());
  const pid = Number(readFileSync(join(host.dirs.userVar, 'echo.pid'), 'utf8'));
  await host.run('start_both');
  assert.notEqual(startTicks(pid), null);
  await host.run('stop_both');
  await host.run('stop_both', true);
  assert.equal(startTicks(pid), null);
});

/** Members of a process group that are no zombies. */
function group(pgid: number): string[] {
  const { stdout } = spawnSync('ps', ['-eo', 'pgid=,stat=,pid='], { encoding: 'utf8' });
  return stdout
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([id, stat]) => Number(id) === pgid && !(stat ?? '').startsWith('Z'))
    .map(([, , pid]) => pid ?? '');
}

function sh(args: readonly string[]): string {
  return execFileSync('/bin/sh', args, { encoding: 'utf8', stdio: 'pipe' });
}
