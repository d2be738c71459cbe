/** A distant copy of what a duo has: the engine of a secondary, which nobody waits for. */
import { join } from 'node:path';
import type { Duo } from './duo.ts';
import { freePort, type Options, type Side, until } from './pair.ts';
import { Relay } from './relay.ts';

export class Distant {
  /** Its place among the primary's distant copies. */
  readonly index: number;
  readonly side: Side;
  /** What lies between it and the primary; null: nothing. */
  readonly relay: Relay | null;
  readonly #duo: Duo;
  readonly #port: number;

  private constructor(duo: Duo, index: number, side: Side, port: number, relay: Relay | null) {
    this.index = index;
    this.side = side;
    this.relay = relay;
    this.#duo = duo;
    this.#port = port;
  }

  /** It listens on `port`. */
  static async make(
    duo: Duo,
    index: number,
    side: Side,
    port: number,
    relayed: boolean,
  ): Promise<Distant> {
    return new Distant(duo, index, side, port, relayed ? await Relay.make(port) : null);
  }

  /** Where the primary finds it. */
  get address(): string {
    return `127.0.0.1:${this.relay?.port ?? this.#port}`;
  }

  /** Its folder in the primary's state folder, as this process sees it. */
  get notes(): string {
    const { prim } = this.#duo;
    return join(prim.space.seen(prim.state), `distant-${this.index}`);
  }

  open(values: Options = {}): Promise<void> {
    return this.#duo.openCopy(this.side, { listen: `127.0.0.1:${this.#port}`, ...values });
  }

  /** It was not running, and comes back. */
  async returns(values: Options = {}): Promise<void> {
    await this.side.launch();
    await this.open(values);
  }

  close(): Promise<void> {
    return this.side.request('close');
  }

  /** kill -9 of both processes; `pull`: what is not on its disk is lost as well. */
  crash(how: 'kill' | 'pull' = 'kill'): Promise<void> {
    return this.#duo.crash(this.side, how);
  }

  /**
   * It was killed, and applies its journal where no primary finds it, and is closed. What it counts
   * as then.
   */
  async replayed(): Promise<string> {
    await this.returns({ listen: `127.0.0.1:${await freePort()}` });
    let state = '';
    await until(`${this.side.name} has applied its journal`, async () => {
      const { all, applied, durable } = await this.side.status();
      state = all['state'] ?? '';
      return all['replaying'] === '0' && applied === durable;
    });
    await this.close();
    return state;
  }

  /** What the primary's status says of it. */
  async said(key: string): Promise<string> {
    return (await this.#duo.prim.status()).all[`distant${this.index}_${key}`] ?? '';
  }

  async figure(key: string): Promise<number> {
    const said = await this.said(key);
    return said === '' ? Number.NaN : Number(said);
  }

  /** See Duo.heard. */
  heard(
    name: string,
    values: Readonly<Record<string, string>> = {},
    from = 0,
  ): Promise<Readonly<Record<string, string>>> {
    return this.#duo.heard(this.#duo.prim, name, { distant: String(this.index), ...values }, from);
  }

  /** What the primary has said of it since its `from`th event. */
  #heard(name: string, from: number): readonly Readonly<Record<string, string>>[] {
    const { events } = this.#duo.prim;
    const mine = events.slice(from).filter((event) => event.name === name);
    const values = mine.map((event) => event.values);
    return values.filter(({ distant }) => distant === String(this.index));
  }

  /** How often it has said so. */
  times(name: string, wanted: Readonly<Record<string, string>>, from = 0): number {
    const fits = (values: Readonly<Record<string, string>>): boolean =>
      Object.entries(wanted).every(([key, value]) => values[key] === value);
    return this.#heard(name, from).filter(fits).length;
  }

  /** Bytes that were stated to it, in resyncs that ended or were interrupted since. */
  stated(from = 0): number {
    return this.#heard('resync', from).reduce((sum, { sent = '0' }) => sum + Number(sent), 0);
  }

  /**
   * It counts as in sync, and has applied what the primary had when it was asked first after that.
   * Where the application goes on writing there need not be a moment at which it lacks nothing.
   */
  async inSync(ms = 60_000): Promise<void> {
    let shown = '';
    let wanted: bigint | null = null;
    const met = async (): Promise<boolean> => {
      const { all } = await this.#duo.prim.status();
      const say = (key: string): string => all[`distant${this.index}_${key}`] ?? '';
      const isIn = say('peer') === 'connected' && say('insync') === '1';
      wanted = isIn ? (wanted ?? BigInt(say('last'))) : null;
      const copy = await this.side.status();
      const figures = Object.entries(all).filter(([key]) => key.startsWith('distant'));
      shown = JSON.stringify([Object.fromEntries(figures), copy.all]);
      return wanted !== null && copy.all['state'] === 'in_sync' && copy.applied >= wanted;
    };
    await until('the distant copy is in sync', () => met().catch(() => false), ms).catch(() => {
      const said = [this.#duo.prim, this.side].map(({ events }) => events.slice(-16));
      throw new Error(`${this.side.name} is not in sync: ${shown}\n${JSON.stringify(said)}`);
    });
  }

  /** It comes to what the primary has, which changes nothing meanwhile. */
  async isEqual(): Promise<void> {
    await this.inSync();
    const lags = async (key: string): Promise<boolean> => (await this.figure(key)) !== 0;
    await until('the distant copy lacks nothing', async () => {
      return !(await lags('lag_bytes')) && !(await lags('lag_ms'));
    });
    await this.#duo.assertEqual(this.#duo.prim.seen, this.side.seen);
  }
}
