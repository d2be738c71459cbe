/** The register of two servers that fence each other. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { first } from './contract.ts';
import { chance, FenceWorld, type Mutant } from './fence-world.ts';

const seeds = Number(process.env['HOLDFAST_FENCE_SEEDS'] ?? 40);

/** What a run with this seed has found wrong; null: nothing. */
async function run(
  seed: number,
  mutant: Mutant,
): Promise<{ wrong: string | null; world: FenceWorld }> {
  const world = new FenceWorld(seed, mutant);
  const random = chance(seed + 1000);
  let wrong: string | null = null;
  const clients: Promise<void>[] = [];
  for (let step = 0; step < 60 && wrong === null; step += 1) {
    for (const id of [0, 1]) {
      if (random() > 0.5) continue;
      const asked = world.client(id).catch((error: unknown) => void (wrong ??= String(error)));
      clients.push(asked);
    }
    if (random() < 0.3) world.disturb();
    await world.pass(10 + Math.floor(random() * 60));
  }
  world.heal();
  await world.pass(2100);
  return { wrong, world };
}

describe('a register between two servers that fence each other', () => {
  it('keeps one record of an epoch, and what was told, whatever fails', async () => {
    let wins = 0;
    let fences = 0;
    for (let seed = 1; seed <= seeds; seed += 1) {
      const { wrong, world } = await run(seed, 'none');
      assert.equal(wrong, null, `seed ${seed}`);
      assert.ok(!(world.servers[0]?.disk.solo === true && world.servers[1]?.disk.solo === true));
      wins += world.wins;
      fences += world.fences;
    }
    assert.ok(wins > seeds * 3, `${wins} wins`);
    assert.ok(fences > seeds / 4, `${fences} times fenced`);
  });

  for (const mutant of ['no wait-for-all', 'fence lies'] as const) {
    it(`finds what goes wrong with: ${mutant}`, async () => {
      for (let seed = 1; seed <= 300; seed += 1) {
        if ((await run(seed, mutant)).wrong !== null) return;
      }
      assert.fail('nothing was found');
    });
  }

  it('a server alone after a start waits for the other one, and fences nobody', async () => {
    const world = new FenceWorld(1);
    world.cut[0] = world.cut[1] = true;
    const [one] = world.servers;
    assert.ok(one?.member !== null && one !== undefined);
    const question = { kind: 'swap', module: 'db', from: null, to: first } as const;
    const asked = one.member.answer(question, 300);
    await world.pass(1000);
    const answer = await asked;
    assert.equal(answer.outcome, 'unreachable');
    assert.match('why' in answer ? answer.why : '', /have not spoken since this one was started/);
    assert.equal(world.fences, 0);
  });
});
