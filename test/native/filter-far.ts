/**
 * The other end of the live tests' cable: a process in a network namespace of its own that does what
 * a client does. Commands come over the IPC channel; each is answered once, in order.
 */
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { connect, type Socket } from 'node:net';
import { loadFilterAddon } from '../../src/native/filter.ts';

export type FarCommand =
  | { readonly op: 'shell'; readonly line: string }
  /** Attaches a program that passes everything; see FilterAddon.attachPass. */
  | { readonly op: 'pass'; readonly device: string }
  /** Opens a connection and keeps it; the answer is its local port, or 0. */
  | { readonly op: 'connect'; readonly addr: string; readonly port: number }
  /** Sends on a connection by its local port; true when the echo came. */
  | { readonly op: 'echo'; readonly local: number }
  /** For each address at once: does a connection open, is a datagram echoed? */
  | {
      readonly op: 'answers';
      readonly addrs: readonly string[];
      readonly tcp: number;
      readonly udp: number;
    };

const patienceMs = 700;
const connections = new Map<number, Socket>();
const held: unknown[] = [];

function open(addr: string, port: number): Promise<number> {
  return new Promise((done) => {
    const socket = connect({ host: addr, port });
    const timer = setTimeout(() => socket.destroy(new Error('no answer')), patienceMs);
    socket.on('error', () => done(0));
    socket.on('connect', () => {
      clearTimeout(timer);
      connections.set(socket.localPort ?? 0, socket);
      done(socket.localPort ?? 0);
    });
  });
}

function echo(socket: Socket): Promise<boolean> {
  return new Promise((done) => {
    const finish = (answered: boolean): void => {
      clearTimeout(timer);
      socket.removeAllListeners('data');
      done(answered);
    };
    const timer = setTimeout(() => finish(false), patienceMs);
    socket.on('close', () => finish(false));
    socket.on('data', () => finish(true));
    socket.write('?');
  });
}

function datagram(addr: string, port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = createSocket(addr.includes(':') ? 'udp6' : 'udp4');
    const finish = (answered: boolean): void => {
      clearTimeout(timer);
      socket.close();
      done(answered);
    };
    const timer = setTimeout(() => finish(false), patienceMs);
    socket.on('message', () => finish(true));
    socket.on('error', () => finish(false));
    socket.send('?', port, addr);
  });
}

async function answer(command: FarCommand): Promise<unknown> {
  switch (command.op) {
    case 'shell':
      return execFileSync('sh', ['-c', command.line]).toString();
    case 'pass':
      held.push(loadFilterAddon().attachPass(command.device));
      return true;
    case 'connect':
      return open(command.addr, command.port);
    case 'echo': {
      const socket = connections.get(command.local);
      return socket !== undefined && (await echo(socket));
    }
    case 'answers':
      return Promise.all(
        command.addrs.flatMap((addr) => [
          open(addr, command.tcp).then((local) => local !== 0),
          datagram(addr, command.udp),
        ]),
      );
    default:
      return command satisfies never;
  }
}

process.on('message', (command) => {
  void answer(command as FarCommand).then(
    (value) => process.send?.({ value }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.({ value: 'ready' });
