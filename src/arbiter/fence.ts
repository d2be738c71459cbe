/** `<arbiter type="fence">`: the register of two servers that can cut each other's power. */
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdir, open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import type { ArbiterConfig } from '../config/index.ts';
import type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';
import { powerOff, powerOn, readSwitch } from './fence-agent.ts';
import { FenceMember, type MemberState } from './fence-member.ts';
import { moduleForm, recordForm, type RegisterQuestion, whyNotAsked } from './record.ts';
import type { Register, RegisterPorts } from './register.ts';

type FenceConfig = Extract<ArbiterConfig, { type: 'fence' }>;

/** One question to the other server; within it, it asks back. */
const askMs = 1500;
/** A server of which the heartbeats are heard, but whose agent does not answer, is given this long. */
const agentMs = 10_000;
/** A power switch that failed is not tried again before. */
const againMs = 5000;
/** A server that was started speaks with the other one as soon as both are there. */
const meetMs = 1000;
const bootIdFile = '/proc/sys/kernel/random/boot_id';

const fileForm = z.strictObject({
  kind: z.literal('holdfast fence register'),
  version: z.literal(1),
  cluster: z.string(),
  crc32: z.int(),
  state: z.strictObject({ solo: z.boolean(), records: z.record(moduleForm, recordForm) }),
});

export class FenceRegister implements Register {
  readonly text: string;
  readonly limitMs: number;
  readonly #config: FenceConfig;
  readonly #ports: RegisterPorts;
  readonly #peer: number;
  readonly #file: string;
  readonly #marker: string;
  #member: FenceMember | null = null;
  #failed: { readonly atMs: number; readonly why: string } | null = null;
  #isClosed = false;
  readonly #meeting: NodeJS.Timeout;

  constructor(config: FenceConfig, ports: RegisterPorts) {
    this.#config = config;
    this.#ports = ports;
    this.#peer = config.nodes[0] === ports.me ? config.nodes[1] : config.nodes[0];
    this.#file = join(ports.stateFolder, 'fence-register.json');
    this.#marker = join(ports.runFolder, 'fence-spoken');
    this.limitMs = config.delayMs + config.timeoutMs;
    this.text = `fencing of ${ports.nameOf(this.#peer)}`;
    this.#meeting = setInterval(() => this.#meet(), meetMs);
    this.#meeting.unref();
  }

  read(module: string): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'read', module }, this.#ports.timeLimitMs);
  }

  swap(module: string, from: ArbiterRecord | null, to: ArbiterRecord): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'swap', module, from, to }, this.limitMs);
  }

  /** @see Register.serve */
  async serve(message: unknown): Promise<unknown> {
    if (this.#isClosed) return { outcome: 'unreachable', why: 'it is closed' };
    return this.#open().serve(message, performance.now() + askMs);
  }

  close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#meeting);
    return Promise.resolve();
  }

  /** A file that cannot be read is said where somebody asks. */
  #meet(): void {
    try {
      void this.#open().meet(performance.now() + meetMs);
    } catch {
      return;
    }
  }

  async #ask(question: RegisterQuestion, limitMs: number): Promise<ArbiterAnswer> {
    const bad = this.#isClosed ? 'it is closed' : whyNotAsked(question);
    if (bad !== null) return { outcome: 'unreachable', why: bad };
    let member: FenceMember;
    try {
      member = this.#open();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      return { outcome: 'unreachable', why };
    }
    const answered = member.answer(question, performance.now() + limitMs);
    // A disk that hangs holds nobody up.
    const cancel = new AbortController();
    const outcome = question.kind === 'read' ? 'unreachable' : 'unknown';
    const late = pause(limitMs + againMs, null, { signal: cancel.signal })
      .catch(() => null)
      .then((): ArbiterAnswer => ({ outcome, why: `no answer within ${limitMs} ms` }));
    const answer = await Promise.race([answered, late]);
    cancel.abort();
    return answer;
  }

  /** Throws where the file cannot be read: it is never guessed. */
  #open(): FenceMember {
    if (this.#member !== null) return this.#member;
    const { me } = this.#ports;
    this.#member = new FenceMember(this.#load(), {
      isHead: me < this.#peer,
      save: (state) => this.#save(state),
      ask: (question) => this.#ports.ask(this.#peer, question, askMs),
      fence: () => this.#fence(),
      fenced: () => void this.#switchOn(),
      whyNotYet: (isIncumbent, waitedMs) => {
        if (this.#isClosed) return 'it is closed';
        const isSilent = this.#ports.isSilent(this.#peer);
        const dueMs = (isIncumbent ? 0 : this.#config.delayMs) + (isSilent ? 0 : agentMs);
        const left = Math.ceil((dueMs - waitedMs) / 1000);
        return waitedMs >= dueMs ? null : `${this.#name} is fenced in ${left} s`;
      },
      spoke: { get: () => this.#spoke(), set: () => this.#note() },
      nowMs: () => performance.now(),
      pause: (ms) => pause(ms),
    });
    return this.#member;
  }

  get #name(): string {
    return this.#ports.nameOf(this.#peer);
  }

  get #switchFile(): string {
    return join(this.#config.path, `${this.#name}.conf`);
  }

  async #fence(): Promise<string | null> {
    const failed = this.#failed;
    if (failed !== null && performance.now() - failed.atMs < againMs) return failed.why;
    let why: string | null;
    try {
      why = await powerOff(readSwitch(this.#switchFile), this.#config.timeoutMs);
    } catch (error) {
      why = error instanceof Error ? error.message : String(error);
    }
    if (why === null) {
      this.#failed = null;
      return null;
    }
    const said = `${this.#name} is not confirmed off: ${why}`.slice(0, 900);
    this.#failed = { atMs: performance.now(), why: said };
    return said;
  }

  /** It may come back: it does nothing before it has spoken with this server. */
  async #switchOn(): Promise<void> {
    try {
      await powerOn(readSwitch(this.#switchFile), this.#config.timeoutMs);
    } catch {
      // It was read a moment ago. Who is not switched on again is switched on by hand.
    }
  }

  #load(): MemberState {
    let text: string;
    try {
      text = readFileSync(this.#file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { solo: false, records: {} };
      throw error;
    }
    const bad = (reason: string): Error => new Error(`${this.#file} ${reason}`);
    let file: z.infer<typeof fileForm>;
    try {
      file = fileForm.parse(JSON.parse(text));
    } catch {
      throw bad('is damaged: remove it on this server alone, and it is copied from the other one');
    }
    if (file.crc32 !== crc32(JSON.stringify(file.state))) throw bad('has a wrong checksum');
    // The disk of another cluster's server.
    if (file.cluster !== this.#ports.clusterId) return { solo: false, records: {} };
    return file.state;
  }

  async #save(state: MemberState): Promise<void> {
    // Another configuration may have another register at the same file.
    if (this.#isClosed) throw new Error('it is closed');
    const text = JSON.stringify({
      kind: 'holdfast fence register',
      version: 1,
      cluster: this.#ports.clusterId,
      crc32: crc32(JSON.stringify(state)),
      state,
    });
    const folder = dirname(this.#file);
    await mkdir(folder, { recursive: true });
    const temporary = `${this.#file}.tmp`;
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.#file);
    const handle = await open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  /** In /run, and of this boot, whatever clears /run. */
  #spoke(): boolean {
    try {
      return readFileSync(this.#marker, 'utf8') === readFileSync(bootIdFile, 'utf8');
    } catch {
      return false;
    }
  }

  #note(): void {
    if (this.#spoke()) return;
    try {
      writeFileSync(this.#marker, readFileSync(bootIdFile, 'utf8'), { mode: 0o600 });
    } catch {
      // Without it an agent that starts again waits for the other server: the safe side.
    }
  }
}
