/** The judge of the prefix runs (replica_tool check-prefix), by histories written by hand. */
import assert from 'node:assert/strict';
import { linkSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { run, tool } from './pair.ts';

/** A second; all files of the copy have it as the time of their last change. */
const time = '1700000000.0';

/** Two names of one empty file were made; then a write that did not return, and `last`, which did. */
function history(last: string): string {
  return [
    'history 1',
    'b 0 1 10 create f % 0 0 0 420',
    `e 0 1 11 0 ${time} ${time}`,
    'b 0 2 12 link f h 0 0 0 0',
    `e 0 2 13 0 ${time}`,
    'b 0 3 14 write f % 0 100 7 0',
    `b 0 4 15 ${last} 0 0 0 0`,
    `e 0 4 16 0 ${time} ${time}`,
    '',
  ].join('\n');
}

/** What the judge says where the copy has nothing of the write and of what came after it. */
async function verdict(t: TestContext, last: string): Promise<{ code: number; out: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-verdict-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const copy = join(folder, 'copy');
  const domain = join(copy, 'domain0');
  mkdirSync(domain, { recursive: true });
  writeFileSync(join(copy, 'appends'), '');
  writeFileSync(join(domain, 'f'), '', { mode: 0o644 });
  linkSync(join(domain, 'f'), join(domain, 'h'));
  for (const path of [join(domain, 'f'), domain]) utimesSync(path, 1_700_000_000, 1_700_000_000);
  const log = join(folder, 'history.log');
  writeFileSync(log, history(last));
  const { code, out } = await run(tool, ['check-prefix', log, copy, '--least', 'all']);
  return { code: code ?? -1, out };
}

describe('the judge of prefix runs', () => {
  test('a rename that returned demands all before it', async (t) => {
    const { code, out } = await verdict(t, 'rename f g');
    assert.equal(code, 1);
    assert.match(out, /operation 4 \(rename f g 0 0 0 0\) is missing, and it had returned/);
  });

  for (const last of ['exchange f h', 'rename f h', 'rename f f']) {
    test(`${last}, two names of one file, is done by the kernel alone and demands nothing`, async (t) => {
      const { code, out } = await verdict(t, last);
      assert.equal(code, 0, out);
    });
  }
});
