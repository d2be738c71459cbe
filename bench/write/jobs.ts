/** What is written, and how its cost is counted. */
import { readFileSync } from 'node:fs';
import type { Host } from '../../src/lab/host.ts';
import { toolPath } from '../../src/lab/tool.ts';
import { pgbenchJob, sqliteJob } from './databases.ts';

/** Figures of one run of a job on one side. */
export interface Figures {
  readonly ops: number;
  /** Per operation, ns; null where the job counts operations per second only. */
  readonly p50Ns: number | null;
  readonly p99Ns: number | null;
  readonly opsPerS: number;
  /** CPU time of the whole machine (both hosts, the application included) per operation, us. */
  readonly cpuUs: number;
}

export interface Job {
  readonly name: string;
  readonly title: string;
  /** What the figure of merit is: time of one operation, or operations per second. */
  readonly merit: 'latency' | 'rate';
  /** Bytes of one operation, for rates that are printed as MB/s. */
  readonly bytes: number;
  run(host: Host, dir: string): Promise<Pick<Figures, 'ops' | 'p50Ns' | 'p99Ns' | 'opsPerS'>>;
}

const timeoutMs = 180_000;

function writeJob(name: string, title: string, count: number, size = 4096): Job {
  const merit = name === 'sequential' ? 'rate' : 'latency';
  return {
    name,
    title,
    merit,
    bytes: size,
    run: async (host, dir) => {
      const argv = [
        toolPath(),
        'write',
        `dir=${dir}`,
        `job=${name}`,
        `count=${count}`,
        `size=${size}`,
      ];
      const { stdout } = await host.exec(argv, { timeoutMs });
      const out = JSON.parse(stdout) as Record<'ops' | 'wall_ns' | 'p50_ns' | 'p99_ns', number>;
      return {
        ops: out.ops,
        p50Ns: out.p50_ns,
        p99Ns: out.p99_ns,
        opsPerS: (out.ops * 1e9) / out.wall_ns,
      };
    },
  };
}

/** The jobs of a round; `scale` 1 is the full run. */
export function jobsOf(scale: number): readonly Job[] {
  const some = (count: number) => Math.max(50, Math.round(count * scale));
  return [
    writeJob('fdatasync', '4 KiB, fdatasync after each', some(2000)),
    writeJob('dsync', '4 KiB, O_DSYNC', some(2000)),
    writeJob('buffered', '4 KiB, not synced', some(4000)),
    writeJob('sequential', '1 MiB sequential, one fdatasync', some(256), 1 << 20),
    writeJob('small', 'small file: create, write, fsync, rename', some(1000)),
    sqliteJob('wal', some(1000)),
    sqliteJob('delete', some(500)),
    pgbenchJob(Math.max(2, Math.round(8 * scale))),
  ];
}

/** CPU time that the machine has spent so far, us: user, nice, system, irq, softirq. */
function busyUs(): number {
  const fields = readFileSync('/proc/stat', 'utf8').split('\n')[0]?.trim().split(/\s+/) ?? [];
  const ticks = [1, 2, 3, 6, 7].reduce((sum, at) => sum + Number(fields[at]), 0);
  return (ticks * 1e6) / 100;
}

/** Runs the job and counts the CPU time meanwhile. */
export async function measure(job: Job, host: Host, dir: string): Promise<Figures> {
  const before = busyUs();
  const figures = await job.run(host, dir);
  return { ...figures, cpuUs: (busyUs() - before) / figures.ops };
}
