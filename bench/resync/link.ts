/**
 * What the link carries without the engine: one TLS stream from host to host with the engine's own
 * certificates, as fast as it goes. Run on a host: `link.js listen ADDRESS PORT` takes one stream and
 * says how many bytes came; `link.js send ADDRESS PORT SECONDS` makes it.
 */
import { readFileSync } from 'node:fs';
import { connect, createServer } from 'node:tls';
import type { Host } from '../../src/lab/host.ts';
import { firstLine } from '../../src/lab/tool.ts';
import { script } from './script.ts';

const folder = '/run/replica-pki';
const file = (name: string) => readFileSync(`${folder}/${name}.pem`);
const identity = () => ({ key: file('key'), cert: file('cert'), ca: file('ca') });
const piece = Buffer.alloc(256 * 1024, 0x5a);

function listen(address: string, port: number): void {
  let bytes = 0;
  let first = 0;
  const server = createServer({ ...identity(), minVersion: 'TLSv1.3' }, (socket) => {
    socket.on('data', (data: Buffer) => {
      first ||= performance.now();
      bytes += data.length;
    });
    socket.on('end', () => {
      const perS = (bytes * 1000) / (performance.now() - first);
      socket.end(JSON.stringify({ bytes, perS }));
      server.close();
    });
  });
  server.listen(port, address, () => console.log('listening'));
}

function send(address: string, port: number, seconds: number): void {
  const socket = connect({ ...identity(), host: address, port, minVersion: 'TLSv1.3' });
  const untilMs = performance.now() + seconds * 1000;
  const more = () => {
    while (performance.now() < untilMs) if (!socket.write(piece)) return;
    socket.end();
  };
  socket.on('secureConnect', more);
  socket.on('drain', more);
  socket.on('data', (answer: Buffer) => process.stdout.write(answer));
}

/** Bytes per second of a stream from one host to the other. */
export async function linkBytesPerS(from: Host, to: Host, seconds: number): Promise<number> {
  const place = [to.address(), '5800'];
  const listener = await to.spawn(script('link', ['listen', ...place]));
  await firstLine(listener.child.stdout);
  const { stdout } = await from.exec(script('link', ['send', ...place, String(seconds)]));
  await listener.ended;
  return (JSON.parse(stdout) as { perS: number }).perS;
}

const [, program, verb, address = '', port, seconds] = process.argv;
if (program?.endsWith('resync/link.js') === true) {
  if (verb === 'listen') listen(address, Number(port));
  else send(address, Number(port), Number(seconds));
}
