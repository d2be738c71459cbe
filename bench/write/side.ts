/** One side of the comparison: a directory on host s1 that is stored in its own way. */
import type { Backing } from '../../src/lab/backing.ts';
import type { Host } from '../../src/lab/host.ts';

export interface Side {
  readonly title: string;
  /** Where the application on s1 writes. */
  readonly dir: string;
  stop(): Promise<void>;
}

/** The directory itself. */
export async function bareSide(host: Host, backing: Backing): Promise<Side> {
  const dir = `${backing.base}/bare`;
  await host.exec(['mkdir', '-p', dir]);
  return { title: 'bare', dir, stop: () => Promise.resolve() };
}
