/** Holdfast's sides: the mount alone, and a replicated directory under each policy. */
import type { Backing } from '../../src/lab/backing.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { ReplicaPair, ReplicaProcess } from '../../src/lab/replica.ts';
import type { Side } from './side.ts';

const policies = [
  { title: 'fsync, durable', name: 'fsync', ack: 'fsync', async: 'none' },
  { title: 'fsync, received', name: 'receipt', ack: 'fsync', async: 'second' },
  { title: 'strict, durable', name: 'strict', ack: 'strict', async: 'none' },
] as const;

async function mountSide(lab: Lab, backing: Backing): Promise<Side> {
  const host = lab.host('s1');
  const dir = `${backing.base}/mounted`;
  const state = `${backing.base}/state-mounted`;
  await host.exec(['mkdir', '-p', dir, state]);
  const process = await ReplicaProcess.start(host, `mounted-${backing.kind}`);
  await process.client.request('open', { role: 'mount', state, dir });
  return { title: 'mount alone', dir, stop: () => process.stop() };
}

export async function holdfastSides(lab: Lab, backing: Backing): Promise<readonly Side[]> {
  const sides = [await mountSide(lab, backing)];
  for (const [at, policy] of policies.entries()) {
    const pair = await ReplicaPair.start(lab, {
      name: `${policy.name}-${backing.kind}`,
      dir: `${backing.base}/${policy.name}`,
      stateDir: `${backing.base}/state-${policy.name}`,
      port: 5600 + 4 * at,
      ack: policy.ack,
      async: policy.async,
    });
    sides.push({ title: policy.title, dir: pair.dir, stop: () => pair.stop() });
  }
  return sides;
}
