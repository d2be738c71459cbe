/**
 * Runs in a lab host: carries out calls of Link given as JSON lines on stdin, prints each result,
 * and each event, as a JSON line.
 */
import { createInterface } from 'node:readline';
import { HoldfastError } from '../../src/errors.ts';
import { openLink } from '../../src/native/link.ts';

const link = openLink();
const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);

async function carryOut(line: string): Promise<void> {
  const { verb, args } = JSON.parse(line) as { verb: string; args: unknown[] };
  if (verb === 'onEvents') {
    link.onEvents((event) => print({ event }));
    print({ result: null });
    return;
  }
  const method = (link as unknown as Record<string, (...args: unknown[]) => unknown>)[verb];
  try {
    const result: unknown = await method?.apply(link, args);
    print({ result: result ?? null });
  } catch (error) {
    print({ error: error instanceof HoldfastError ? error.toRecord() : String(error) });
  }
}

let queue = Promise.resolve();
createInterface({ input: process.stdin }).on('line', (line) => {
  queue = queue.then(() => carryOut(line));
});
