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
  /** What is said of a copy that is refused, by its number. */
  readonly #refused = new Map<number, string>();
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
      const state = this.#state(index, text('peer'));
      return {
        node,
        state,
        reason: state === 'refused' ? (this.#refused.get(index) ?? text('reason')) : '',
        inSync: text('insync') === '1',
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

  #state(index: number, peer: string): DistantStatus['state'] {
    if (peer === '') return 'none';
    if (peer === 'connected') return 'connected';
    return peer === 'refused' || this.#refused.has(index) ? 'refused' : 'lost';
  }

  /** Takes an event of the engine in; false when it is of no distant copy. */
  take(name: string, values: EngineAnswer): boolean {
    const number = values['distant'];
    if (number === undefined) return false;
    const index = Number(number);
    const node = this.#ports.distantNames(this.#config())[index] ?? `number ${number}`;
    const say = (text: string): void =>
      this.#ports.record('peer', `replication: distant copy ${node} ${text}`.trim(), values);
    if (name === 'peer') say(this.#peer(index, node, values));
    else if (name === 'resync') say(resyncText(values));
    else if (name === 'insync') say('is in sync');
    else say(`${name} ${values['text'] ?? ''}`);
    return true;
  }

  #peer(index: number, node: string, values: EngineAnswer): string {
    const { state = 'unknown', reason = '' } = values;
    if (state !== 'refused') {
      // A connection that is lost says nothing about why an earlier one was refused.
      if (state === 'connected') this.#refused.delete(index);
      return `${state} ${reason}`;
    }
    const apart = ['fork', 'behind', 'unrelated'].includes(reason);
    const error = new HoldfastError('HF-MIRROR-027', { module: this.#config().name, node });
    const said = apart ? error.line() : reasonText(reason);
    // One alert stands for one reason.
    if (this.#refused.get(index) !== said) this.#alert(node, 'refused', false, '');
    this.#refused.set(index, said);
    this.#alert(
      node,
      'refused',
      true,
      apart ? `is refused: ${said}. ${error.hint}` : `is refused: ${said}`,
    );
    return `refused: ${said}`;
  }

  /** What an operator should know while the application runs. */
  checkAlerts(values: EngineAnswer, serving: boolean): void {
    for (const [index, { node, state }] of this.status(values).entries()) {
      // An engine that does not answer says nothing of its copies.
      if (state === 'none' && serving) continue;
      if (state !== 'refused') this.#alert(node, 'refused', false, '');
      if (state !== 'lost' || !serving) {
        this.#lostSinceMs.delete(index);
        this.#alert(node, 'lost', false, '');
        continue;
      }
      const nowMs = this.#ports.nowMs();
      const sinceMs = this.#lostSinceMs.get(index) ?? nowMs;
      this.#lostSinceMs.set(index, sinceMs);
      const isLong = nowMs - sinceMs >= graceMs;
      this.#alert(node, 'lost', isLong, 'is not connected: what it lacks grows');
    }
  }

  /** A role begins or ends: what was said of the copies is said no more. */
  forget(): void {
    this.#refused.clear();
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
