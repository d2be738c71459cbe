/** What becomes of a mirror when its arbiter is another one: emptied, replaced, or on a server. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ArbiterConfig } from '../../src/config/index.ts';
import { parseClusterConfig, renderClusterXml } from '../../src/config/index.ts';
import type { Host } from '../../src/lab/host.ts';
import { dir, module, Pair } from './pair-support.ts';
import { eventually, skip } from './support.ts';

describe('the arbiter of a mirror', { skip, timeout: 400_000 }, () => {
  let pair: Pair;
  let a: Host;
  let b: Host;

  before(async () => {
    pair = await Pair.up();
    ({ a, b } = pair);
    await pair.cluster.startModule(module);
    await pair.cluster.client(a).prim(module, false);
    await pair.becomes(a, 'PRIM Ready');
    await pair.becomes(b, 'SECOND Ready');
  });
  after(async () => pair?.down());

  const incarnation = async (host: Host): Promise<number> =>
    (await pair.status(host)).pair?.record?.incarnation ?? 0;
  const isAnew = (host: Host, former: number) =>
    eventually(`${host.name} to write the register anew`, async () =>
      (await incarnation(host)) > former ? true : null,
    );
  async function setArbiter(host: Host, arbiter: ArbiterConfig, scope: 'node' | 'cluster') {
    const client = pair.cluster.client(host);
    const { config } = parseClusterConfig(await client.clusterXml());
    assert.ok(config !== null);
    await client.applyClusterXml(renderClusterXml({ ...config, arbiter }), scope);
  }
  const says = (host: Host, text: RegExp) =>
    eventually(`${host.name} to say ${text.source}`, async () =>
      text.test((await pair.status(host)).why.join('\n')) ? true : null,
    );

  test('a witness that lost its records is given them anew, and decides by them', async () => {
    const former = await incarnation(a);
    pair.stopWitness();
    const wit = pair.lab.host('wit');
    await wit.exec(['sh', '-c', 'rm -r /var/lib/holdfast/witness/*/records']);
    await pair.startWitness();
    await isAnew(a, former);
    await isAnew(b, former);
    await a.power();
    await pair.becomes(b, 'ALONE Ready');
    await pair.boot(a);
    await pair.becomes(a, 'SECOND Ready');
    await pair.becomes(b, 'PRIM Ready');
  });

  test('another arbiter takes its place while both servers run', async () => {
    const former = await incarnation(b);
    await setArbiter(a, { type: 'static', node: 0 }, 'cluster');
    pair.stopWitness();
    await isAnew(b, former);
    assert.match((await pair.status(b)).pair?.arbiter.text ?? '', /disk of s1/);
    await pair.cluster.client(b).swap(module, true);
    await pair.becomes(a, 'PRIM Ready');
    await pair.becomes(b, 'SECOND Ready');
  });

  test('the server with the register goes on when the other one fails', async () => {
    await b.power();
    await pair.becomes(a, 'ALONE Ready');
    await pair.boot(b);
    await pair.becomes(b, 'SECOND Ready');
    await pair.becomes(a, 'PRIM Ready');
  });

  test('without it the other one waits, and goes on by an order once the register is moved', async () => {
    await a.exec(['sh', '-c', `echo kept >${dir}/kept && sync ${dir}/kept`]);
    await a.power();
    await says(b, /arbiter/);
    assert.equal((await pair.status(b)).state, 'SECOND');
    await setArbiter(b, { type: 'static', node: 1 }, 'node');
    await pair.cluster.client(b).prim(module, false, true);
    await pair.becomes(b, 'ALONE Ready');
    assert.equal((await b.exec(['cat', `${dir}/kept`])).stdout, 'kept\n');
  });

  test('the server that returns follows, and its former register is not gone by', async () => {
    const former = await incarnation(b);
    await pair.boot(a);
    await pair.becomes(a, 'SECOND Ready');
    await pair.becomes(b, 'PRIM Ready');
    assert.ok((await incarnation(b)) >= former);
    assert.equal(await incarnation(a), await incarnation(b));
  });
});
