/** Shows something again whenever the node's journal grows, until Ctrl-C. */
import { setTimeout as delay } from 'node:timers/promises';
import type { AgentClient } from '../api/client.ts';
import { HoldfastError } from '../errors.ts';
import { errorLines, exitCodes } from './exit.ts';
import type { Io } from './io.ts';

/** Many events come in one burst: a screen later than this is still now. */
const settleMs = 150;
/** Counters and ages change without events. */
const refreshMs = 2000;
/** Between attempts while the agent does not answer. */
const retryMs = 1000;

const clearScreen = '\u001b[H\u001b[J';

/**
 * Prints `screen()` now, after each event of the module (all events where null) and every two seconds.
 * On a terminal each takes the place of the former; elsewhere, and as JSON lines, it is printed only
 * when it differs. While the agent is away it says so and tries again.
 */
export async function watch(
  io: Io,
  client: AgentClient,
  module: string | null,
  screen: () => Promise<string>,
  json: boolean,
): Promise<void> {
  const interrupt = io.untilInterrupt();
  let last = '';
  const show = (text: string): void => {
    if (io.tty && !json) io.out(`${clearScreen}${text}`);
    else if (text !== last) io.out(json || last === '' ? text : `\n${text}`);
    last = text;
  };
  while (!interrupt.aborted) {
    const round = new AbortController();
    const stop = AbortSignal.any([interrupt, round.signal]);
    const wake = new Wake();
    const ring = (): void => wake.ring();
    interrupt.addEventListener('abort', ring);
    const listening = listen(client, module, stop, wake);
    try {
      show(await screen());
      while (!interrupt.aborted && !wake.ended) {
        await wake.wait(refreshMs);
        if (!interrupt.aborted) show(await screen());
      }
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.exit !== exitCodes.unavailable) throw error;
      if (!json) show(errorLines(error.toRecord()));
    } finally {
      interrupt.removeEventListener('abort', ring);
      round.abort();
      await listening;
    }
    await delay(retryMs, undefined, { signal: interrupt }).catch(() => undefined);
  }
}

/** Set by events, awaited by the screen. */
class Wake {
  ended = false;
  #set = false;
  #release: (() => void) | null = null;

  ring(): void {
    this.#set = true;
    this.#release?.();
  }

  /** Resolves a moment after the next ring (or the last, where none was waiting), or after timeoutMs. */
  async wait(timeoutMs: number): Promise<void> {
    if (!this.#set) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#release = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#release = null;
    }
    if (this.#set) await delay(settleMs);
    this.#set = false;
  }
}

async function listen(
  client: AgentClient,
  module: string | null,
  signal: AbortSignal,
  wake: Wake,
): Promise<void> {
  try {
    const [newest] = await client.events({ limit: 1 });
    for await (const _ of client.followEvents({ after: newest?.seq ?? 0, module, signal })) {
      wake.ring();
    }
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    // The next screen tells what is wrong.
  } finally {
    wake.ended = true;
    wake.ring();
  }
}
