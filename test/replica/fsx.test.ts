/**
 * Random reads, writes, truncations, holes, stores to mappings, direct I/O and copies on a replicated
 * directory, beside a model in memory (native/lab/replica/fsx.cc), and at the same time fio, which
 * reads again by checksum what it wrote. The other server has the same bytes at the end.
 * HOLDFAST_FSX_SECONDS: how long, instead of 50 s in all; HOLDFAST_SEED: the first seed.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cannotRun, Ground, run, tool } from './pair.ts';
import { firstSeed } from '../support/random.ts';

const seconds = Number(process.env['HOLDFAST_FSX_SECONDS'] ?? 50);

/** One file each, written through the page cache, past it, and through a mapping. */
const fioJobs = [
  ['--name=cached', '--ioengine=psync', '--fsync=16'],
  ['--name=direct', '--ioengine=libaio', '--direct=1', '--iodepth=8', '--fdatasync=64'],
  ['--name=mapped', '--ioengine=mmap', '--fsync=64'],
] as const;

/** fio on a folder; it ends with the first block whose checksum is wrong. */
function fioCommand(folder: string, runtime: string, seed: number): readonly string[] {
  return [
    'fio',
    `--directory=${folder}`,
    `--randseed=${seed}`,
    '--rw=randwrite',
    '--bs=4k',
    '--size=16m',
    '--time_based',
    `--runtime=${runtime}`,
    '--verify=crc32c',
    '--verify_backlog=256',
    '--verify_fatal=1',
    '--verify_state_save=0',
    '--output-format=json',
    ...fioJobs.flat(),
  ];
}

interface FioOutput {
  readonly jobs: readonly {
    readonly jobname: string;
    readonly error: number;
    readonly read: { readonly total_ios: number };
    readonly write: { readonly total_ios: number };
  }[];
}

/** What fio did; fails when a job did not write, or did not read again what it wrote. */
function fioSaid(out: string): string {
  const { jobs } = JSON.parse(out.slice(out.indexOf('{'))) as FioOutput;
  assert.equal(jobs.length, fioJobs.length);
  return jobs
    .map(({ jobname, error, read, write }) => {
      assert.equal(error, 0, out);
      assert.ok(write.total_ios > 256 && read.total_ios > 256, out);
      return `${jobname} ${write.total_ios} writes, ${read.total_ios} verified`;
    })
    .join('; ');
}

describe('fsx and fio', { skip: cannotRun }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test('the content is what was written, on both servers', async (t) => {
    const pair = await ground.pair();
    t.diagnostic(`first seed ${firstSeed}`);
    try {
      await pair.start();
      const [file = '', ...args] = pair.a.space.enter;
      const part = String(Math.ceil(seconds / 2));
      // Two at once, and fio: the server's threads are to meet.
      const fsx = [tool, 'fsx', pair.a.dir, '--seconds', part, '--keep', '1', '--seed'];
      for (const round of [0, 2]) {
        const both = [firstSeed + round, firstSeed + round + 1].map((seed) =>
          run(file, [...args, ...fsx, String(seed)]),
        );
        const fio = run(file, [...args, ...fioCommand(pair.a.dir, part, firstSeed + round)]);
        for (const { code, out } of await Promise.all(both)) {
          t.diagnostic(out.trim().split('\n').at(-1) ?? '');
          assert.equal(code, 0, out);
        }
        const { code, out } = await fio;
        assert.equal(code, 0, out);
        t.diagnostic(`fio: ${fioSaid(out)}`);
      }
      await pair.a.request('close');
      await pair.b.request('close');
      const compared = await run(tool, ['compare', pair.a.dir, pair.b.dir]);
      assert.equal(compared.code, 0, compared.out);
      // Three files of each of the four fsx, one of each fio job.
      assert.match(compared.out, /15 names/);
    } finally {
      await pair.end();
    }
  });
});
