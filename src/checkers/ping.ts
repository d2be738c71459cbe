import { randomBytes } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import { isIPv6 } from 'node:net';
import { errnoOf } from '../module/durable.ts';

/*
 * ICMP echo through the raw-socket package. It must be loaded on the main thread only, its checksum
 * helper reads beyond a view (so checksums are made here), and its sockets keep the event loop alive:
 * one is open only while a reply is awaited.
 */

interface RawSocket extends EventEmitter {
  send(
    buffer: Buffer,
    offset: number,
    length: number,
    address: string,
    done: (error: Error | null) => void,
  ): void;
  setOption(level: number, option: number, value: Buffer, length: number): void;
  close(): void;
}

interface RawModule {
  createSocket(options: { protocol: number; addressFamily: number }): RawSocket;
  readonly AddressFamily: { readonly IPv4: number; readonly IPv6: number };
}

type Family = 4 | 6;

interface Wire {
  readonly protocol: number;
  readonly request: number;
  readonly reply: number;
  /** Socket option by which the kernel passes only one ICMP type, and its value. */
  readonly filter: { readonly level: number; readonly option: number; readonly value: Buffer };
}

/** RFC 792 and RFC 4443; the filters are linux/icmp.h and linux/icmpv6.h: a set bit blocks the type. */
const wires: Readonly<Record<Family, Wire>> = {
  4: { protocol: 1, request: 8, reply: 0, filter: { level: 255, option: 1, value: allBut(0, 4) } },
  6: {
    protocol: 58,
    request: 128,
    reply: 129,
    filter: { level: 58, option: 1, value: allBut(129, 32) },
  },
};
const headerBytes = 8;
const nonceBytes = 16;
/** A check asks once per some seconds; more than this at once is a mistake of the caller. */
const maxWaiting = 256;

interface Waiting {
  readonly nonce: Buffer;
  readonly resolve: (why: string | null) => void;
}

/** Sends echo requests and matches the replies; one for the process. */
export class Pinger {
  readonly #waiting: Readonly<Record<Family, Map<number, Waiting>>> = {
    4: new Map(),
    6: new Map(),
  };
  readonly #sockets: Record<Family, RawSocket | null> = { 4: null, 6: null };
  readonly #id = process.pid & 0xffff;
  #sequence = 0;

  /** Null when the address answers before the signal, else why not. Never rejects. */
  ping(addr: string, signal: AbortSignal): Promise<string | null> {
    const family: Family = isIPv6(addr) ? 6 : 4;
    const waiting = this.#waiting[family];
    return new Promise((resolve) => {
      if (waiting.size >= maxWaiting) return resolve('too many pings are under way');
      if (signal.aborted) return resolve('given up');
      const sequence = this.#nextSequence(waiting);
      const onAbort = (): void => finish(`${addr} does not answer`);
      const finish = (why: string | null): void => {
        if (!waiting.delete(sequence)) return;
        signal.removeEventListener('abort', onAbort);
        if (waiting.size === 0) this.#close(family);
        resolve(why);
      };
      const nonce = randomBytes(nonceBytes);
      waiting.set(sequence, { nonce, resolve: finish });
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        const frame = this.#request(family, sequence, nonce);
        this.#open(family).send(frame, 0, frame.length, addr, (error) => {
          if (error !== null) finish(`${addr} cannot be sent to: ${error.message}`);
        });
      } catch (error) {
        finish(`ping is not possible: ${errnoOf(error)}`);
      }
    });
  }

  #nextSequence(waiting: ReadonlyMap<number, Waiting>): number {
    do this.#sequence = (this.#sequence + 1) & 0xffff;
    while (waiting.has(this.#sequence));
    return this.#sequence;
  }

  #open(family: Family): RawSocket {
    const open = this.#sockets[family];
    if (open !== null) return open;
    const raw = createRequire(import.meta.url)('raw-socket') as RawModule;
    const { protocol, filter } = wires[family];
    const addressFamily = family === 6 ? raw.AddressFamily.IPv6 : raw.AddressFamily.IPv4;
    const socket = raw.createSocket({ protocol, addressFamily });
    this.#sockets[family] = socket;
    socket.setOption(filter.level, filter.option, filter.value, filter.value.length);
    socket.on('message', (packet: Buffer) => this.#receive(family, packet));
    socket.on('error', (error: Error) => {
      // The package closes a socket that raised an error.
      if (this.#sockets[family] === socket) this.#sockets[family] = null;
      const why = `ping is not possible: ${error.message}`;
      for (const one of this.#waiting[family].values()) one.resolve(why);
    });
    return socket;
  }

  #close(family: Family): void {
    this.#sockets[family]?.close();
    this.#sockets[family] = null;
  }

  #request(family: Family, sequence: number, nonce: Buffer): Buffer {
    const frame = Buffer.alloc(headerBytes + nonceBytes);
    frame.writeUInt8(wires[family].request, 0);
    frame.writeUInt16BE(this.#id, 4);
    frame.writeUInt16BE(sequence, 6);
    nonce.copy(frame, headerBytes);
    // The kernel fills in the checksum of ICMPv6 on raw sockets (RFC 3542 3.1), not that of ICMP.
    if (family === 4) frame.writeUInt16BE(internetChecksum(frame), 2);
    return frame;
  }

  #receive(family: Family, packet: Buffer): void {
    // IPv4 raw sockets hand out the IP header too; IPv6 ones do not.
    const at = family === 4 ? ((packet[0] ?? 0) & 0x0f) * 4 : 0;
    const end = at + headerBytes + nonceBytes;
    if (packet.length < end || packet[at] !== wires[family].reply) return;
    if (packet.readUInt16BE(at + 4) !== this.#id) return;
    const waiting = this.#waiting[family].get(packet.readUInt16BE(at + 6));
    // Who knows the nonce has received the request, so the source address says no more.
    if (waiting?.nonce.equals(packet.subarray(at + headerBytes, end)) === true) {
      waiting.resolve(null);
    }
  }
}

/** RFC 1071. */
export function internetChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** A bit mask of 32-bit words in host order (little endian on all we build for) without one bit. */
function allBut(type: number, bytes: number): Buffer {
  const mask = Buffer.alloc(bytes, 0xff);
  const at = type >> 3;
  mask.writeUInt8(0xff & ~(1 << (type & 7)), at);
  return mask;
}
