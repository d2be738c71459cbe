/** Power switches, by programs that take what the fence-agents take. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { powerOff, powerOn, readSwitch } from '../../src/arbiter/fence-agent.ts';

const longMs = 30_000;

/** An agent that keeps what it is told, then does this. */
function setup(t: TestContext, script: string) {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-switch-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const agent = join(folder, 'agent');
  const told = join(folder, 'told');
  const head = `#!/bin/sh\nall=$(cat); echo "$all" >>${told}; action=\${all##*action=}\n`;
  writeFileSync(agent, `${head}${script}\n`, { mode: 0o755 });
  const conf = join(folder, 's2.conf');
  const write = (text: string): void => writeFileSync(conf, text, { mode: 0o600 });
  write(`# a switch\nagent=${agent}\n\nip=10.0.0.1\npassword=a b=c\n`);
  return { conf, told, write };
}

test('off is what status says it is', async (t) => {
  const { conf, told } = setup(t, 'case $action in status) exit 2;; esac');
  assert.equal(await powerOff(readSwitch(conf), longMs), null);
  const lines = readFileSync(told, 'utf8').split('\n');
  const options = ['ip=10.0.0.1', 'password=a b=c'];
  assert.deepEqual(lines, [...options, 'action=off', ...options, 'action=status', '']);
});

test('an agent that fails may have switched it off all the same', async (t) => {
  const { conf } = setup(t, 'case $action in status) exit 2;; esac; exit 1');
  assert.equal(await powerOff(readSwitch(conf), longMs), null);
});

for (const [what, script, says] of [
  ['still on', 'exit 0', /off: done; status: it is on/],
  ['not known', 'echo "no session" >&2; exit 1', /status: exit 1, no session/],
  ['killed', 'kill -9 $$', /status: no end within its time, ended by SIGKILL/],
] as const) {
  test(`a server that is ${what} is not off`, async (t) => {
    const { conf } = setup(t, script);
    assert.match(String(await powerOff(readSwitch(conf), longMs)), says);
  });
}

test('an agent that hangs is ended, with what it started', async (t) => {
  const { conf } = setup(t, 'sleep 1000 & wait');
  assert.match(String(await powerOff(readSwitch(conf), 300)), /no end within its time/);
});

test('a program that is not there is no answer', async (t) => {
  const { conf, write } = setup(t, '');
  write('agent=fence_that_nobody_has\n');
  assert.match(String(await powerOff(readSwitch(conf), longMs)), /ENOENT/);
  assert.match(String(await powerOn(readSwitch(conf), longMs)), /ENOENT/);
});

test('files that others may read, or that say no agent, are refused, and tell no password', (t) => {
  const { conf, write } = setup(t, '');
  write('agent=fence_x\nsecret without a key\n');
  const bad = (): string => {
    try {
      readSwitch(conf);
      return '';
    } catch (error) {
      return String(error);
    }
  };
  assert.match(bad(), /line 2 is no key=value/);
  assert.doesNotMatch(bad(), /secret/);
  write('ip=10.0.0.1\n');
  assert.match(bad(), /agent=fence_… is missing/);
  write('agent=fence_x\naction=on\n');
  assert.match(bad(), /line 2/);
  write('agent=../x y\n');
  assert.match(bad(), /agent=fence_… is missing/);
  write('agent=fence_x\n');
  chmodSync(conf, 0o644);
  assert.match(bad(), /chmod 600/);
  rmSync(conf);
  assert.match(bad(), /ENOENT/);
});
