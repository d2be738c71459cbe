import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';
import { Lab } from '../../src/lab/lab.ts';
import { allStates, saveState } from '../../src/lab/state.ts';
import { isAlive, processId, repoRoot, until } from '../../src/lab/tool.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: it builds network namespaces';
const module = JSON.stringify(join(repoRoot, 'dist/src/lab/lab.js'));

/** A process that builds a lab, prints {name, dir, processes}, and goes on with `then`. */
async function owner(options: string, then: string) {
  const script = `import { Lab } from ${module};
    const lab = await Lab.up(${options});
    await lab.host('s1').spawn(['sh', '-c', 'setsid sleep 1000'], { detach: true, stdio: 'ignore' });
    const { name, dir } = lab;
    const processes = [...lab.hosts, ...lab.clients].map((h) => h.process)
      .concat(lab.host('s1').processes().map((p) => p.id));
    console.log(JSON.stringify({ name, dir, processes }));
    ${then}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const told = JSON.parse(line) as { name: string; dir: string; processes: string[] };
  assert.ok(told.processes.length >= 3 && told.processes.every(isAlive));
  return { child, ...told };
}

const isHolder = (pid: string) => {
  const file = `/proc/${pid}/cmdline`;
  return existsSync(file) && readFileSync(file, 'utf8').includes('lab_tool');
};

describe('cleaning up', { skip, timeout: 120_000 }, () => {
  test('a lab ends with its owner, however that ends', async () => {
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      const { child, processes, dir } = await owner('{ hosts: 1 }', 'setInterval(() => {}, 1000);');
      child.kill(signal);
      assert.ok(await until(() => !processes.some(isAlive), 10_000));
      await Lab.sweep();
      assert.equal(existsSync(dir), false);
    }
  });

  test('an owner that forgets its lab is not kept from ending', async () => {
    const { child, processes, dir } = await owner('{ hosts: 1 }', '');
    if (child.exitCode === null) await once(child, 'exit');
    assert.equal(child.exitCode, 0);
    assert.ok(await until(() => !processes.some(isAlive), 10_000));
    assert.equal(existsSync(dir), false);
  });

  test('a persistent lab outlives its owner until it is taken down', async () => {
    const made = await owner("{ hosts: 2, persist: true, name: 'hfkept' }", '');
    if (made.child.exitCode === null) await once(made.child, 'exit');
    assert.ok(made.processes.every(isAlive));
    await assert.rejects(Lab.up({ hosts: 1, name: 'hfkept' }), { code: 'HF-LAB-003' });
    const lab = Lab.open('hfkept');
    assert.equal((await lab.host('s1').exec(['hostname'])).stdout, 's1\n');
    await lab.cut('s1', 's2');
    assert.equal(Lab.open('hfkept').faults.length, 2);
    await lab.host('s2').power();
    assert.deepEqual(Lab.list().find((each) => each.name === 'hfkept')?.hosts, [
      { name: 's1', on: true },
      { name: 's2', on: false },
    ]);
    await Lab.open('hfkept').host('s2').boot();
    // The first object sees what the second did.
    await lab.heal();
    assert.equal((await lab.host('s2').exec(['hostname'])).stdout, 's2\n');
    await lab.down();
    await lab.down();
    assert.equal(made.processes.some(isAlive), false);
    assert.equal(existsSync(made.dir), false);
    assert.throws(() => Lab.open('hfkept'), { code: 'HF-LAB-004' });
  });

  test('left-over processes of a lab whose owner died are ended, others never', async () => {
    // A holder that does not watch its owner, as a persistent lab's, in a state that says it should have.
    const made = await owner("{ hosts: 1, persist: true, name: 'hfleft' }", '');
    if (made.child.exitCode === null) await once(made.child, 'exit');
    const stranger = spawn('sleep', ['1000']);
    const state = JSON.parse(
      spawnSync('cat', [join(made.dir, 'state.json')], { encoding: 'utf8' }).stdout,
    ) as Parameters<typeof saveState>[0];
    // The pid of a recycled holder: same number, another start time.
    const extra = { kind: 'host', name: 's9', index: 9, process: `${stranger.pid}:1` } as const;
    mkdirSync(state.dir, { recursive: true });
    saveState({ ...state, persist: false, ends: [...state.ends, extra] });
    assert.deepEqual(
      (await Lab.sweep()).filter((name) => name === 'hfleft'),
      ['hfleft'],
    );
    assert.equal(made.processes.some(isAlive), false);
    assert.equal(stranger.exitCode, null);
    assert.equal(stranger.signalCode, null);
    stranger.kill('SIGKILL');
  });

  test('two labs side by side do not meet', async () => {
    const [left, right] = await Promise.all([Lab.up({ hosts: 2 }), Lab.up({ hosts: 2 })]);
    const s1 = left.host('s1');
    // Same addresses, same MACs, two worlds: only the own world's server is reached.
    const name = async (lab: Lab) => {
      const listen = `require('net').createServer((s) => s.end('${lab.name}')).listen(99, () => console.log('up'))`;
      const server = await lab.host('s2').spawn([process.execPath, '-e', listen]);
      await once(server.child.stdout ?? process.stdin, 'data');
      const ask = `require('net').connect(99, '${s1.address().replace(/1$/, '2')}').pipe(process.stdout)`;
      return (await lab.host('s1').exec([process.execPath, '-e', ask])).stdout;
    };
    assert.deepEqual(await Promise.all([name(left), name(right)]), [left.name, right.name]);
    await right.host('s2').power();
    assert.equal(left.host('s2').isOn, true);
    assert.deepEqual(right.faults, []);
    await left.cut('s1', 's2');
    assert.deepEqual(right.faults, []);
    await Promise.all([left.down(), right.down()]);
  });

  test('a lab that cannot be built leaves nothing', async () => {
    const names = () => new Set(allStates().map(({ name }) => name));
    assert.equal(names().has('hfbroken'), false);
    const path = process.env['PATH'];
    // Without `ip` the holders start, and then nothing can be plugged in.
    process.env['PATH'] = '/nowhere';
    try {
      await assert.rejects(Lab.up({ hosts: 1, name: 'hfbroken' }), { code: 'HF-LAB-006' });
    } finally {
      process.env['PATH'] = path;
    }
    assert.equal(names().has('hfbroken'), false);
    // Every holder is a child of this process.
    const holders = () => {
      const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8');
      return children
        .trim()
        .split(' ')
        .filter((pid) => pid !== '' && isHolder(pid)).length;
    };
    assert.ok(await until(() => holders() === 0, 10_000));
  });

  test('a folder that somebody else made is not trusted', async () => {
    const saved = process.env['TMPDIR'];
    const temporary = mkdtempSync(join(tmpdir(), 'hflab-'));
    const stranger = spawn('sleep', ['1000']);
    const id = processId(stranger.pid ?? 0);
    const folder = join(temporary, 'holdfast-lab/trap');
    mkdirSync(folder, { recursive: true });
    const ends = [{ kind: 'host', name: 's1', index: 1, process: id }];
    const trap = {
      name: 'trap',
      dir: folder,
      persist: true,
      owner: '1:1',
      switchProcess: null,
      ends,
    };
    writeFileSync(join(folder, 'state.json'), JSON.stringify(trap));
    chownSync(join(temporary, 'holdfast-lab'), 65_534, 65_534);
    process.env['TMPDIR'] = temporary;
    try {
      await assert.rejects(Lab.up({ hosts: 1 }), { code: 'HF-LAB-014' });
      assert.deepEqual(await Lab.sweep(), []);
      assert.equal(id !== null && isAlive(id), true);
    } finally {
      if (saved === undefined) delete process.env['TMPDIR'];
      else process.env['TMPDIR'] = saved;
      stranger.kill('SIGKILL');
      rmSync(temporary, { recursive: true, force: true });
    }
  });
});
