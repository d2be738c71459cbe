/** The application of one simulated server and its scripts, which outlive the agent that ran them. */
import type { ScriptName } from '../core/mirror-types.ts';
import type { MirrorWorld } from './mirror-world.ts';

export class SimApp {
  readonly #world: MirrorWorld;
  runs = false;
  healthy = true;
  scriptFails = false;
  /** One script after the other, also where the agent that waits for it is another one. */
  #freeMs = 0;
  /** How often the power came or went: what ran before does not end any more. */
  #life = 0;

  constructor(world: MirrorWorld) {
    this.#world = world;
  }

  power(): void {
    this.#life++;
    this.#freeMs = 0;
    this.runs = false;
  }

  script(script: ScriptName, done: (ok: boolean) => void): void {
    const { chance, nowMs } = this.#world;
    const life = this.#life;
    this.#freeMs = Math.max(this.#freeMs, nowMs) + chance.between(1, 60);
    this.#world.at(this.#freeMs, () => {
      if (this.#life !== life) return;
      const ok = !(this.scriptFails && script.startsWith('start_'));
      if (script === 'start_prim' && ok) this.runs = true;
      if (script === 'stop_prim') this.runs = false;
      done(ok);
    });
  }
}
