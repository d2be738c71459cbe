/**
 * Clients of set-server.ts, in the clients' namespace of a lab. Each writes one record after the
 * other and never the same one twice; a prober sends a datagram every 10 ms, and hears only what comes
 * from the virtual IP, as any client that connects its socket. Says what was answered, a line each:
 * "w|u ID RUN NS SEEN", SEEN as NS on this side. Arguments: the virtual IP; how long an answer is
 * waited for, in ms (1000); what begins all IDs, where clients before these had others.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';

const [vip = '', patienceMs = '1000', prefix = ''] = process.argv.slice(2);
const writers = 3;
const answerMs = Number(patienceMs);
const pauseMs = 10;

const say = (kind: 'w' | 'u', answer: string): boolean =>
  process.stdout.write(`${kind} ${answer} ${process.hrtime.bigint()}\n`);

/**
 * Writes until the connection fails, or an answer does not come; the number of the next record.
 *
 * The patience is a timer of its own: a signal of AbortSignal.timeout that is only a part of
 * AbortSignal.any is garbage to Node 20, and never fires once that was collected. A server that took
 * the record and lost its power then had a client that waited for good, and so had the nemesis.
 */
async function session(socket: Socket, writer: number, first: number): Promise<number> {
  const stop = new AbortController();
  const { signal } = stop;
  const patience = setTimeout(() => stop.abort(), answerMs);
  socket.on('error', () => stop.abort()).on('close', () => stop.abort());
  const lines = createInterface({ input: socket }).on('error', () => stop.abort());
  let next = first;
  try {
    await once(socket, 'connect', { signal });
    for (;;) {
      socket.write(`w ${prefix}${writer}.${next++}\n`);
      patience.refresh();
      const [answer] = (await once(lines, 'line', { signal })) as [string];
      say('w', answer);
      await delay(pauseMs);
    }
  } catch {
    return next;
  } finally {
    clearTimeout(patience);
    socket.destroy();
  }
}

async function write(writer: number): Promise<never> {
  for (let next = 1; ; await delay(pauseMs)) {
    next = await session(connect({ host: vip, port: 1080, noDelay: true }), writer, next);
  }
}

const prober = createSocket('udp4').on('message', (answer) => say('u', answer.toString()));
// An address that nobody has is an error of the socket; the next datagram may be answered.
prober.on('error', () => undefined);
let sent = 0;
prober.connect(1053, vip, () => {
  setInterval(() => prober.send(`${prefix}${++sent}`, () => undefined), pauseMs);
});
await Promise.all(Array.from({ length: writers }, (_, writer) => write(writer + 1)));
