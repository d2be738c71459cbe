/** What is mounted at the directory before the engine opens it. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cannotRun, Ground } from './pair.ts';
import { closedAndEqual, withDuo } from './rows.ts';

describe('mounts at the directory', { skip: cannotRun, timeout: 120_000 }, () => {
  let ground: Ground;
  before(async () => {
    ground = await Ground.make();
  });
  after(() => ground.end());

  test("an administrator's, to which the kernel gave the number of a former one, stays", async () => {
    await withDuo(ground, {}, async (duo) => {
      const { dir, state } = duo.second;
      await duo.sh(duo.prim, 'echo one >one; sync one');
      await duo.inSync();
      await duo.crash(duo.second);
      const mounted = `awk '$5 == "${dir}" { print $1 }' /proc/self/mountinfo`;
      const boot = 'cat /proc/sys/kernel/random/boot_id';
      const note = `echo "$(${boot}) $(${mounted})" >${state}/mounted0`;
      await duo.sh(duo.second, `cd /; mount --bind ${dir} ${dir}; ${note}`);
      const own = (await duo.sh(duo.second, mounted)).trim();
      assert.match(own, /^\d+$/);

      await duo.secondReturns();
      await duo.inSync();
      const both = (await duo.sh(duo.second, mounted)).trim().split('\n');
      assert.deepEqual([both.length, both[0]], [2, own], 'the read-only view lies over it');
      await closedAndEqual(duo);
      assert.equal((await duo.sh(duo.second, mounted)).trim(), own);
    });
  });
});
