/**
 * The register on one node's own disk. That node uses it as a directory; the others ask its agent. So
 * a mirror moves by itself when another node dies, and waits for an operator when this one does.
 */
import { join } from 'node:path';
import type { ArbiterAnswer } from '../core/mirror-types.ts';
import { DirectoryRegister } from './directory.ts';
import { parseAnswer, parseQuestion, type RegisterQuestion, whyNotAsked } from './record.ts';
import type { Register, RegisterPorts } from './register.ts';
import { Waiting } from './waiting.ts';

/** The question surely did not leave this node. */
export class NotAsked extends Error {}

export function staticRegister(node: number, ports: RegisterPorts): Register {
  const text = `disk of ${ports.nameOf(node)}`;
  if (node !== ports.me) return new RemoteRegister(node, text, ports);
  return new DirectoryRegister({
    path: join(ports.stateFolder, 'register'),
    clusterId: ports.clusterId,
    timeLimitMs: ports.timeLimitMs,
    text,
    isOwn: true,
  });
}

/**
 * Answers a question that another node's agent has sent. To be mounted where only nodes of the cluster
 * come in. Throws ZodError for what is no question.
 */
export async function serveQuestion(register: Register, message: unknown): Promise<unknown> {
  if (register.serve !== undefined) return register.serve(message);
  const question = parseQuestion(message);
  return question.kind === 'read'
    ? await register.read(question.module)
    : await register.swap(question.module, question.from, question.to);
}

class RemoteRegister implements Register {
  readonly text: string;
  readonly #node: number;
  readonly #ports: RegisterPorts;
  readonly #waiting: Waiting;
  #isClosed = false;

  constructor(node: number, text: string, ports: RegisterPorts) {
    this.#node = node;
    this.text = text;
    this.#ports = ports;
    this.#waiting = new Waiting(ports.timeLimitMs);
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
    return Promise.resolve();
  }

  async #ask(question: RegisterQuestion): Promise<ArbiterAnswer> {
    const bad = this.#isClosed ? 'it is closed' : whyNotAsked(question);
    if (bad !== null) return { outcome: 'unreachable', why: bad };
    const { id, answer } = this.#waiting.add(question);
    this.#waiting.leaves(id);
    this.#ports.ask(this.#node, question, this.#ports.timeLimitMs).then(
      (message) => {
        try {
          this.#waiting.answer(id, parseAnswer(message));
        } catch {
          this.#waiting.giveUp(id, `${this.text}: the answer is none`);
        }
      },
      (error: unknown) => {
        const why = `${this.text}: ${error instanceof Error ? error.message : String(error)}`;
        if (error instanceof NotAsked) this.#waiting.answer(id, { outcome: 'unreachable', why });
        else this.#waiting.giveUp(id, why);
      },
    );
    return await answer;
  }
}
