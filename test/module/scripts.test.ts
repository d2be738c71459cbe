import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { moduleDirs } from '../../src/module/name.ts';
import { endGroup, groupLives, signalGroup, startTicks } from '../../src/module/process.ts';
import { leftRunning, runScript, settleScript, succeeded } from '../../src/module/scripts.ts';
import { boundUserlogs, maxUserlogs, readUserlogs } from '../../src/module/userlog.ts';
import { eventually, handMade, lineOf, scriptRun, temporaryPaths } from './helpers.ts';

test('a script gets the arguments and the environment of SafeKit', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', { stop_both: 'echo "args $*"; env | sort; pwd' });
  const result = await runScript(
    scriptRun(paths, {
      script: 'stop_both',
      current: 'UP',
      next: 'STOP',
      action: 'stop',
      force: true,
      module: { name: 'web', node: 'n2', vars: { PORT: '8080', SAFE: 'not this', A: 'b "c"' } },
    }),
  );
  assert.ok(succeeded(result));
  assert.ok(result.log !== null);
  const lines = readFileSync(result.log, 'utf8').split('\n');
  assert.equal(lines[0], 'args force UP STOP stop');
  const dirs = moduleDirs(paths, 'web');
  for (const line of [
    `SAFE=${paths.etc}`,
    'SAFEMODULE=web',
    `SAFEUSERBIN=${dirs.bin}`,
    `SAFEUSERCONF=${dirs.conf}`,
    `SAFEVAR=${paths.state}`,
    `SAFEUSERVAR=${dirs.userVar}`,
    'HOLDFAST_NODE=n2',
    'HOLDFAST_MODULE=web',
    'HOLDFAST_STATE=UP',
    'PORT=8080',
    'A=b "c"',
    dirs.bin,
  ]) {
    assert.ok(lines.includes(line), line);
  }
  assert.ok(lines.some((line) => /^SAFEBIN=.*\/bin$/.test(line)));
  assert.ok(statSync(dirs.userVar).isDirectory());
  assert.match(result.log, /\/userlog_\d{4}-\d\d-\d\dT\d{6}\.\d{3}_stop_both\.ulog$/);
});

test('without force the states come first, and a failure keeps its exit status', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', { start_both: 'echo "args $*"; exit 7' });
  const result = await runScript(scriptRun(paths));
  assert.equal(result.exit, 7);
  assert.equal(succeeded(result), false);
  assert.deepEqual(await readUserlogs(moduleDirs(paths, 'web').log, 10), [
    'start_both: args WAIT UP start',
  ]);
});

test('a missing script is a success and leaves no log', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', {});
  const result = await runScript(scriptRun(paths, { script: 'prestart' }));
  assert.ok(result.missing && succeeded(result));
  assert.equal(result.log, null);
});

test('a script that cannot be executed is refused with a reason', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', { start_both: 'true' });
  chmodSync(join(paths.modules, 'web/bin/start_both'), 0o644);
  const result = await runScript(scriptRun(paths));
  assert.equal(result.refused?.code, 'HF-MODULE-030');
  assert.match(result.refused?.message ?? '', /EACCES/);
  assert.equal(succeeded(result), false);
});

test('a script that overruns is ended with its whole group, TERM ignored or not', async (t) => {
  const paths = temporaryPaths(t);
  const note = join(paths.etc, 'pids');
  handMade(paths, 'web', {
    start_both: `trap '' TERM; sh -c 'trap "" TERM; sleep 1000; sleep 1000' & echo "$$ $!" >${note}
      sleep 1000; sleep 1000`,
  });
  const result = await runScript(scriptRun(paths, { timeoutMs: 300, graceMs: 200 }));
  assert.ok(result.timedOut && !succeeded(result));
  assert.equal(result.signal, 'SIGKILL');
  const [leader = 0, child = 0] = readFileSync(note, 'utf8').trim().split(' ').map(Number);
  assert.ok(leader > 0 && child > 0);
  assert.equal(groupLives(leader), false);
  assert.equal(startTicks(child), null);
});

test('a script that overruns may tidy up on TERM', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', {
    start_both: `trap 'echo tidied; exit 3' TERM; echo up; while :; do sleep 0.05; done`,
  });
  const result = await runScript(scriptRun(paths, { timeoutMs: 500 }));
  assert.ok(result.timedOut);
  assert.equal(result.exit, 3);
  assert.match(readFileSync(result.log ?? '', 'utf8'), /up\n(.*\n)*tidied/);
});

test('a run can be cancelled', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', { start_both: 'sleep 1000' });
  const cancel = new AbortController();
  const running = runScript(scriptRun(paths, { signal: cancel.signal }));
  const left = await eventually(() => leftRunning(paths, 'web'), 'script noted as running');
  cancel.abort();
  const result = await running;
  assert.ok(result.cancelled && !result.timedOut);
  assert.equal(startTicks(left.pid), null);
  assert.equal(leftRunning(paths, 'web'), null);
  const never = await runScript(scriptRun(paths, { signal: cancel.signal }));
  assert.ok(never.cancelled && never.log === null);
});

test('daemons live on after the script, and after the death of the process that ran it', async (t) => {
  const paths = temporaryPaths(t);
  const beat = join(paths.etc, 'beat');
  handMade(paths, 'web', {
    // One daemon in the script's own group, one in a session of its own; both write to the log.
    start_both: `for mode in plain setsid; do
        [ $mode = setsid ] && s=setsid || s=
        $s sh -c 'echo $$ >'${beat}.$mode'; while :; do echo alive; sleep 0.02; done' &
      done; while [ ! -s ${beat}.plain ] || [ ! -s ${beat}.setsid ]; do sleep 0.01; done`,
  });
  const url = new URL('../../src/module/scripts.js', import.meta.url).href;
  const args = JSON.stringify(scriptRun(paths));
  const code = `import { runScript } from '${url}';
    const result = await runScript(${args});
    process.stdout.write(result.log); setInterval(() => {}, 1000);`;
  const agent = spawn(process.execPath, ['--input-type=module', '-e', code]);
  const [chunk] = (await once(agent.stdout, 'data')) as [Buffer];
  agent.kill('SIGKILL');
  await once(agent, 'exit');
  for (const mode of ['plain', 'setsid']) {
    const pid = Number(readFileSync(`${beat}.${mode}`, 'utf8'));
    t.after(() => startTicks(pid) !== null && process.kill(pid, 'SIGKILL'));
  }
  const log = chunk.toString();
  const before = statSync(log).size;
  await eventually(() => statSync(log).size > before + 60, 'daemons write after the death');
  for (const mode of ['plain', 'setsid']) {
    assert.notEqual(startTicks(Number(readFileSync(`${beat}.${mode}`, 'utf8'))), null, mode);
  }
});

test('a script that a former agent began is waited for', async (t) => {
  const paths = temporaryPaths(t);
  const go = join(paths.etc, 'go');
  const done = join(paths.etc, 'done');
  handMade(paths, 'web', {
    start_both: `while [ ! -e ${go} ]; do sleep 0.01; done; echo yes >${done}`,
    stop_both: 'sleep 1000',
  });
  const begin = async (script: 'start_both' | 'stop_both'): Promise<void> => {
    const url = new URL('../../src/module/scripts.js', import.meta.url).href;
    const code = `import { runScript } from '${url}'; await runScript(${JSON.stringify(scriptRun(paths, { script }))});`;
    const agent = spawn(process.execPath, ['--input-type=module', '-e', code]);
    await eventually(() => leftRunning(paths, 'web'), 'script noted as running');
    agent.kill('SIGKILL');
    await once(agent, 'exit');
  };
  await begin('start_both');
  const settling = settleScript(paths, 'web', 20_000);
  writeFileSync(go, '');
  assert.deepEqual(await settling, { script: 'start_both', ended: false });
  assert.equal(lineOf(done), 'yes');
  assert.equal(await settleScript(paths, 'web', 100), null);

  await begin('stop_both');
  const pid = leftRunning(paths, 'web')?.pid ?? 0;
  assert.deepEqual(await settleScript(paths, 'web', 100), { script: 'stop_both', ended: true });
  assert.equal(startTicks(pid), null);
});

test('a group of nothing but zombies counts as ended', async (t) => {
  // The child has a group of its own and ends with its input; by then its parent is no shell any more
  // and never asks for its end.
  const parent = spawn('sh', ['-c', 'exec 3<&0; setsid cat <&3 & echo $!; exec sleep 1000']);
  t.after(() => parent.kill('SIGKILL'));
  const [chunk] = (await once(parent.stdout, 'data')) as [Buffer];
  const zombie = Number(chunk.toString());
  await eventually(
    () => readFileSync(`/proc/${parent.pid}/cmdline`, 'utf8').startsWith('sleep'),
    'the shell is gone',
  );
  parent.stdin.end();
  await eventually(() => startTicks(zombie) === null, 'child has ended');
  assert.equal(signalGroup(zombie, 0), true);
  assert.equal(groupLives(zombie), false);
  assert.equal(await endGroup(zombie, 60_000), true);
});

test('a note of a process that is another one now is not believed', (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', {});
  const { running } = moduleDirs(paths, 'web');
  assert.equal(leftRunning(paths, 'web'), null);
  mkdirSync(dirname(running), { recursive: true });
  for (const text of [
    JSON.stringify({ what: 'start_both', pid: process.pid, ticks: '1' }),
    '{"what":"start_both","pid":"x","ticks":1}',
    'null',
    '{',
  ]) {
    writeFileSync(running, text);
    assert.equal(leftRunning(paths, 'web'), null, text);
  }
});

test('user logs are bounded in number and size', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', {
    prestart: 'echo first',
    start_both: 'i=0; while [ $i -lt 3000 ]; do echo "line $i of many"; i=$((i+1)); done',
  });
  await runScript(scriptRun(paths, { script: 'prestart' }));
  const { log } = moduleDirs(paths, 'web');
  for (let i = 0; i < maxUserlogs + 3; i++) {
    await runScript(scriptRun(paths, { log: { logging: 'userlog', userlogKib: 8 } }));
  }
  const names = readdirSync(log);
  assert.equal(names.length, maxUserlogs);
  assert.ok(names.some((name) => name.endsWith('_prestart.ulog')));
  for (const name of names) assert.ok(statSync(join(log, name)).size <= 8 * 1024, name);
  assert.deepEqual(await readUserlogs(log, 2), [
    'start_both: line 2998 of many',
    'start_both: line 2999 of many',
  ]);
  assert.equal(await boundUserlogs(log, 1024), maxUserlogs - 1);
});

test('a program that still writes goes on in its cut log', async (t) => {
  const paths = temporaryPaths(t);
  const note = join(paths.etc, 'pid');
  handMade(paths, 'web', {
    start_both: `(while :; do echo 0123456789; sleep 0.01; done) & echo $! >${note}`,
  });
  const result = await runScript(scriptRun(paths));
  const writer = Number(lineOf(note));
  t.after(() => process.kill(writer, 'SIGKILL'));
  const log = result.log ?? '';
  await eventually(() => statSync(log).size > 200, 'log grows');
  assert.equal(await boundUserlogs(moduleDirs(paths, 'web').log, 200), 1);
  const cut = statSync(log).size;
  await eventually(() => statSync(log).size > cut, 'log grows again');
  assert.ok(readFileSync(log).indexOf(0) < 0, 'no hole of zero bytes');
});

test('logging none runs the script without a file', async (t) => {
  const paths = temporaryPaths(t);
  handMade(paths, 'web', { start_both: 'echo lost' });
  const result = await runScript(scriptRun(paths, { log: { logging: 'none', userlogKib: 64 } }));
  assert.ok(succeeded(result));
  assert.equal(result.log, null);
});
