/** The event journal as server-sent events: what was missed, then each record as it happens. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { HoldfastError } from '../errors.ts';
import type { Agent, EventRecord } from '../host/face.ts';
import { checked } from './check.ts';
import { StreamQuery } from './routes.ts';

/** Consoles and watchers at one time; each costs a connection and its queue. */
const maxStreams = 32;
/** A reader that lags by so much is cut off; it resumes with Last-Event-ID. */
const maxQueueBytes = 1024 * 1024;
/** Records sent of the past; a reader that missed more sees a `gap`. */
const maxBacklog = 1000;
const keepAliveMs = 15_000;

/** Serves GET /events/stream; counts its readers. */
export class EventStreams {
  readonly #agent: Agent;
  readonly #open = new Set<() => void>();
  #cutOff = 0;

  constructor(agent: Agent) {
    this.#agent = agent;
  }

  /** Open streams, and those closed because the reader was too slow. */
  stats(): { readonly open: number; readonly cutOff: number } {
    return { open: this.#open.size, cutOff: this.#cutOff };
  }

  closeAll(): void {
    for (const end of this.#open) end();
  }

  /**
   * `Last-Event-ID` (or `after`) is the sequence number of the last record seen. Without either
   * only new records come. A number beyond the journal's end is of an earlier journal: all comes.
   */
  serve(request: FastifyRequest, reply: FastifyReply): void {
    if (this.#open.size >= maxStreams) throw new HoldfastError('HF-API-008', { limit: maxStreams });
    const { after: asked, module = null } = checked(StreamQuery, request.query, 'query');
    const header = Number(request.headers['last-event-id'] ?? Number.NaN);
    const after = Number.isSafeInteger(header) && header >= 0 ? header : asked;
    reply.hijack();
    const { raw } = reply;
    raw.writeHead(200, {
      ...(reply.getHeaders() as Record<string, string>),
      'content-type': 'text/event-stream',
    });
    const newest = this.#agent.events({ after: 0, limit: 1, module: null }).at(-1)?.seq ?? 0;
    let last = after === undefined ? newest : after > newest ? 0 : after;
    const write = (text: string): void => {
      if (raw.destroyed) return;
      if (raw.writableLength > maxQueueBytes) {
        this.#cutOff += 1;
        raw.destroy();
      } else raw.write(text);
    };
    const show = (event: EventRecord): void => {
      if (event.seq <= last) return;
      last = event.seq;
      if (module !== null && event.module !== module) return;
      write(`id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`);
    };
    // One turn of the loop: no record can come between the past and the listener.
    write(': holdfast events\n\n');
    const past = this.#agent.events({ after: last, limit: maxBacklog, module: null });
    const first = past[0];
    if (first !== undefined && first.seq > last + 1) {
      write(`event: gap\ndata: ${JSON.stringify({ after: last, before: first.seq })}\n\n`);
    }
    for (const event of past) show(event);
    const stop = this.#agent.onEvent(show);
    const timer = setInterval(() => write(': alive\n\n'), keepAliveMs);
    const end = (): void => {
      raw.end();
    };
    this.#open.add(end);
    raw.once('close', () => {
      clearInterval(timer);
      stop();
      this.#open.delete(end);
    });
  }
}
