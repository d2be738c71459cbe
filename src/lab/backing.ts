/** A file system of its own kind on every host of a lab, for what writes a lot. */
import type { Host } from './host.ts';
import type { Lab } from './lab.ts';

export type BackingKind = 'tmpfs' | 'ext4';

/** Where it is mounted, on each host. */
export interface Backing {
  readonly kind: BackingKind;
  readonly base: string;
}

const imageMiB = 6144;

/** Gives each host a file system; it goes with the host's mount namespace. */
export async function mountBacking(lab: Lab, kind: BackingKind): Promise<Backing> {
  const base = `/mnt/${kind}`;
  for (const host of lab.hosts) await mountOn(host, kind, base, `${lab.dir}/${host.name}.img`);
  return { kind, base };
}

async function mountOn(host: Host, kind: BackingKind, base: string, image: string): Promise<void> {
  await host.exec(['mkdir', '-p', base]);
  if (kind === 'tmpfs') {
    await host.exec(['mount', '-t', 'tmpfs', '-o', `size=${imageMiB}m`, 'tmpfs', base]);
    return;
  }
  await host.exec(['truncate', '-s', `${imageMiB}M`, image]);
  await host.exec(['mkfs.ext4', '-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0', image], {
    timeoutMs: 120_000,
  });
  await host.exec(['mount', '-o', 'loop', image, base]);
}
