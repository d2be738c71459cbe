import { readFile } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import type { ArbiterAnswer } from '../core/mirror-types.ts';
import { type RegisterQuestion, whyNotAsked } from './record.ts';
import type { Register, RegisterPorts } from './register.ts';
import { Waiting } from './waiting.ts';
import { answerSize, decodeAnswer, encodeQuestion } from './witness-wire.ts';

/** A lost connection is made again by itself, so that it is there when it is needed. */
const redialMs = 1000;

/**
 * The common name in the certificate of a witness. No node can have it: names of nodes have no colon.
 */
export const witnessSubject = (name: string): string => `witness:${name}`;

export interface WitnessOptions
  extends Pick<RegisterPorts, 'clusterId' | 'keyFiles' | 'timeLimitMs'> {
  readonly name: string;
  readonly addr: string;
  readonly port: number;
}

/** What OpenSSL says where one of the two does not know the other's cluster. */
const foreign =
  /unrecognized name|unknown ca|self-signed certificate|unable to verify|unable to get .*issuer/;

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Of an alert, in OpenSSL's words; its message names files of OpenSSL's source as well.
  const { reason } = error as { readonly reason?: unknown };
  const text = typeof reason === 'string' ? reason : error.message;
  return foreign.test(text) ? `it is no witness of this cluster (${text})` : text;
}

/** A client of `holdfast-witness`: one connection, made at the first question and kept. */
export class WitnessRegister implements Register {
  readonly text: string;
  readonly #options: WitnessOptions;
  readonly #waiting: Waiting;
  #socket: TLSSocket | null = null;
  /** The handshake is done on #socket. */
  #isOpen = false;
  /** Counts attempts to connect: what an older one learns is nothing. */
  #attempt = 0;
  #isDialling = false;
  #redial: NodeJS.Timeout | null = null;
  #received = Buffer.alloc(0);
  #isClosed = false;

  constructor(options: WitnessOptions) {
    const { name, addr, port } = options;
    this.#options = options;
    this.text = `witness ${name} (${isIPv6(addr) ? `[${addr}]` : addr}:${port})`;
    this.#waiting = new Waiting(options.timeLimitMs, () => {
      this.#drop('it did not answer in time');
    });
  }

  read(module: string): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'read', module });
  }

  swap(...[module, from, to]: Parameters<Register['swap']>): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'swap', module, from, to });
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.#waiting.giveUpAll('it was closed');
    this.#drop('it was closed');
    return Promise.resolve();
  }

  async #ask(question: RegisterQuestion): Promise<ArbiterAnswer> {
    const bad = this.#isClosed ? 'it is closed' : whyNotAsked(question);
    if (bad !== null) return { outcome: 'unreachable', why: bad };
    const { answer } = this.#waiting.add(question);
    if (this.#isOpen) this.#send();
    else this.#dial();
    return await answer;
  }

  #send(): void {
    for (const { id, question } of this.#waiting.unsent()) {
      this.#waiting.leaves(id);
      this.#socket?.write(encodeQuestion(id, question));
    }
  }

  #dial(): void {
    if (this.#isDialling || this.#isClosed) return;
    this.#isDialling = true;
    if (this.#redial !== null) clearTimeout(this.#redial);
    this.#redial = null;
    this.#attempt += 1;
    const attempt = this.#attempt;
    void this.#connect(attempt).catch((error: unknown) => {
      if (attempt === this.#attempt) this.#drop(reasonOf(error));
    });
  }

  async #connect(attempt: number): Promise<void> {
    const { name, addr, port, clusterId, keyFiles, timeLimitMs } = this.#options;
    const [cert, key, ca] = await Promise.all(
      [keyFiles.cert, keyFiles.key, keyFiles.caCert].map((file) => readFile(file, 'utf8')),
    );
    if (attempt !== this.#attempt) return;
    const socket = connect({
      host: addr,
      port,
      servername: clusterId,
      minVersion: 'TLSv1.3',
      ...(cert === undefined || key === undefined || ca === undefined ? {} : { cert, key, ca }),
      checkServerIdentity: (_host, shown) => {
        if (shown.subject.CN === witnessSubject(name)) return undefined;
        return new Error(`${shown.subject.CN} answered there`);
      },
    });
    this.#socket = socket;
    this.#received = Buffer.alloc(0);
    // The agent has other things to live for; a question that waits has a timer.
    socket.unref();
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 5000);
    const timer = setTimeout(
      () => socket.destroy(new Error(`no connection in ${timeLimitMs} ms`)),
      timeLimitMs,
    );
    timer.unref();
    socket.on('secureConnect', () => {
      clearTimeout(timer);
      if (attempt !== this.#attempt) return;
      this.#isDialling = false;
      this.#isOpen = true;
      this.#send();
    });
    socket.on('data', (bytes) => {
      if (attempt === this.#attempt) this.#take(bytes);
    });
    socket.on('error', (error) => {
      if (attempt === this.#attempt) this.#drop(reasonOf(error));
    });
    socket.on('close', () => {
      clearTimeout(timer);
      if (attempt === this.#attempt) this.#drop('the connection was closed');
    });
  }

  #take(bytes: Buffer): void {
    this.#received = Buffer.concat([this.#received, bytes]);
    while (this.#received.length >= answerSize) {
      const frame = this.#received.subarray(0, answerSize);
      this.#received = this.#received.subarray(answerSize);
      try {
        const { id, answer } = decodeAnswer(frame);
        const asked = this.#waiting.questionOf(id)?.kind;
        const isOfRead = answer.outcome === 'record';
        const isOfSwap = !isOfRead && answer.outcome !== 'unreachable';
        if ((asked === 'swap' && isOfRead) || (asked === 'read' && isOfSwap)) {
          throw new Error('the witness answered something else than was asked');
        }
        this.#waiting.answer(id, answer);
      } catch (error) {
        this.#drop(reasonOf(error));
        return;
      }
    }
  }

  /** The connection, or the attempt, is over: whatever was asked on it gets no answer. */
  #drop(why: string): void {
    const socket = this.#socket;
    this.#attempt += 1;
    this.#socket = null;
    this.#isOpen = false;
    this.#isDialling = false;
    // Listeners stay: an error that comes after this must not be thrown.
    socket?.destroy();
    this.#waiting.giveUpAll(`${this.text}: ${why}`);
    if (this.#isClosed) {
      if (this.#redial !== null) clearTimeout(this.#redial);
      this.#redial = null;
      return;
    }
    this.#redial ??= setTimeout(() => {
      this.#redial = null;
      if (!this.#isOpen) this.#dial();
    }, redialMs).unref();
  }
}
