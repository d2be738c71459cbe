import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setMacros } from '../../src/lab/cluster.ts';
import { repoRoot, toolPath } from '../../src/lab/tool.ts';
import { module, Pair } from './pair-support.ts';
import { eventually } from './support.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: it builds network namespaces';

describe('a mirror with the times of the profile fast', { skip, timeout: 180_000 }, () => {
  let pair: Pair;
  before(async () => {
    pair = await Pair.up();
    const path = join(repoRoot, 'test/fixtures/modules/lab_pair/conf/userconfig.xml');
    const xml = setMacros(readFileSync(path, 'utf8'), {
      VIP4: pair.lab.vip(1),
      VIP6: pair.lab.vip(1, 6),
      TOOL: toolPath(),
      TIMING: 'fast',
    });
    for (const host of [pair.a, pair.b]) {
      // oxlint-disable-next-line no-await-in-loop
      await pair.cluster.client(host).applyConfig(module, xml);
    }
  });
  after(() => pair?.down());

  test('alone, its lease of 300 ms lives by its own agent without a gap', async () => {
    const { a, b, cluster, lab } = pair;
    await pair.ready();
    await cluster.client(b).command(module, 'stop');
    await eventually('its own lease', async () => {
      const { lease } = (await pair.status(a)).pair ?? {};
      return lease?.rule === 'own' && lease.held ? true : null;
    });
    const since = (await cluster.client(a).events({ module, limit: 1 })).at(-1)?.seq ?? 0;
    const load = await lab.load({
      kind: 'tcp',
      server: lab.vip(1),
      port: 1080,
      count: 5,
      intervalMs: 50,
    });
    // Many times as long as the lease, and as the agent's deadline.
    await load.until(({ answers }) => answers > 300, 60_000);
    await load.stop();
    const told = await cluster.client(a).events({ module, limit: 100 });
    const lapses = told.filter(({ seq, text }) => seq > since && /lease withheld/.test(text));
    assert.deepEqual(
      lapses.map(({ text }) => text),
      [],
    );
  });

  test('who waits in vain is told what both servers say', async () => {
    const never = eventually('what never comes', async () => null, 0);
    await assert.rejects(never, (error: Error) => {
      assert.match(error.message, /what never comes\n-- s1\ndb ALONE Ready\n[^]*-- s2\ndb STOP /);
      return true;
    });
  });
});
