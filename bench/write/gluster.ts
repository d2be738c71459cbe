/** GlusterFS replica 2 on the lab's two hosts: the peer, with its defaults. */
import { execFileSync } from 'node:child_process';
import type { Backing } from '../../src/lab/backing.ts';
import type { Host, HostProcess } from '../../src/lab/host.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { until } from '../../src/lab/tool.ts';
import type { Side } from './side.ts';

const waitMs = 60_000;

export function glusterVersion(): string {
  try {
    return execFileSync('glusterfs', ['--version']).toString().split('\n')[0]?.trim() ?? '';
  } catch {
    return 'not installed';
  }
}

async function startDaemon(host: Host): Promise<HostProcess> {
  // What it keeps is this host's own; /run is already.
  for (const [from, to] of [
    ['/run/gluster-lib', '/var/lib/glusterd'],
    ['/run/gluster-log', '/var/log/glusterfs'],
  ] as const) {
    await host.exec(['mkdir', '-p', from, to]);
    await host.exec(['mount', '--bind', from, to]);
  }
  await host.exec(['mkdir', '-p', '/run/gluster']);
  return host.spawn(['glusterd', '--no-daemon', '--log-level', 'ERROR']);
}

async function succeeds(host: Host, argv: readonly string[]): Promise<void> {
  const end = performance.now() + waitMs;
  for (;;) {
    const { code, stdout, stderr } = await host.exec(argv, { check: false, timeoutMs: waitMs });
    if (code === 0) return;
    if (performance.now() > end) throw new Error(`${argv.join(' ')}: ${stderr || stdout}`);
    await until(() => false, 200);
  }
}

const volume = (...words: string[]) => ['gluster', '--mode=script', 'volume', ...words];

export async function glusterSide(lab: Lab, backing: Backing): Promise<Side> {
  const name = `bench${backing.kind}`;
  const [first, second] = [lab.host('s1'), lab.host('s2')];
  const daemons = [await startDaemon(first), await startDaemon(second)];
  await succeeds(first, ['gluster', 'peer', 'status']);
  await succeeds(first, ['gluster', 'peer', 'probe', second.address()]);
  const bricks = [first, second].map((host) => `${host.address()}:${backing.base}/brick`);
  await succeeds(first, volume('create', name, 'replica', '2', ...bricks, 'force'));
  await succeeds(first, volume('start', name));
  const dir = `/mnt/gluster-${backing.kind}`;
  await first.exec(['mkdir', '-p', dir]);
  await succeeds(first, ['mount', '-t', 'glusterfs', `${first.address()}:/${name}`, dir]);
  return {
    title: 'GlusterFS replica 2',
    dir,
    stop: async () => {
      await first.exec(['umount', '-l', dir], { check: false });
      await first.exec(volume('stop', name, 'force'), { check: false });
      for (const host of [first, second]) host.kill(/gluster/);
      await Promise.all(daemons.map((daemon) => daemon.ended));
      for (const host of [first, second]) {
        for (const to of ['/var/lib/glusterd', '/var/log/glusterfs']) {
          await host.exec(['umount', '-l', to], { check: false });
        }
      }
    },
  };
}
