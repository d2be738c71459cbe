/**
 * How far a distant copy is behind, as its primary said last: what would be lost if it had to become
 * primary now. Its own engine cannot know. Kept in /run, so that the next agent knows it too.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { bytesText } from '../config/values.ts';
import type { ModuleConfig } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { BehindStatus } from './face.ts';
import type { MirrorPorts } from './mirror-ports.ts';
import { Kept } from './runtime.ts';

/** How often the primary is asked. */
const everyMs = 5000;

interface Note {
  readonly primary: string;
  readonly isKnown: boolean;
  readonly inRun: boolean;
  readonly bytes: number;
  readonly ms: number;
  /** On this boot's clock. */
  readonly atMs: number;
}

const noteSchema: z.ZodType<Note> = z.object({
  primary: z.string().max(255),
  isKnown: z.boolean(),
  inRun: z.boolean(),
  bytes: z.number().min(0),
  ms: z.number().min(0),
  atMs: z.number(),
});

export class MirrorLag {
  readonly #ports: MirrorPorts;
  readonly #config: () => ModuleConfig;
  readonly #file: Kept<Note>;
  #note: Note | null;
  #askedMs = -Infinity;
  #asking = false;

  constructor(config: () => ModuleConfig, ports: MirrorPorts) {
    this.#config = config;
    this.#ports = ports;
    this.#file = new Kept(join(ports.paths.run, 'modules', `${config().name}.behind`), noteSchema);
    this.#note = this.#file.read();
  }

  /** Null: this server has no distant copy, or it was never heard. */
  get status(): BehindStatus | null {
    const note = this.#note;
    if (note === null || !this.#ports.isDistant(this.#config())) return null;
    const { atMs, ...said } = note;
    return { ...said, ageMs: Math.max(0, this.#ports.nowMs() - atMs) };
  }

  /** `when db1 last said so, 12 s ago, it lacked 1.2 MiB, of the last 4 s`. */
  get text(): string {
    const { status } = this;
    if (status === null) return 'how much that is, is not known';
    const { primary, isKnown, inRun, bytes, ms, ageMs } = status;
    const size = isKnown && bytes > 0 ? bytesText(bytes) : 'an amount that was not known';
    const lacked = inRun
      ? `it was in a resynchronisation, and goes back to what it was up to ${seconds(ms)} before`
      : isKnown && bytes === 0 && ms === 0
        ? 'it lacked nothing'
        : `it lacked ${size}, changes of up to ${seconds(ms)} before`;
    return `when ${primary} last said so, ${seconds(ageMs)} ago, ${lacked}`;
  }

  /** Why this server does not become primary without force. */
  refusal(): HoldfastError {
    const config = this.#config();
    const servers = this.#ports.pairNames(config).join(' and ');
    const values = { module: config.name, node: this.#ports.node, behind: this.text, servers };
    return new HoldfastError('HF-MIRROR-026', values);
  }

  /** Asks the primary where it is time to; to be called while the copy is a secondary. */
  look(): void {
    const nowMs = this.#ports.nowMs();
    if (this.#asking || nowMs - this.#askedMs < everyMs) return;
    if (!this.#ports.isDistant(this.#config())) return;
    this.#asking = true;
    this.#askedMs = nowMs;
    void this.#ask().finally(() => {
      this.#asking = false;
    });
  }

  async #ask(): Promise<void> {
    try {
      for (const { name, replica } of await this.#ports.askOthers(this.#config())) {
        const own = replica.distant.find(({ node }) => node === this.#ports.node);
        if (replica.role !== 'prim' || own === undefined || own.state === 'none') continue;
        this.#note = {
          primary: name,
          isKnown: own.isKnown,
          inRun: own.resync !== null,
          bytes: own.lagBytes,
          ms: own.lagMs,
          atMs: this.#ports.nowMs(),
        };
        this.#file.write(this.#note);
      }
    } catch {
      // Not known any better; what was said last stands, with its age.
    }
  }
}

function seconds(ms: number): string {
  return ms > 0 && ms < 1000 ? '1 s' : `${Math.round(ms / 1000)} s`;
}
