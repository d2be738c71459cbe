/** A line of its own between a primary and a distant copy: it can be cut, and it can be slow. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

export class Relay {
  readonly port: number;
  /** Bytes per second to the copy; 0: as fast as it goes. */
  rate = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;

  private constructor(server: Server, port: number, target: number) {
    this.#server = server;
    this.port = port;
    server.on('connection', (from) => this.#join(from, target));
  }

  /** Listens, and passes everything on to the port `target`. */
  static async make(target: number): Promise<Relay> {
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const address = server.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    return new Relay(server, port, target);
  }

  #join(from: Socket, target: number): void {
    if (this.#isCut) {
      from.destroy();
      return;
    }
    const to = connect(target, '127.0.0.1');
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      this.#sockets.add(one);
      one.setNoDelay(true);
      one.on('error', () => undefined); // 'close' follows
      one.on('close', () => {
        this.#sockets.delete(one);
        other.destroy();
      });
    }
    to.pipe(from);
    from.on('data', (bytes: Buffer) => {
      if (this.rate === 0 && to.write(bytes)) return;
      from.pause();
      if (this.rate === 0) {
        to.once('drain', () => from.resume());
        return;
      }
      to.write(bytes);
      void delay((bytes.length / this.rate) * 1000, null, { ref: false }).then(() => from.resume());
    });
  }

  /** Until `mend` there is no connection. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#isCut = false;
  }

  end(): void {
    this.cut();
    this.#server.close();
  }
}
