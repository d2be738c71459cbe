/**
 * A register in an etcd cluster, by the JSON gateway of its v3 API: one key for each mirror, changed
 * by a transaction that compares the whole value. A question that one member leaves open is put to the
 * next: a transaction that was done meanwhile is then found done, and one that comes later still finds
 * another value than it compares with. So the later answer holds for both.
 */
import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent, type ClientRequest, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { z } from 'zod';
import type { ArbiterConfig } from '../config/index.ts';
import type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';
import { isEqual, parseRecord, type RegisterQuestion, whyNotAsked } from './record.ts';
import type { Register } from './register.ts';

export interface EtcdOptions {
  readonly config: Extract<ArbiterConfig, { readonly type: 'etcd' }>;
  readonly clusterId: string;
  readonly timeLimitMs: number;
}

/** The answer to a question about one key has a few hundred bytes. */
const maxAnswerBytes = 64 * 1024;
/** HTTP status codes that say that nothing was done: not understood, not allowed, not there. */
const refusals = new Set([400, 401, 403, 404, 405, 413]);

const KeyValues = z.object({ kvs: z.array(z.object({ value: z.string().optional() })).optional() });
/** What is not of etcd (a proxy's `{}`, say) must not count as an empty register. */
const Header = z.object({ cluster_id: z.string().min(1), revision: z.string().min(1) });
const RangeAnswer = KeyValues.extend({ header: Header });
const TxnAnswer = z.object({
  header: Header,
  succeeded: z.boolean().optional(),
  responses: z.array(z.object({ response_range: KeyValues.optional() })).optional(),
});

/** No answer; mayLand: the question has left all the same. */
class NoAnswer extends Error {
  readonly mayLand: boolean;
  constructor(why: string, mayLand: boolean) {
    super(why);
    this.mayLand = mayLand;
  }
}

/** The value under a key that is no record. */
class Damaged extends Error {}

export class EtcdRegister implements Register {
  readonly text: string;
  readonly #options: EtcdOptions;
  readonly #closing = new AbortController();
  #agent: HttpAgent | HttpsAgent | null = null;
  /** Index of the endpoint that answered last. */
  #good = 0;

  constructor(options: EtcdOptions) {
    this.#options = options;
    this.text = `etcd ${options.config.endpoints.join(' ')}`;
  }

  read(module: string): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'read', module });
  }

  swap(...[module, from, to]: Parameters<Register['swap']>): Promise<ArbiterAnswer> {
    return this.#ask({ kind: 'swap', module, from, to });
  }

  close(): Promise<void> {
    this.#closing.abort();
    this.#agent?.destroy();
    return Promise.resolve();
  }

  async #ask(question: RegisterQuestion): Promise<ArbiterAnswer> {
    const bad = this.#closing.signal.aborted ? 'it is closed' : whyNotAsked(question);
    if (bad !== null) return { outcome: 'unreachable', why: bad };
    const deadlineMs = performance.now() + this.#options.timeLimitMs;
    const { endpoints } = this.#options.config;
    const whys: string[] = [];
    let mayLand = false;
    for (let left = endpoints.length; left > 0; left -= 1) {
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0 || this.#closing.signal.aborted) break;
      const endpoint = endpoints[this.#good % endpoints.length] ?? '';
      try {
        return await this.#askOne(endpoint, question, leftMs / left);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        if (error instanceof Damaged) return { outcome: 'unreachable', why };
        mayLand ||= !(error instanceof NoAnswer) || error.mayLand;
        whys.push(`${endpoint}: ${why}`);
        this.#good = (this.#good + 1) % endpoints.length;
      }
    }
    const why = whys.join('; ').slice(0, 500);
    return { outcome: mayLand && question.kind === 'swap' ? 'unknown' : 'unreachable', why };
  }

  async #askOne(
    endpoint: string,
    question: RegisterQuestion,
    limitMs: number,
  ): Promise<ArbiterAnswer> {
    const { config, clusterId } = this.#options;
    const key = base64(`${config.prefix}${clusterId}/${question.module}`);
    if (question.kind === 'read') {
      const answer = await this.#post(endpoint, '/v3/kv/range', { key }, limitMs);
      return { outcome: 'record', record: recordIn(shaped(RangeAnswer, answer)) };
    }
    const { from, to } = question;
    const compare =
      from === null
        ? { key, target: 'CREATE', result: 'EQUAL', create_revision: '0' }
        : { key, target: 'VALUE', result: 'EQUAL', value: base64(textOf(from)) };
    const body = {
      compare: [compare],
      success: [{ request_put: { key, value: base64(textOf(to)) } }],
      failure: [{ request_range: { key } }],
    };
    const answer = shaped(TxnAnswer, await this.#post(endpoint, '/v3/kv/txn', body, limitMs));
    if (answer.succeeded === true) return { outcome: 'won' };
    const record = recordIn(answer.responses?.[0]?.response_range ?? {});
    // It was done when it was asked before.
    return isEqual(record, to) ? { outcome: 'won' } : { outcome: 'lost', record };
  }

  async #ready(isTls: boolean): Promise<HttpAgent | HttpsAgent> {
    if (this.#agent !== null) return this.#agent;
    const { caFile, certFile, keyFile } = this.#options.config;
    const read = (file: string | null) => (file === null ? undefined : readFile(file));
    const [ca, cert, key] = await Promise.all([read(caFile), read(certFile), read(keyFile)]);
    const keep = { keepAlive: true, maxSockets: 8 };
    this.#agent ??= isTls
      ? new HttpsAgent({
          ...keep,
          minVersion: 'TLSv1.2',
          ...(ca === undefined ? {} : { ca }),
          ...(cert === undefined || key === undefined ? {} : { cert, key }),
        })
      : new HttpAgent(keep);
    return this.#agent;
  }

  /** Rejects with NoAnswer. */
  async #post(endpoint: string, path: string, body: object, limitMs: number): Promise<unknown> {
    const isTls = endpoint.startsWith('https:');
    let agent: HttpAgent | HttpsAgent;
    try {
      agent = await this.#ready(isTls);
    } catch (error) {
      throw new NoAnswer(error instanceof Error ? error.message : String(error), false);
    }
    const bytes = Buffer.from(JSON.stringify(body));
    const make = isTls ? httpsRequest : httpRequest;
    return await new Promise((resolve, reject) => {
      let hasLeft = false;
      const fail = (why: string, mayLand: boolean): void => {
        clearTimeout(timer);
        this.#closing.signal.removeEventListener('abort', onClose);
        reject(new NoAnswer(why, mayLand));
        outgoing.destroy();
      };
      const onClose = (): void => fail('it was closed', hasLeft);
      const timer = setTimeout(
        () => fail(`no answer in ${Math.round(limitMs)} ms`, hasLeft),
        limitMs,
      );
      this.#closing.signal.addEventListener('abort', onClose);
      const outgoing = make(`${endpoint}${path}`, {
        method: 'POST',
        agent,
        headers: { 'content-type': 'application/json', 'content-length': bytes.length },
      });
      onLeaving(outgoing, isTls, () => {
        hasLeft = true;
      });
      outgoing.on('error', (error) => fail(error.message, hasLeft));
      outgoing.on('response', (incoming) => {
        const status = incoming.statusCode ?? 0;
        const chunks: Buffer[] = [];
        let size = 0;
        incoming.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > maxAnswerBytes) fail('the answer is too long', true);
          else chunks.push(chunk);
        });
        incoming.on('error', (error) => fail(error.message, true));
        incoming.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8');
          if (status !== 200) {
            fail(`${status} ${reasonIn(text)}`, !refusals.has(status));
            return;
          }
          clearTimeout(timer);
          this.#closing.signal.removeEventListener('abort', onClose);
          try {
            resolve(JSON.parse(text));
          } catch {
            fail('the answer is not JSON', true);
          }
        });
      });
      outgoing.end(bytes);
    });
  }
}

/** Calls back when bytes of a request may leave: before that, no connection is there to take them. */
function onLeaving(outgoing: ClientRequest, isTls: boolean, leaves: () => void): void {
  outgoing.once('socket', (socket: Socket) => {
    if (outgoing.reusedSocket || (!isTls && !socket.connecting)) leaves();
    else socket.once(isTls ? 'secureConnect' : 'connect', leaves);
  });
}

/** What a member answered, in the form that it must have. */
function shaped<T>(form: z.ZodType<T>, answer: unknown): T {
  const parsed = form.safeParse(answer);
  if (!parsed.success) throw new NoAnswer('the answer is not that of etcd', true);
  return parsed.data;
}

function recordIn({ kvs }: z.infer<typeof KeyValues>): ArbiterRecord | null {
  const [found] = kvs ?? [];
  if (found === undefined) return null;
  const text = Buffer.from(found.value ?? '', 'base64').toString('utf8');
  try {
    const record = parseRecord(JSON.parse(text));
    // A transaction compares texts: only our own are ever found equal.
    if (textOf(record) !== text) throw new Error('it is written in another way');
    return record;
  } catch {
    throw new Damaged('the value in etcd is no record of a mirror');
  }
}

/** A record as the value of its key: equal records are equal texts. */
function textOf({ incarnation, epoch, primary, inSync, leaseMs }: ArbiterRecord): string {
  return JSON.stringify({ incarnation, epoch, primary, inSync, leaseMs });
}

function reasonIn(text: string): string {
  try {
    const { message } = JSON.parse(text) as { readonly message?: unknown };
    return typeof message === 'string' ? message.slice(0, 200) : '';
  } catch {
    return text.slice(0, 100).trim();
  }
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');
