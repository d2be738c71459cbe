import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { repoRoot } from '../../src/lab/tool.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: it builds network namespaces';
const name = `hfcli${randomBytes(3).toString('hex')}`;

function holdfast(...words: string[]) {
  const args = [join(repoRoot, 'dist/src/cli/main.js'), 'lab', ...words];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  return { status, stdout, stderr };
}

/** Runs `holdfast lab …` that must succeed. */
function lab(...words: string[]): string {
  const { status, stdout, stderr } = holdfast(...words);
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  return stdout;
}

describe('holdfast lab', { skip, timeout: 120_000 }, () => {
  before(() => {
    const text = lab('up', '--bare', '--name', name, '--hosts', '2', '--lans', '2');
    assert.match(text, new RegExp(`^${name}: s1, s2; clients; 2 networks; files in /`));
  });
  after(() => {
    holdfast('down', name);
  });

  const shown = () =>
    (JSON.parse(lab('list', '--json')) as { name: string; faults: { kind: string }[] }[]).find(
      (each) => each.name === name,
    );

  test('a second lab of the same name is refused', () => {
    const { status, stderr } = holdfast('up', '--bare', '--name', name);
    assert.equal(status, 1);
    assert.match(stderr, /HF-LAB-003/);
  });

  test('a command on a host: its output and its exit code', () => {
    assert.equal(lab('exec', '--lab', name, 's1', '--', 'hostname'), 's1\n');
    assert.equal(holdfast('exec', '--lab', name, 's1', '--', 'sh', '-c', 'exit 3').status, 3);
    assert.match(lab('exec', '--lab', name, 's2', '--', 'holdfast', '--version'), /^\d+\.\d+\.\d+/);
  });

  test('faults begin, are listed, and end', () => {
    assert.equal(lab('fault', 'loss', '--lab', name, '--lan', '1', 's1', '20'), 'fault 1\n');
    assert.equal(
      lab('fault', 'cut', '--lab', name, '--one-way', '--lan', '0', 's1', 's2'),
      'fault 2\n',
    );
    assert.match(lab('list'), /fault 1: s1 loses 20 % \(both\) on network 1\n/);
    assert.match(lab('list'), /fault 2: nothing from s1 reaches s2 on network 0\n/);
    lab('clear', '--lab', name, '1');
    assert.deepEqual(
      shown()?.faults.map(({ kind }) => kind),
      ['cut'],
    );
    lab('clear', '--lab', name);
    assert.deepEqual(shown()?.faults, []);
  });

  test('power and boot', () => {
    lab('power', '--lab', name, 's2');
    assert.match(lab('list'), new RegExp(`${name}: s1, s2 \\(off\\)`));
    assert.match(holdfast('exec', '--lab', name, 's2', '--', 'true').stderr, /HF-LAB-008/);
    lab('boot', '--lab', name, 's2');
    assert.equal(lab('exec', '--lab', name, 's2', '--', 'hostname'), 's2\n');
  });

  test('what cannot be done is said', () => {
    for (const [words, code] of [
      [['exec', '--lab', 'no-such-lab', 's1', '--', 'true'], 'HF-LAB-004'],
      [['exec', '--lab', name, 's9', '--', 'true'], 'HF-LAB-005'],
      [['fault', 'loss', '--lab', name, 's1', 'much'], 'HF-LAB-009'],
      [['fault', 'pause', '--lab', name, 's1', 'no-such-process'], 'HF-LAB-009'],
      [['up', '--bare', '--hosts', '100'], 'HF-LAB-009'],
    ] as const) {
      const { status, stderr } = holdfast(...words);
      assert.equal(status, 1);
      assert.match(stderr, new RegExp(code));
    }
  });

  test('down, and gone', () => {
    lab('down', name);
    assert.equal(shown(), undefined);
  });
});
