/**
 * A process that writes to a file and syncs, over and over, until its input ends:
 * `node replica-writer.js FILE`. Each round writes 4 KiB that name the round at an offset of its
 * own, then fdatasync. When its input has ended it prints {rounds, error} and ends.
 */
import { fdatasyncSync, openSync, writeSync } from 'node:fs';

const path = process.argv[2] ?? '';
const block = 4096;
const slots = 256;
let rounds = 0;
let error: string | null = null;
let going = true;
process.stdin.on('end', () => (going = false)).resume();

const fd = openSync(path, 'w');
process.stdout.write('ready\n');

function round(): void {
  const data = Buffer.alloc(block, rounds % 256);
  data.writeUInt32LE(rounds, 0);
  if (writeSync(fd, data, 0, block, (rounds % slots) * block) !== block) throw new Error('short');
  fdatasyncSync(fd);
  rounds++;
}

function turn(): void {
  try {
    for (let i = 0; i < 10; i++) round();
  } catch (cause) {
    error = String(cause);
    going = false;
  }
  if (going) setImmediate(turn);
  else process.stdout.write(`${JSON.stringify({ rounds, error })}\n`, () => process.exit(0));
}
turn();
