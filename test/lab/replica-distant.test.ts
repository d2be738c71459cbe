/** Mirrors of more than two servers, by the real agents and the command line. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { parseClusterConfig, renderClusterXml } from '../../src/config/cluster.ts';
import type { Lan } from '../../src/config/model.ts';
import type { DistantStatus, EventRecord, ModuleStatus } from '../../src/host/face.ts';
import { LabCluster, setMacros } from '../../src/lab/cluster.ts';
import type { Host } from '../../src/lab/host.ts';
import { Lab } from '../../src/lab/lab.ts';
import { replicaTool } from './replica-support.ts';
import { eventually, skip } from './support.ts';

const fixture = 'test/fixtures/modules/lab_mirror';

/** One network of cluster.xml: which hosts are on it, by which of their addresses. */
interface Network {
  readonly name: string;
  readonly on: readonly Host[];
  readonly at: (host: Host) => string;
}

/** Gives the cluster other networks than all hosts on each; resolves when all nodes have them. */
async function setNetworks(cluster: LabCluster, networks: readonly Network[]): Promise<void> {
  const [first] = cluster.hosts;
  assert.ok(first !== undefined);
  const { config } = parseClusterConfig(await cluster.client(first).clusterXml());
  assert.ok(config !== null);
  const lans = networks.map(({ name, on, at }, index): Lan => {
    const nodes = config.nodes.flatMap(({ id, name: node }) => {
      const host = on.find((one) => one.name === node);
      return host === undefined ? [] : [{ node: id, addr: at(host), laddr: at(host) }];
    });
    return { name, command: index === 0, nodes };
  });
  await cluster.client(first).applyClusterXml(renderClusterXml({ ...config, lans }));
  await cluster.until('all nodes to have the same networks', (statuses) =>
    statuses.every(({ peers }) =>
      peers.every(({ reach, connected, sameConfig }) =>
        reach === 'self' ? true : connected && sameConfig === true && reach === 'both',
      ),
    ),
  );
}

/** A module's status on a host. */
const statusOf = (cluster: LabCluster, host: Host, name: string): Promise<ModuleStatus> =>
  cluster.client(host).module(name);

const becomes = (cluster: LabCluster, host: Host, name: string, wanted: string): Promise<string> =>
  eventually(`${name} to be ${wanted} on ${host.name}`, async () => {
    const { state, readiness } = await statusOf(cluster, host, name);
    return `${state} ${readiness}` === wanted ? wanted : null;
  });

const sh = async (host: Host, script: string): Promise<string> =>
  (await host.exec(['sh', '-c', script])).stdout;

/** Waits until two directories hold the same: content, names, links, attributes. */
async function becomeEqual(first: Host, other: Host, dir: string): Promise<void> {
  let last = '';
  const equal = async (): Promise<true | null> => {
    try {
      await promisify(execFile)(replicaTool(), ['compare', first.path(dir), other.path(dir)]);
      return true;
    } catch (error) {
      last = String((error as { stdout?: string }).stdout ?? error);
      return null;
    }
  };
  const what = `${first.name} and ${other.name} to have the same in ${dir}`;
  await eventually(what, equal, 60_000).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${last.slice(-2000)}`);
  });
}

describe('two mirrors with one backup server', { skip, timeout: 300_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;
  let c: Host;
  const dirs = { one: '/run/one', two: '/run/two' } as const;
  const cli = (host: Host, ...words: string[]): Promise<string> => cluster.cli(host, words);
  const install = (name: keyof typeof dirs, lan: string, port: string, hosts: readonly Host[]) =>
    cluster.install(
      name,
      fixture,
      (xml) =>
        setMacros(xml, { DIR: dirs[name] })
          .replace('<heartbeat name="net1"', `<heartbeat name="${lan}"`)
          .replace('<rfs ', `<rfs ${port} `),
      hosts,
    );

  before(async () => {
    lab = await Lab.up({ hosts: 3, lans: 2, clients: 0 });
    cluster = await LabCluster.start(lab);
    [a, b, c] = cluster.hosts as [Host, Host, Host];
    await setNetworks(cluster, [
      { name: 'all', on: [a, b, c], at: (host) => host.address(0) },
      { name: 'left', on: [a, c], at: (host) => host.address(1) },
      { name: 'right', on: [b, c], at: (host) => host.address(1, 6) },
    ]);
    for (const host of cluster.hosts) await host.exec(['mkdir', '-p', dirs.one, dirs.two]);
    await install('one', 'left', '', [a, c]);
    await install('two', 'right', '', [b, c]);
  });
  after(async () => lab?.down());

  test('ports that differ, since one server has more modules, are refused with what to do', async () => {
    await cli(c, 'second', '-m', 'two');
    await assert.rejects(cli(b, 'prim', '-m', 'two'), /HF-MIRROR-014[^]*set <rfs port=/);
    await cli(c, 'stop', '-m', 'two');
    await install('two', 'right', 'port="5700"', [b, c]);
  });

  test('the backup server takes the changes of both primaries at the same time', async () => {
    for (const [name, host] of [
      ['one', a],
      ['two', b],
    ] as const) {
      await cli(c, 'second', '-m', name);
      await cli(host, 'prim', '-m', name);
      await becomes(cluster, host, name, 'PRIM Ready');
      await becomes(cluster, c, name, 'SECOND Ready');
    }
    const write = (dir: string) =>
      `for i in $(seq 200); do echo ${dir} $i >${dir}/f$i && sync ${dir}/f$i || exit 1; done`;
    await Promise.all([sh(a, write(dirs.one)), sh(b, write(dirs.two))]);
    await becomeEqual(a, c, dirs.one);
    await becomeEqual(b, c, dirs.two);
    assert.match(await cli(a, 'verify', '-m', 'one'), /one: equal/);
    assert.match(await cli(b, 'verify', '-m', 'two'), /two: equal/);
  });

  test('it takes one over, and goes on as the secondary of the other', async () => {
    await a.power();
    await becomes(cluster, c, 'one', 'SECOND Transient');
    await cli(c, 'stop', '-m', 'one');
    assert.match(await cli(c, 'prim', '-m', 'one', '--alone'), /ALONE \(Ready\)/);
    assert.equal(await sh(c, `cat ${dirs.one}/f200`), `${dirs.one} 200\n`);
    await sh(c, `echo more >${dirs.one}/more && sync ${dirs.one}/more`);
    await sh(b, `echo on >${dirs.two}/on && sync ${dirs.two}/on`);
    assert.equal((await statusOf(cluster, c, 'two')).state, 'SECOND');
    await becomeEqual(b, c, dirs.two);
  });
});

describe('a mirror with a distant copy', { skip, timeout: 600_000 }, () => {
  let lab: Lab;
  let cluster: LabCluster;
  let a: Host;
  let b: Host;
  let c: Host;
  const dir = '/run/data';
  const name = 'db';
  const cli = (host: Host, ...words: string[]): Promise<string> => cluster.cli(host, words);

  /** The directories are on the disk, which outlives the power. */
  const mountData = async (host: Host): Promise<void> => {
    const disk = `${lab.dir}/disks/${host.name}/data`;
    await sh(host, `mkdir -p ${disk} ${dir} && mount --bind ${disk} ${dir}`);
  };

  before(async () => {
    lab = await Lab.up({ hosts: 3, lans: 2, clients: 0 });
    cluster = await LabCluster.start(lab);
    [a, b, c] = cluster.hosts as [Host, Host, Host];
    await setNetworks(cluster, [
      { name: 'wan', on: [a, b, c], at: (host) => host.address(0) },
      { name: 'lan', on: [a, b], at: (host) => host.address(1) },
    ]);
    for (const host of cluster.hosts) await mountData(host);
    await cluster.install(name, fixture, (xml) =>
      xml
        .replace('<heartbeat name="net1"', '<heartbeat name="lan"')
        .replace('ring="16m"', 'ring="8m"')
        .replace('</rfs>', '<distant node="s3" lan="wan"/></rfs>'),
    );
  });
  after(async () => lab?.down());

  const distant = async (host: Host): Promise<DistantStatus> => {
    const [copy] = (await statusOf(cluster, host, name)).replica?.distant ?? [];
    assert.ok(copy !== undefined);
    return copy;
  };
  /** The primary says that its distant copy has all. */
  const hasAll = (host: Host): Promise<true> =>
    eventually(
      `${host.name} to say that its distant copy has all`,
      async () => {
        const { inSync, lagBytes, lagMs, resync } = await distant(host);
        return inSync && lagBytes === 0 && lagMs === 0 && resync === null ? true : null;
      },
      60_000,
    );
  const events = (host: Host): Promise<readonly EventRecord[]> =>
    cluster.client(host).events({ module: name });
  /** Resynchronisations of the distant copy that came to their end, by what the engine said. */
  const resyncs = async (host: Host): Promise<readonly Readonly<Record<string, unknown>>[]> =>
    (await events(host))
      .filter(({ text }) => /distant copy s3 resynchronisation \d+ done/.test(text))
      .map(({ data }) => data);
  const kinds = async (host: Host): Promise<readonly unknown[]> =>
    (await resyncs(host)).map(({ kind }) => kind);
  /** Files are numbered, and written one after the other, each synced; the number of the last. */
  let written = 0;
  const one = `i=$((i+1)); echo $i >${dir}/f$i && sync ${dir}/f$i || exit 1`;
  const writeFiles = async (host: Host, count: number): Promise<void> => {
    written += count;
    await sh(host, `i=${written - count}; while [ $i -lt ${written} ]; do ${one}; done`);
  };
  const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);
  /** Numbers of the files that a host has, in order; each must be whole. */
  const files = async (host: Host): Promise<readonly number[]> => {
    const list = await sh(host, `cd ${dir} && for f in f*; do echo $f $(cat $f); done`);
    return list
      .trimEnd()
      .split('\n')
      .map((line) => {
        const [, number, content] = /^f(\d+) (\d*)$/.exec(line) ?? [];
        assert.equal(content, number, line);
        return Number(number);
      })
      .toSorted((x, y) => x - y);
  };

  test('gets what the primary writes, which waits for its own secondary alone', async () => {
    await cli(c, 'second', '-m', name);
    await cli(b, 'second', '-m', name);
    await cli(a, 'prim', '-m', name);
    await becomes(cluster, a, name, 'PRIM Ready');
    await becomes(cluster, b, name, 'SECOND Ready');
    await writeFiles(a, 100);
    await becomes(cluster, c, name, 'SECOND Ready');
    await hasAll(a);
    await becomeEqual(a, c, dir);
    assert.match(await cli(a, 'status', '-m', name), /distant copy +s3 in sync; has all/);
    assert.match(await cluster.client(a).metrics(), /_distant_insync\{module="db",node="s3"\} 1/);
    assert.match(await cli(a, 'verify', '-m', name), /db: equal/);
  });

  test('holds a prefix of the changes while it is cut off, and catches up', async () => {
    const enough = '/run/enough';
    const writing = sh(a, `i=${written}; while [ ! -e ${enough} ]; do ${one}; done; echo $i`);
    await eventually('the copy to get some', async () =>
      (await files(c)).length > written + 20 ? true : null,
    );
    await lab.cutAll('s3');
    await eventually('the loss to be told', async () =>
      (await distant(a)).state === 'lost' ? true : null,
    );
    await a.exec(['touch', enough]);
    written = Number(await writing);
    const { lagBytes, lagMs } = await distant(a);
    assert.ok(lagBytes > 0 && lagMs > 0, `${lagBytes} bytes, ${lagMs} ms`);
    const there = await files(c);
    assert.deepEqual(there, upTo(there.length));
    assert.ok(there.length < written, 'it lacks what was written while it was cut off');
    assert.equal((await statusOf(cluster, a, name)).readiness, 'Ready');
    await eventually('the alert', async () =>
      (await cluster.client(a).status()).alerts.some(
        ({ message, severity }) =>
          severity === 'warning' && message.startsWith('db: distant copy s3 is not connected'),
      )
        ? true
        : null,
    );
    await lab.heal();
    await hasAll(a);
    await becomeEqual(a, c, dir);
    assert.deepEqual(await kinds(a), ['first_copy'], 'what it missed was in the ring');
  });

  test('that missed more than the ring holds gets what differs', async () => {
    await lab.cutAll('s3');
    await sh(a, `dd if=/dev/urandom of=${dir}/large bs=1M count=40 conv=fsync 2>/dev/null`);
    await writeFiles(a, 20);
    await lab.heal();
    await hasAll(a);
    await becomeEqual(a, c, dir);
    assert.deepEqual(await kinds(a), ['first_copy', 'dirty']);
    assert.equal((await statusOf(cluster, a, name)).readiness, 'Ready');
  });

  test('that went on by itself is not touched until that is given up', async () => {
    await lab.cutAll('s3');
    await cli(c, 'stop', '-m', name);
    await cli(c, 'prim', '-m', name, '--force');
    await sh(c, `echo drill >${dir}/drill && sync ${dir}/drill`);
    await cli(c, 'stop', '-m', name);
    await lab.heal();
    await cli(c, 'second', '-m', name);
    const refused = (code: string) =>
      eventually(`${code} to be told`, async () =>
        (await cluster.client(a).status()).alerts.some(
          ({ message }) =>
            message.startsWith('db: distant copy s3 is refused') && message.includes(code),
        )
          ? true
          : null,
      );
    await refused('HF-MIRROR-028');
    assert.equal((await statusOf(cluster, a, name)).readiness, 'Ready');
    await cli(a, 'stop', '-m', name);
    await cli(a, 'prim', '-m', name);
    await refused('HF-MIRROR-027');
    assert.match(await cli(a, 'status', '-m', name), /distant copy +s3 refused \(.*of its own/);
    assert.equal(await sh(c, `cat ${dir}/drill`), 'drill\n');
    await cli(c, 'stop', '-m', name);
    await cli(c, 'second', 'discard', '-m', name);
    await hasAll(a);
    await becomeEqual(a, c, dir);
    assert.match(await cli(c, 'quarantine', 'list', '-m', name), /epoch/);
    const { alerts } = await cluster.client(a).status();
    assert.ok(!alerts.some(({ message }) => message.includes('distant copy')));
  });

  test('is compared, not copied, when the other server takes over', async () => {
    for (const host of [a, b]) await cli(host, 'stop', '-m', name);
    await cli(a, 'second', '-m', name);
    await cli(b, 'prim', '-m', name);
    await becomes(cluster, b, name, 'PRIM Ready');
    await writeFiles(b, 20);
    await hasAll(b);
    await becomeEqual(b, c, dir);
    const done = (await resyncs(b)).at(-1);
    assert.equal(done?.['kind'], 'compare');
    const sent = Number(done?.['sent']);
    assert.ok(sent < 4 << 20, `${sent} bytes of more than 40 MiB`);
    assert.equal((await statusOf(cluster, c, name)).replica?.peer, 's2');
  });

  test('becomes primary by force when both servers are gone, with the data', async () => {
    await eventually('the lag to be known there', async () =>
      (await statusOf(cluster, c, name)).replica?.behind?.primary === 's2' ? true : null,
    );
    await Promise.all([a.power(), b.power()]);
    await becomes(cluster, c, name, 'SECOND Transient');
    await assert.rejects(cli(c, 'prim', '-m', name), /HF-MIRROR-026[^]*when s2 last said so/);
    await cli(c, 'stop', '-m', name);
    await assert.rejects(cli(c, 'prim', '-m', name, '--alone'), /HF-MIRROR-026/);
    const out = await cli(c, 'prim', '-m', name, '--force');
    assert.match(out, /ALONE \(Ready\)[^]*primary by force; when s2 last said so/);
    assert.deepEqual(await files(c), upTo(written));
    await writeFiles(c, 20);
  });

  const comesBack = async (host: Host): Promise<void> => {
    await host.boot();
    await mountData(host);
    await cluster.startAgent(host);
    await eventually('the servers to reach each other', async () => {
      const { peers } = await cluster.client(host).status();
      return peers.some(({ node, connected }) => node === 's3' && connected) ? true : null;
    });
  };

  test('brings servers that come back to what it has', async () => {
    await comesBack(a);
    await assert.rejects(cli(a, 'prim', '-m', name), /HF-MIRROR-007/);
    await cli(a, 'second', 'fullsync', '-m', name);
    await becomes(cluster, c, name, 'PRIM Ready');
    await becomes(cluster, a, name, 'SECOND Ready');
    assert.equal((await statusOf(cluster, a, name)).replica?.peer, 's3');
    await becomeEqual(c, a, dir);
    // The other one is a distant copy of the distant server.
    await comesBack(b);
    await cli(b, 'second', 'fullsync', '-m', name);
    assert.equal((await distant(c)).node, 's2');
    await hasAll(c);
    await becomeEqual(c, b, dir);
  });

  test('is a distant copy again when one of them is primary', async () => {
    for (const host of [c, a, b]) await cli(host, 'stop', '-m', name);
    await cli(b, 'second', 'fullsync', '-m', name);
    await cli(c, 'second', 'fullsync', '-m', name);
    await cli(a, 'prim', '-m', name);
    await becomes(cluster, a, name, 'PRIM Ready');
    await becomes(cluster, b, name, 'SECOND Ready');
    await writeFiles(a, 10);
    await hasAll(a);
    await becomeEqual(a, b, dir);
    await becomeEqual(a, c, dir);
    for (const host of [b, c]) assert.deepEqual(await files(host), upTo(written));
  });
});
