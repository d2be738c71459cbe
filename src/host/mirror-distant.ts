/** The distant copies of a primary, as its engine tells of them. Nothing waits for them, or for this. */
import type { ModuleConfig } from '../config/model.ts';
import { HoldfastError } from '../errors.ts';
import type { DistantStatus } from './face.ts';
import { reasonText, resyncText } from './mirror-events.ts';
import type { MirrorPorts } from './mirror-ports.ts';
import type { EngineAnswer } from './replica.ts';

/** A copy that is away for less is nothing to be told of: it is connected again, or just begins. */
const graceMs = 10_000;

export class DistantCopies {
  readonly #ports: MirrorPorts;
  readonly #config: () => ModuleConfig;
  /** The reason for which an alert says that a copy is refused, by its number. */
  readonly #told = new Map<number, string>();
  readonly #lostSinceMs = new Map<number, number>();

  constructor(config: () => ModuleConfig, ports: MirrorPorts) {
    this.#config = config;
    this.#ports = ports;
  }

  /** What the engine says of each, in the order of the configuration. */
  status(values: EngineAnswer): readonly DistantStatus[] {
    return this.#ports.distantNames(this.#config()).map((node, index) => {
      const text = (key: string): string => values[`distant${index}_${key}`] ?? '';
      const figure = (key: string): number => Number(text(key)) || 0;
      const run = figure('resync');
      const state = stateOf(text('peer'));
      return {
        node,
        state,
        reason: state === 'refused' ? this.#whyRefused(node, text('reason')).said : '',
        inSync: text('insync') === '1',
        isKnown: text('dirty_everything') !== '1',
        lagBytes: figure('lag_bytes'),
        lagMs: figure('lag_ms'),
        resync:
          run === 0
            ? null
            : {
                kind: text('resync_kind'),
                leftBytes: figure('resync_left'),
                bytesPerS: figure('resync_rate'),
              },
        sentBytes: figure('sent'),
        diverted: figure('diverted'),
      };
    });
  }

  /** Takes an event of the engine in; false when it is of no distant copy. */
  take(name: string, values: EngineAnswer): boolean {
    const number = values['distant'];
    if (number === undefined) return false;
    const node = this.#ports.distantNames(this.#config())[Number(number)] ?? `number ${number}`;
    const say = (text: string): void =>
      this.#ports.record('peer', `replication: distant copy ${node} ${text}`.trim(), values);
    const { state = 'unknown', reason = '' } = values;
    if (name === 'peer' && state === 'refused') {
      say(`refused: ${this.#whyRefused(node, reason).said}`);
    } else if (name === 'peer') say(`${state} ${reason}`);
    else if (name === 'resync') say(resyncText(values));
    else if (name === 'insync') say('is in sync');
    else say(`${name} ${values['text'] ?? ''}`);
    return true;
  }

  /** Why a copy is refused, by the engine's word for it, and what to do where a person must. */
  #whyRefused(node: string, reason: string): { readonly said: string; readonly hint: string } {
    const codes = { fork: 'HF-MIRROR-027', epoch: 'HF-MIRROR-028' } as const;
    const code = codes[reason as keyof typeof codes];
    if (code === undefined) return { said: reasonText(reason), hint: '' };
    const error = new HoldfastError(code, { module: this.#config().name, node });
    return { said: error.line(), hint: `. ${error.hint}` };
  }

  /** What an operator should know while the application runs. */
  checkAlerts(values: EngineAnswer, serving: boolean): void {
    for (const [index, { node, state }] of this.status(values).entries()) {
      // An engine that does not answer says nothing of its copies.
      if (state === 'none' && serving) continue;
      this.#checkLost(index, node, serving && state === 'lost');
      const reason = state === 'refused' ? (values[`distant${index}_reason`] ?? '') : null;
      // One alert stands for one reason.
      if (this.#told.get(index) !== reason) this.#alert(node, 'refused', false, '');
      if (reason === null) {
        this.#told.delete(index);
        continue;
      }
      this.#told.set(index, reason);
      const { said, hint } = this.#whyRefused(node, reason);
      this.#alert(node, 'refused', true, `is refused: ${said}${hint}`);
    }
  }

  #checkLost(index: number, node: string, isLost: boolean): void {
    const nowMs = this.#ports.nowMs();
    const sinceMs = this.#lostSinceMs.get(index) ?? nowMs;
    if (isLost) this.#lostSinceMs.set(index, sinceMs);
    else this.#lostSinceMs.delete(index);
    const isLong = isLost && nowMs - sinceMs >= graceMs;
    this.#alert(node, 'lost', isLong, 'is not connected: what it lacks grows');
  }

  /** A role begins or ends: what was said of the copies is said no more. */
  forget(): void {
    this.#told.clear();
    this.#lostSinceMs.clear();
    for (const node of this.#ports.distantNames(this.#config())) {
      for (const what of ['lost', 'refused']) this.#alert(node, what, false, '');
    }
  }

  #alert(node: string, what: string, on: boolean, message: string): void {
    const { name } = this.#config();
    const id = `module.${name}.distant.${node}.${what}`;
    this.#ports.alert(id, on, 'warning', `${name}: distant copy ${node} ${message}`);
  }
}

function stateOf(peer: string): DistantStatus['state'] {
  if (peer === '') return 'none';
  return peer === 'connected' || peer === 'refused' ? peer : 'lost';
}
