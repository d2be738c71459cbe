import type { Alert } from './face.ts';

/** An alert that was raised or that ended. */
export interface AlertChange {
  readonly raised: boolean;
  readonly alert: Alert;
}

/** More different alerts than this at once say nothing new; further ones are counted. */
const alertsMax = 256;

/** The conditions that an operator should know of now. One id is one condition: raising it again changes nothing. */
export class Alerts {
  readonly #open = new Map<string, Alert>();
  readonly #wallMs: () => number;
  readonly #onChange: (change: AlertChange) => void;
  #lost = 0;

  constructor(wallMs: () => number, onChange: (change: AlertChange) => void) {
    this.#wallMs = wallMs;
    this.#onChange = onChange;
  }

  raise(id: string, severity: Alert['severity'], message: string): void {
    if (this.#open.has(id)) return;
    if (this.#open.size >= alertsMax) {
      this.#lost++;
      return;
    }
    const alert: Alert = { id, severity, message, sinceWallMs: this.#wallMs() };
    this.#open.set(id, alert);
    this.#onChange({ raised: true, alert });
  }

  clear(id: string): void {
    const alert = this.#open.get(id);
    if (alert === undefined) return;
    this.#open.delete(id);
    this.#onChange({ raised: false, alert });
  }

  /** Raises or clears by condition. */
  set(id: string, on: boolean, severity: Alert['severity'], message: string): void {
    if (on) this.raise(id, severity, message);
    else this.clear(id);
  }

  list(): readonly Alert[] {
    return [...this.#open.values()];
  }

  /** Alerts that found no place. */
  lost(): number {
    return this.#lost;
  }
}
