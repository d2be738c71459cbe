/**
 * Frames of the calls between nodes: u32 big-endian length, then so many bytes of JSON, an array
 * [kind, ...]. Kinds: 'm' message, 'p' ping (with the sender's cluster signature), 'q' its answer.
 */

import { decodeJson, encodeJson } from '../host/codec.ts';

/** Greatest length of a frame's JSON; a view with all its tables has some 100 KiB. */
export const maxFrameBytes = 1024 * 1024;
const headerBytes = 4;

/** How messages become JSON text and back. decode throws on what it does not know. */
export interface Codec {
  encode(message: unknown): string;
  decode(text: string): unknown;
}

/** The host's JSON with bigint and bytes. */
export const hostCodec: Codec = { encode: encodeJson, decode: decodeJson };

export type Frame =
  | { readonly kind: 'm'; readonly message: unknown }
  | { readonly kind: 'p'; readonly signature: string }
  | { readonly kind: 'q'; readonly signature: string };

/** One frame as bytes; null where it would exceed maxFrameBytes. */
export function encodeFrame(frame: Frame, codec: Codec): Buffer | null {
  const text =
    frame.kind === 'm'
      ? `["m",${codec.encode(frame.message)}]`
      : JSON.stringify([frame.kind, frame.signature]);
  const length = Buffer.byteLength(text);
  if (length > maxFrameBytes) return null;
  const bytes = Buffer.allocUnsafe(headerBytes + length);
  bytes.writeUInt32BE(length, 0);
  bytes.write(text, headerBytes, 'utf8');
  return bytes;
}

/** Reads one frame's JSON. Throws on anything that encodeFrame does not make. */
export function decodeFrame(text: string, codec: Codec): Frame {
  if (text.startsWith('["m",') && text.endsWith(']')) {
    return { kind: 'm', message: codec.decode(text.slice(5, -1)) };
  }
  const parsed: unknown = JSON.parse(text);
  if (Array.isArray(parsed) && parsed.length === 2) {
    const [kind, signature] = parsed as [unknown, unknown];
    if ((kind === 'p' || kind === 'q') && typeof signature === 'string' && signature.length <= 64) {
      return { kind, signature };
    }
  }
  throw new TypeError('no frame of this protocol');
}

/** Cuts a byte stream into frames; holds at most one unfinished frame. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #held = 0;
  /** Length of the frame under way, or -1 while its header is not whole. */
  #length = -1;
  readonly #utf8 = new TextDecoder('utf-8', { fatal: true });

  /** True while a frame has begun and is not whole. */
  get partial(): boolean {
    return this.#held > 0;
  }

  /** The texts of the frames that `chunk` completes. Throws on a bad length or bad UTF-8. */
  *push(chunk: Buffer): Generator<string, void, void> {
    this.#chunks.push(chunk);
    this.#held += chunk.length;
    for (;;) {
      if (this.#length < 0) {
        if (this.#held < headerBytes) return;
        this.#length = this.#take(headerBytes).readUInt32BE(0);
        if (this.#length === 0 || this.#length > maxFrameBytes) {
          throw new RangeError(`a frame of ${this.#length} bytes`);
        }
      }
      if (this.#held < this.#length) return;
      const text = this.#utf8.decode(this.#take(this.#length));
      this.#length = -1;
      yield text;
    }
  }

  /** Removes `count` bytes from the front; copies only when they lie across chunks. */
  #take(count: number): Buffer {
    let first = this.#chunks[0] ?? Buffer.alloc(0);
    if (first.length < count) {
      first = Buffer.concat(this.#chunks);
      this.#chunks = [first];
    }
    this.#held -= count;
    if (first.length === count) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(count);
    return first.subarray(0, count);
  }
}
