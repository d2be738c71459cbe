/**
 * Clients of set-server.ts, in the clients' namespace of a lab. Each writes one record after the
 * other and never the same one twice; a prober sends a datagram every 10 ms. Says what was answered,
 * a line each: "w|u ID RUN NS SEEN", SEEN as NS on this side. Arguments: the virtual IP; how long an
 * answer is waited for, in ms (1000); what begins all IDs, where clients before these had others.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';

const [vip = '', patience = '1000', prefix = ''] = process.argv.slice(2);
const writers = 3;
const answerMs = Number(patience);
const pauseMs = 10;

const say = (kind: 'w' | 'u', answer: string): boolean =>
  process.stdout.write(`${kind} ${answer} ${process.hrtime.bigint()}\n`);

/** Writes until the connection fails, or an answer does not come; the number of the next record. */
async function session(socket: Socket, writer: number, first: number): Promise<number> {
  const stop = new AbortController();
  socket.on('error', () => stop.abort()).on('close', () => stop.abort());
  const lines = createInterface({ input: socket }).on('error', () => stop.abort());
  let next = first;
  try {
    const limit = AbortSignal.any([stop.signal, AbortSignal.timeout(answerMs)]);
    await once(socket, 'connect', { signal: limit });
    for (;;) {
      socket.write(`w ${prefix}${writer}.${next++}\n`);
      const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(answerMs)]);
      const [answer] = (await once(lines, 'line', { signal })) as [string];
      say('w', answer);
      await delay(pauseMs);
    }
  } catch {
    socket.destroy();
    return next;
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
setInterval(() => prober.send(`${prefix}${++sent}`, 1053, vip, () => undefined), pauseMs);
await Promise.all(Array.from({ length: writers }, (_, writer) => write(writer + 1)));
