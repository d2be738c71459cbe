/**
 * As much of PostgreSQL's protocol (version 3.0, simple queries) as a client needs that must know what became of a
 * commit: also the answers that came before a connection broke.
 */
import { connect, type Socket } from 'node:net';

export interface PgReply {
  /** Commands that the server says it has done, in order: "BEGIN", "INSERT 0 1", "COMMIT". */
  readonly tags: readonly string[];
  readonly rows: readonly (readonly (string | null)[])[];
  /** "ERROR" undoes the transaction, and the connection lives on; "FATAL" and "PANIC" end it. */
  readonly severity: string | null;
  /** All of the answer came, in time. */
  readonly isWhole: boolean;
}

type Growing = { -readonly [K in keyof PgReply]: PgReply[K] } & {
  tags: string[];
  rows: (string | null)[][];
};

export interface PgAddress {
  readonly host: string;
  readonly port: number;
  /** Who needs no password; also the name of the database. */
  readonly user: string;
}

const protocol = 0x30000;
const authenticated = 0;

export class PgSession {
  readonly #socket: Socket;
  #unread: Buffer = Buffer.alloc(0);
  #reply: Growing = emptyReply();
  #done: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#done?.());
    socket.on('data', (data: Buffer) => this.#read(data));
  }

  /** null: nobody answers there in time, or does not let us in. */
  static async open(address: PgAddress, limitMs: number): Promise<PgSession | null> {
    const { host, port, user } = address;
    const session = new PgSession(connect({ host, port, noDelay: true }));
    const words = Buffer.from(`user\0${user}\0database\0${user}\0\0`);
    const head = Buffer.alloc(8);
    head.writeInt32BE(head.length + words.length, 0);
    head.writeInt32BE(protocol, 4);
    const { isWhole } = await session.#ask(Buffer.concat([head, words]), limitMs);
    return isWhole ? session : null;
  }

  /** Commands separated by ";" in one message. An answer that is not whole has ended the session. */
  query(text: string, limitMs: number): Promise<PgReply> {
    const words = Buffer.from(`${text}\0`);
    const head = Buffer.from('Q0000');
    head.writeInt32BE(4 + words.length, 1);
    return this.#ask(Buffer.concat([head, words]), limitMs);
  }

  async #ask(message: Buffer, limitMs: number): Promise<PgReply> {
    const reply = emptyReply();
    this.#reply = reply;
    if (!this.#socket.destroyed) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, limitMs);
        this.#done = () => {
          clearTimeout(timer);
          resolve();
        };
        this.#socket.write(message);
      });
      this.#done = null;
    }
    if (!reply.isWhole) this.#socket.destroy();
    return reply;
  }

  /** A message is a letter, the length of all after the letter, and the rest. */
  #read(data: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, data]);
    while (this.#unread.length >= 5) {
      const end = 1 + this.#unread.readInt32BE(1);
      if (this.#unread.length < end) return;
      const kind = String.fromCharCode(this.#unread[0] ?? 0);
      this.#take(kind, this.#unread.subarray(5, end));
      this.#unread = this.#unread.subarray(end);
    }
  }

  #take(kind: string, body: Buffer): void {
    if (kind === 'C') this.#reply.tags.push(body.toString('utf8', 0, body.length - 1));
    else if (kind === 'D') this.#reply.rows.push(columnsOf(body));
    else if (kind === 'E') this.#reply.severity = severityOf(body);
    else if (kind === 'R' && body.readInt32BE(0) !== authenticated) this.#socket.destroy();
    else if (kind === 'Z') {
      this.#reply.isWhole = true;
      this.#done?.();
    }
  }
}

function emptyReply(): Growing {
  return { tags: [], rows: [], severity: null, isWhole: false };
}

function columnsOf(body: Buffer): (string | null)[] {
  const columns: (string | null)[] = [];
  let at = 2;
  for (let left = body.readInt16BE(0); left > 0; left--) {
    const length = body.readInt32BE(at);
    at += 4;
    columns.push(length < 0 ? null : body.toString('utf8', at, at + length));
    at += Math.max(0, length);
  }
  return columns;
}

/** The field V: as S, but in English whatever the server speaks. */
function severityOf(body: Buffer): string {
  const fields = body.toString().split('\0');
  return fields.find((field) => field.startsWith('V'))?.slice(1) ?? 'ERROR';
}
