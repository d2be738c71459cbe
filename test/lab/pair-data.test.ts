/** A server whose data is not mounted when it starts: it leaves the service to the other one. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { dir, module as name, Pair } from './pair-support.ts';
import { skip } from './support.ts';

describe('data that is not mounted', { skip, timeout: 300_000 }, () => {
  let mirror: Pair;
  before(async () => {
    mirror = await Pair.up({ arbiter: 'directory' });
  });
  after(async () => mirror?.down());

  test('after a loss of power the former primary claims nothing, and the other one serves', async () => {
    const { a, b, cluster } = mirror;
    await mirror.ready();
    await mirror.sh(a, `echo before >${dir}/kept && sync ${dir}/kept`);
    const { pair } = await mirror.status(a);
    assert.deepEqual(pair?.record?.inSync, [a.name, b.name]);
    await Promise.all([a.power(), b.power()]);
    await a.boot();
    await a.exec(['mkdir', '-p', dir]);
    await cluster.startAgent(a);
    await mirror.becomes(a, 'WAIT NotReady');
    assert.match((await mirror.status(a)).why.join(), /data is not the directory that this copy/);
    await assert.rejects(cluster.client(a).prim(name, false), { code: 'HF-MIRROR-129' });
    await assert.rejects(cluster.client(a).prim(name, true), { code: 'HF-MIRROR-129' });
    assert.equal((await mirror.sh(a, `ls -A ${dir}`)).stdout, '');

    await mirror.boot(b);
    await mirror.becomes(b, 'ALONE Ready');
    await mirror.sh(b, `echo after >>${dir}/kept && sync ${dir}/kept`);
    assert.equal(await mirror.shown(a), 'WAIT NotReady');
    assert.equal((await mirror.sh(a, `ls -A ${dir}`)).stdout, '');

    // Without an order.
    await mirror.mountData(a);
    await mirror.becomes(a, 'SECOND Ready', 60_000);
    await mirror.becomes(b, 'PRIM Ready');
    for (const host of [a, b]) {
      assert.equal((await mirror.sh(host, `cat ${dir}/kept`)).stdout, 'before\nafter\n');
    }
  });
});
