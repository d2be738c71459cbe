/** The operator's commands on a mirror that decides for itself, as docs/operate/mirror.md tells them. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { EventRecord } from '../../src/host/face.ts';
import type { Host } from '../../src/lab/host.ts';
import { dir, module as name, Pair } from './pair-support.ts';
import { eventually, skip } from './support.ts';

describe('the operator of a mirror that decides for itself', { skip, timeout: 400_000 }, () => {
  let mirror: Pair;
  let a: Host;
  let b: Host;

  before(async () => {
    mirror = await Pair.up({ arbiter: 'directory' });
    ({ a, b } = mirror);
  });
  after(async () => mirror?.down());

  const cli = (host: Host, ...words: string[]): Promise<string> => mirror.cluster.cli(host, words);
  const sh = async (host: Host, script: string): Promise<string> =>
    (await host.exec(['sh', '-c', script])).stdout;
  const becomes = (host: Host, wanted: string): Promise<void> => mirror.becomes(host, wanted);
  /** Both serve: `first` as primary. */
  async function whole(first: Host): Promise<void> {
    await becomes(first, 'PRIM Ready');
    await becomes(first === a ? b : a, 'SECOND Ready');
  }

  test('from nothing: start on both, prim once', async () => {
    const started = await cli(a, 'start', name, '-H', '*');
    assert.match(started, /^s1:\n {2}db {2}WAIT \(NotReady\)\n[^]*^s2:\n {2}db {2}WAIT/m);
    assert.match(
      await cli(b, 'why', name),
      /nobody was primary yet; run `prim` .*\[HF-MIRROR-110\]\n {4}hint: .*`holdfast prim -m db`/,
    );
    await cli(a, 'prim', name);
    await whole(a);
    const status = await cli(a, 'status', name);
    assert.match(status, /arbiter +directory .*, answers\n/);
    assert.match(status, /register +epoch \d+, primary s1, up to date: s1 and s2\n/);
    assert.match(status, /other server +s2 SECOND \(Ready\), heard\n/);
    assert.match(await cli(a, 'timing', '-m', name), /grace +1665 /);
    assert.match(await cli(a, 'verify', name), /equal|the same|no difference/i);
  });

  test('swap, asked of the secondary', async () => {
    assert.match(await cli(b, 'swap', name), /^db {2}/);
    await whole(b);
    await cli(b, 'swap', '-m', name);
    await whole(a);
  });

  test('swap nosync: the server that it leaves waits for start', async () => {
    await cli(a, 'swap', 'nosync', name);
    await becomes(b, 'ALONE Ready');
    await becomes(a, 'WAIT NotReady');
    assert.match(await cli(a, 'why', name), /waits for `start`: swap nosync \[HF-MIRROR-126\]/);
    await cli(a, 'start', name);
    await whole(b);
  });

  test('failover off: the secondary waits for prim', async () => {
    assert.equal(
      (await cli(a, 'failover', 'off', name)).replace(/ {2}(PRIM|SECOND) \(Ready\)/g, ''),
      's1: db  failover off\ns2: db  failover off\n',
    );
    await b.power();
    await becomes(a, 'WAIT NotReady');
    assert.match(await cli(a, 'why', name), /waits for `prim` or the primary \[HF-MIRROR-125\]/);
    await cli(a, 'prim', name);
    await becomes(a, 'ALONE Ready');
    await mirror.boot(b);
    await whole(a);
    await cli(a, 'failover', 'on', name);
    assert.doesNotMatch(await cli(b, 'status', name), /failover +off/);
  });

  test('primforce says what is given up, asks, and is followed by the other one', async () => {
    await cli(b, 'stop', name);
    await becomes(a, 'ALONE Ready');
    await sh(a, `echo lost >${dir}/lost && sync ${dir}/lost`);
    await a.power();
    await cli(b, 'start', name);
    // It waits, or followed the other one's last word for a moment, and does not take over.
    await eventually('the secondary to say for whom it waits', async () =>
      /waits for s1, which has .*\[HF-MIRROR-(120|102)\]/.test(await cli(b, 'why', name))
        ? true
        : null,
    );
    await assert.rejects(cli(b, 'primforce', name), (error: unknown) => {
      assert.match(String(error), /GIVEN UP: all that s1 acknowledged alone[^]*HF-CLI-011/);
      return true;
    });
    await cli(b, 'primforce', name, '--yes');
    await becomes(b, 'ALONE Ready');
    await sh(b, `echo kept >${dir}/kept && sync ${dir}/kept`);
    await mirror.boot(a);
    await becomes(a, 'SECOND Transient');
    await eventually('the primary to say what must be decided', async () =>
      /took changes while .*\[HF-MIRROR-016\]\n {4}hint: .*second discard -m db/.test(
        await cli(b, 'why', name),
      )
        ? true
        : null,
    );
    await cli(a, 'stop', name);
    await cli(a, 'second', 'discard', name);
    await whole(b);
    assert.equal(await sh(a, `ls ${dir} | grep -x lost || cat ${dir}/kept`), 'kept\n');
    assert.match(await cli(a, 'quarantine', 'list', '-m', name), /-epoch\d+ +\/run\/data +1 /);
  });

  test('events of both servers are one list, and refusals have their codes', async () => {
    const events = JSON.parse(
      await cli(a, 'events', '-m', name, '-H', '*', '-n', '400', '--json'),
    ) as EventRecord[];
    assert.deepEqual(new Set(events.map(({ node }) => node)), new Set(['s1', 's2']));
    const times = events.map(({ wallMs }) => wallMs);
    assert.deepEqual(
      times,
      times.toSorted((one, two) => one - two),
    );
    const codes = events.flatMap(({ kind, data }) => (kind === 'refusal' ? data['code'] : []));
    assert.ok(codes.includes('HF-MIRROR-110'), codes.join());
    assert.ok(codes.some((code) => code === 'HF-MIRROR-120' || code === 'HF-MIRROR-102'));
  });
});
