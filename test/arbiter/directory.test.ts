import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { DirectoryStore } from '../../src/arbiter/directory-store.ts';
import { checks, first, next } from './contract.ts';
import { clusterId, DirectoryWorld, workersOf } from './directory-world.ts';

const none = { outcome: 'record', record: null } as const;

describe('a register in a directory', () => {
  for (const { name, run } of checks) {
    it(name, async (t) => await run(new DirectoryWorld(t)));
  }

  it('is never what lies below a mount point', async (t) => {
    const world = new DirectoryWorld(t);
    await world.down();
    const answer = await world.open(0).read('db');
    assert.ok(answer.outcome === 'unreachable');
    assert.match(answer.why, /has no file holdfast-register: is it mounted\?/);
    assert.deepEqual(readdirSync(world.path), ['away'], 'nothing was made there');
  });

  it('leaves no process behind when its agent is killed', { timeout: 60_000 }, async (t) => {
    const world = new DirectoryWorld(t);
    const program = new URL('../../src/arbiter/directory.js', import.meta.url).href;
    const options = { path: world.path, clusterId, timeLimitMs: 20_000, text: '', isOwn: false };
    const script = `import { DirectoryRegister } from ${JSON.stringify(program)};
      const register = new DirectoryRegister(${JSON.stringify(options)});
      console.log((await register.read('db')).outcome);
      setInterval(() => undefined, 1000);`;
    const words = ['--input-type=module', '-e', script];
    const agent = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    const [said] = (await once(agent.stdout, 'data')) as [Buffer];
    assert.equal(said.toString(), 'record\n');
    const [worker = 0] = workersOf(world.path, agent.pid);
    assert.ok(worker > 0);
    agent.kill('SIGKILL');
    await once(agent, 'exit');
    // Not our child: nothing tells when it ends.
    while (existsSync(`/proc/${worker}`)) await new Promise((resolve) => setTimeout(resolve, 10));
  });

  it('keeps the newest records and removes what is left of dead servers', (t) => {
    const world = new DirectoryWorld(t);
    const store = new DirectoryStore(world.path, clusterId, false);
    const folder = join(world.path, clusterId, 'db');
    mkdirSync(folder, { recursive: true });
    const old = new Date(Date.now() - 1000);
    writeFileSync(join(folder, '.left.tmp'), 'half');
    utimesSync(join(folder, '.left.tmp'), old, old);
    let held = first;
    assert.equal(store.answer({ kind: 'swap', module: 'db', from: null, to: held }).outcome, 'won');
    for (let round = 0; round < 40; round += 1) {
      const to = next(held);
      const swap = { kind: 'swap', module: 'db', from: held, to } as const;
      assert.equal(store.answer(swap).outcome, 'won');
      held = to;
    }
    const names = readdirSync(folder).filter((name) => !name.endsWith('.tmp'));
    assert.equal(names.length, 16);
    assert.equal(names.toSorted().at(-1), '000000000041');
    assert.ok(readdirSync(folder).includes('.left.tmp'), 'its server may only have paused');
    assert.deepEqual(store.answer({ kind: 'read', module: 'db' }), { ...none, record: held });
  });

  it('does not guess when the newest record is damaged', (t) => {
    const world = new DirectoryWorld(t);
    const store = new DirectoryStore(world.path, clusterId, false);
    const swap = { kind: 'swap', module: 'db', from: null, to: first } as const;
    assert.equal(store.answer(swap).outcome, 'won');
    const second = { ...swap, from: first, to: next(first) };
    assert.equal(store.answer(second).outcome, 'won');
    const file = join(world.path, clusterId, 'db/000000000002');
    const text = readFileSync(file, 'utf8');
    const damages: readonly (readonly [string, RegExp])[] = [
      ['', /no record of version 1|cannot be read/],
      [text.slice(0, -9), /wrong checksum/],
      [text.replace('"primary":0', '"primary":1'), /wrong checksum/],
      [text.replace('"version":1', '"version":2'), /version 1/],
      [readFileSync(join(world.path, clusterId, 'db/000000000001'), 'utf8'), /it is number 1/],
      ['x'.repeat(9000), /cannot be read/],
    ];
    for (const [damaged, why] of damages) {
      writeFileSync(file, damaged);
      for (const question of [{ kind: 'read', module: 'db' } as const, second]) {
        const answer = store.answer(question);
        assert.ok(answer.outcome === 'unreachable', JSON.stringify(answer));
        assert.match(answer.why, why);
      }
    }
    writeFileSync(file, text);
    assert.deepEqual(store.answer({ kind: 'read', module: 'db' }), {
      ...none,
      record: next(first),
    });
  });
});
