/**
 * Questions to a register that lies on another node (`<arbiter type="static">`), over the peer channel,
 * and what two servers ask each other that fence each other (`fence`).
 */
import { z } from 'zod';
import type { ArbiterAnswer, Register } from '../arbiter/register.ts';
import { NotAsked, serveQuestion } from '../arbiter/static.ts';

const Call = z.discriminatedUnion('what', [
  z.strictObject({ what: z.literal('question'), id: z.int().min(1), question: z.unknown() }),
  z.strictObject({ what: z.literal('answer'), id: z.int().min(1), answer: z.unknown() }),
]);

/** Questions of other nodes that are answered at a time: each has a few mirrors with one each. */
const servedMax = 256;

export class RegisterCalls {
  readonly #send: (node: number, message: unknown) => boolean;
  readonly #waiting = new Map<number, (answer: unknown) => void>();
  #register: () => Register | null = () => null;
  #lastId = 0;
  #served = 0;

  /** send: false where the message was not taken, and surely does not leave. */
  constructor(send: (node: number, message: unknown) => boolean) {
    this.#send = send;
  }

  /** What this node answers from: the register on its own disk; null: it holds none. */
  serve(register: () => Register | null): void {
    this.#register = register;
  }

  /** @see RegisterPorts.ask; the answer is not checked yet. */
  async ask(node: number, question: unknown, timeLimitMs: number): Promise<unknown> {
    this.#lastId += 1;
    const id = this.#lastId;
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.set(id, resolve);
        timer = setTimeout(() => reject(new Error('no answer')), timeLimitMs);
        const message = { kind: 'register', message: { what: 'question', id, question } };
        if (!this.#send(node, message)) reject(new NotAsked('there is no connection to it'));
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  /** False: the message is none of ours. */
  onMessage(from: number, message: unknown): boolean {
    const call = Call.safeParse(message);
    if (!call.success) return false;
    const { id } = call.data;
    if (call.data.what === 'answer') this.#waiting.get(id)?.(call.data.answer);
    else void this.#answer(from, id, call.data.question);
    return true;
  }

  async #answer(from: number, id: number, question: unknown): Promise<void> {
    const register = this.#register();
    const refuse = (why: string): ArbiterAnswer => ({ outcome: 'unreachable', why });
    let answer: unknown;
    if (register === null) answer = refuse('it does not hold the register');
    else if (this.#served >= servedMax) answer = refuse('it has too many questions');
    else {
      this.#served += 1;
      answer = await serveQuestion(register, question).catch(() => refuse('no valid question'));
      this.#served -= 1;
    }
    // Where the connection is gone, the asker's time limit says so.
    this.#send(from, { kind: 'register', message: { what: 'answer', id, answer } });
  }
}
