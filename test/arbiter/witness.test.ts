import { describe, it } from 'node:test';
import { checks } from './contract.ts';
import { WitnessWorld } from './witness-world.ts';

describe('a witness', () => {
  for (const { name, run } of checks) {
    it(name, async (t) => await run(await WitnessWorld.make(t)));
  }
});
