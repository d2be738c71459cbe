/**
 * The application of the nemesis: a set behind the virtual IP of a mirror. A line "w ID" is answered
 * once the record is appended to DIR/set and synced: "ID RUN NS"; a datagram ID likewise, at once.
 * RUN names this start of the application, NS is the time of the answer (CLOCK_MONOTONIC, which all
 * hosts of a lab share). Arguments as those of the lab's own server, name= among them. $VIP: datagrams are
 * taken at it alone, and so answered from it: what is bound to all addresses answers from the server's own.
 */
import { createSocket } from 'node:dgram';
import { statfsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

const fuse = 0x65735546;
const folder = process.env['DIR'] ?? '';
const name = /name=(\S+)/.exec(process.argv.join(' '))?.[1] ?? '';
const run = `${name}@${process.hrtime.bigint()}`;

function giveUp(reason: unknown): never {
  process.stderr.write(`${String(reason)}\n`);
  process.exit(1);
}

// What is written while the directory is a plain one is nobody's promise.
if (statfsSync(folder).type !== fuse) giveUp(`${folder} is not replicated`);
const file = await open(`${folder}/set`, 'a').catch(giveUp);

async function append(socket: Socket, id: string): Promise<void> {
  await file.write(`${id} ${run}\n`);
  await file.datasync();
  socket.write(`${id} ${run} ${process.hrtime.bigint()}\n`);
}

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => socket.destroy());
  createInterface({ input: socket })
    .on('error', () => socket.destroy())
    .on('line', (line) => {
      const [, id] = /^w (\S+)$/.exec(line) ?? [];
      // A directory that fails once is not written to again.
      if (id !== undefined) append(socket, id).catch(giveUp);
    });
});
const datagrams = createSocket('udp4').on('message', (id, from) => {
  datagrams.send(`${id.toString()} ${run} ${process.hrtime.bigint()}`, from.port, from.address);
});
datagrams.on('error', giveUp).bind(1053, process.env['VIP'] ?? '');
server.on('error', giveUp).listen(1080, '0.0.0.0', () => process.stdout.write(`${run}\n`));
