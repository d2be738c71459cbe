/** Servers of a mirror that were apart, by the real agents and the command line. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ModuleStatus } from '../../src/host/face.ts';
import { LabCluster } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { eventually, skip } from './support.ts';

const dir = '/run/data';
const name = 'db';

describe('a mirror whose servers were apart', { skip, timeout: 300_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;

  before(async () => {
    lab = await Lab.up({ hosts: 2, clients: 0 });
    cluster = await LabCluster.start(lab);
    [a, b] = cluster.hosts as [Host, Host];
    for (const host of cluster.hosts) await host.exec(['mkdir', '-p', dir]);
    await cluster.install(name, 'test/fixtures/modules/lab_mirror', {});
  });
  after(async () => lab?.down());

  const status = (host: Host): Promise<ModuleStatus> => cluster.client(host).module(name);
  const becomes = (host: Host, wanted: string): Promise<string> =>
    eventually(`${host.name} to be ${wanted}`, async () => {
      const { state, readiness } = await status(host);
      return `${state} ${readiness}` === wanted ? wanted : null;
    });
  const cli = async (host: Host, ...words: string[]) => cluster.cli(host, words);
  const write = (host: Host, file: string, text: string) =>
    host.exec(['sh', '-c', `printf %s '${text}' >${dir}/${file} && sync ${dir}/${file}`]);
  const read = async (host: Host, file: string): Promise<string> =>
    (await host.exec(['sh', '-c', `cat ${dir}/${file}`], { check: false })).stdout;
  const together = async (prim: Host, second: Host): Promise<void> => {
    await becomes(prim, 'PRIM Ready');
    await becomes(second, 'SECOND Ready');
  };

  test('a secondary that was away gets what it lacks while the application runs', async () => {
    await cli(b, 'second', '-m', name);
    await cli(a, 'prim', '-m', name);
    await together(a, b);
    await write(a, 'before', 'both');
    await cli(b, 'stop', '-m', name);
    await cli(a, 'prim', '-m', name, '--alone');
    await write(a, 'alone', 'on one server');
    await cli(b, 'second', '-m', name);
    await together(a, b);
    assert.equal(await read(b, 'alone'), 'on one server');
    const events = await cluster.client(a).events({ module: name });
    assert.ok(events.some(({ text }) => /resynchronisation \d+ done/.test(text)));
    assert.match(await cli(a, 'verify', '-m', name), /equal/);
  });

  test('where both took changes nothing is touched until one is discarded', async () => {
    await cli(b, 'stop', '-m', name);
    await cli(a, 'prim', '-m', name, '--alone');
    await write(a, 'mine', 'of s1');
    await cli(a, 'stop', '-m', name);
    await cli(b, 'prim', '-m', name, '--alone');
    await write(b, 'yours', 'of s2');
    await cli(b, 'stop', '-m', name);
    await cli(a, 'prim', '-m', name, '--alone');
    await cli(b, 'second', '-m', name);
    await eventually('the fork to be told', async () =>
      (await cluster.client(a).events({ module: name })).some(({ text }) =>
        text.includes('HF-MIRROR-016'),
      )
        ? true
        : null,
    );
    assert.equal(await read(a, 'mine'), 'of s1');
    assert.equal(await read(b, 'yours'), 'of s2');
    await cli(b, 'stop', '-m', name);
    await cli(b, 'second', 'discard', '-m', name);
    await together(a, b);
    assert.equal(await read(b, 'mine'), 'of s1');
    assert.equal(await read(b, 'yours'), '');
  });

  test('what was discarded is in the quarantine, and comes back through the primary', async () => {
    const list = await cli(b, 'quarantine', 'list', '-m', name);
    const folder = /\d{8}-\d{6}-epoch\d+/.exec(list)?.[0] ?? '';
    assert.match(await cli(b, 'quarantine', 'list', folder), /rolled_back +file .*\/yours\n/);
    await assert.rejects(cli(b, 'quarantine', 'restore', folder), /HF-MIRROR-023/);
    await cli(b, 'quarantine', 'restore', folder, 'yours', '--to', '/run/back');
    assert.equal((await b.exec(['cat', '/run/back/yours'])).stdout, 'of s2');
    // The other way round.
    await cli(a, 'stop', '-m', name);
    await cli(b, 'stop', '-m', name);
    await cli(a, 'second', '-m', name);
    await cli(b, 'prim', '-m', name);
    await together(b, a);
    assert.doesNotMatch((await b.exec(['ls', '-A', dir])).stdout, /holdfast/);
    await cli(b, 'quarantine', 'restore', folder);
    await b.exec(['sync', `${dir}/yours`]);
    await eventually('the file on both', async () =>
      (await read(a, 'yours')) === 'of s2' ? true : null,
    );
    assert.match(await cli(b, 'verify', '-m', name), /equal/);
    await cli(b, 'quarantine', 'purge', folder);
    assert.match(await cli(b, 'quarantine', 'list'), /nothing is in the quarantine/);
  });
});
