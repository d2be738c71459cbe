import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ArbiterAnswer } from '../core/mirror-types.ts';
import { parseAnswer, type RegisterQuestion, whyNotAsked } from './record.ts';
import type { Register } from './register.ts';
import { Waiting } from './waiting.ts';

export interface DirectoryOptions {
  readonly path: string;
  readonly clusterId: string;
  readonly timeLimitMs: number;
  readonly text: string;
  /** On this server's own disk: made when it is missing. */
  readonly isOwn: boolean;
}

/** A register in a directory (directory-store.ts), reached through a process of its own. */
export class DirectoryRegister implements Register {
  readonly text: string;
  readonly #options: DirectoryOptions;
  readonly #waiting: Waiting;
  #child: ChildProcess | null = null;
  /** It has started: what is sent to it now is carried out at once. */
  #isReady = false;
  /** One that was killed and has not ended, as the file system holds it. */
  #stuck: ChildProcess | null = null;
  #isClosed = false;

  constructor(options: DirectoryOptions) {
    this.#options = options;
    this.text = options.text;
    this.#waiting = new Waiting(options.timeLimitMs, () => this.#giveUpChild());
  }

  read(module: string): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'read', module });
  }

  swap(...[module, from, to]: Parameters<Register['swap']>): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'swap', module, from, to });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#waiting.giveUpAll('it was closed');
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    child.ref();
    await new Promise<void>((resolve) => {
      // A process that the file system holds ends when that lets it go.
      const timer = setTimeout(resolve, this.#options.timeLimitMs);
      child.once('exit', () => {
        clearTimeout(timer);
        resolve();
      });
      child.kill('SIGKILL');
    });
    child.unref();
  }

  async #ask(question: RegisterQuestion): Promise<ArbiterAnswer> {
    const bad = this.#isClosed ? 'it is closed' : whyNotAsked(question);
    if (bad !== null) return { outcome: 'unreachable', why: bad };
    const child = this.#ready();
    if (child === null) {
      return { outcome: 'unreachable', why: `${this.#options.path}: an earlier call still hangs` };
    }
    const { answer } = this.#waiting.add(question);
    this.#send();
    return await answer;
  }

  #send(): void {
    const child = this.#child;
    if (child === null || !this.#isReady) return;
    for (const { id, question } of this.#waiting.unsent()) {
      this.#waiting.leaves(id);
      child.send({ id, question }, (error) => {
        if (error !== null) this.#lost(child, error.message);
      });
    }
  }

  #ready(): ChildProcess | null {
    if (this.#child !== null) return this.#child;
    // No second one behind it: they would pile up while a server is away.
    if (this.#stuck !== null) return null;
    const { path, clusterId, isOwn } = this.#options;
    const program = fileURLToPath(new URL('./directory-child.js', import.meta.url));
    const child = fork(program, [path, clusterId, isOwn ? 'own' : 'shared'], {
      execArgv: [],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    this.#child = child;
    // It keeps no program running that has nothing else to do.
    child.unref();
    child.channel?.unref();
    child.on('error', (error) => this.#lost(child, error.message));
    child.on('exit', (code, signal) => {
      if (this.#stuck === child) this.#stuck = null;
      this.#lost(child, `its process ended (${signal ?? code})`);
    });
    child.on('message', (message) => {
      if (this.#child === child) this.#take(message);
    });
    return child;
  }

  #take(message: unknown): void {
    if ((message as { readonly ready?: boolean }).ready === true) {
      this.#isReady = true;
      this.#send();
      return;
    }
    const { id, answer } = message as { readonly id: number; readonly answer: unknown };
    this.#waiting.answer(id, parseAnswer(answer));
  }

  /** A question came to its time limit: the process hangs, and a new one is to be tried. */
  #giveUpChild(): void {
    const child = this.#child;
    // One that has not started yet, on a busy machine, is not held by the file system.
    if (child === null || !this.#isReady) return;
    this.#stuck = child;
    child.kill('SIGKILL');
    this.#lost(child, 'the call hangs');
  }

  #lost(child: ChildProcess, why: string): void {
    if (this.#child !== child) return;
    this.#child = null;
    this.#isReady = false;
    this.#waiting.giveUpAll(`${this.#options.path}: ${why}`);
  }
}
