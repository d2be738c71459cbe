/** The demo's mirror as a whole, and how it judges what it saw. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import {
  account,
  gapVerdict,
  mirrorHosts,
  mirrorLines,
  showMirror,
  takeoverText,
} from '../../src/demo/mirror.ts';
import type { EventRecord } from '../../src/host/face.ts';
import { Lab } from '../../src/lab/lab.ts';
import { repoRoot } from '../../src/lab/tool.ts';
import { skip } from './support.ts';

const absent = existsSync('/usr/lib/postgresql')
  ? skip
  : 'needs PostgreSQL (apt install postgresql)';

const execute = promisify(execFile);

/** A command line that the demo prints to try; rejects when it fails. */
const run = (line: string): Promise<unknown> => execute('sh', ['-c', line], { cwd: repoRoot });

describe('the demo of a mirror', { timeout: 400_000 }, () => {
  test('power pull, resynchronisation and swap under a client that commits; lines to try', {
    skip: absent,
  }, async () => {
    const lab = await Lab.up({ hosts: mirrorHosts, lans: 2, clientAddresses: 10 });
    try {
      assert.equal(await showMirror(lab), true);
      for (const line of mirrorLines(lab)) await run(line);
    } finally {
      await lab.down();
    }
  });

  test('a row that was acknowledged and is not there is lost', () => {
    assert.deepEqual(account([1, 2, 4], [1, 4], 4), { rows: 3, lost: 1, open: 0, strange: 0 });
  });

  test('a row in doubt may be there or not; no other may', () => {
    const good = { rows: 2, lost: 0, open: 1, strange: 0 };
    assert.deepEqual(account([1, 3], [1, 2, 3], 4), good);
    assert.deepEqual(account([1, 3], [1, 3], 4), { ...good, open: 0 });
    assert.deepEqual(account([1, 3], [0, 1, 3, 5], 4), { ...good, open: 0, strange: 2 });
    assert.deepEqual(account([1, 3], [1, 3, 3], 4), { ...good, open: 0, strange: 1 });
  });

  test('a silence within the aim, a longer one, and one that no busy machine explains', () => {
    const told = (gapMs: number): string => {
      const { isGood, text } = gapVerdict(gapMs);
      return `${isGood} ${text.slice(0, 4)} ${/(met|missed)\)$/.exec(text)?.[1]}`;
    };
    assert.equal(told(1899), 'true ok   met');
    assert.equal(told(1900), 'true late missed');
    assert.equal(told(10_000), 'true late missed');
    assert.equal(told(10_001), 'false FAIL missed');
  });

  test('the steps of a takeover count from the pull on', () => {
    const step = (bootMs: number, to: string): EventRecord => ({
      ...{ seq: 1, wallMs: 0, node: 's2', module: 'db', kind: 'transition', text: '' },
      bootMs,
      data: { to },
    });
    const events = [step(90, 'prim'), step(1300, 'secondStopping'), step(1765, 'primStarting')];
    const text = takeoverText([...events, step(2100.4, 'prim')], 100);
    assert.match(text, /word 1200 ms, .* over 1665 ms, .* clients 2000 ms$/);
    assert.match(takeoverText(events, 100), /clients never$/);
  });
});
