/** The nemesis's clients against a server that takes everything and says nothing. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

test('a client that gets no answer gives the record up and writes the next one', {
  timeout: 60_000,
}, async (t) => {
  const heard: string[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    createInterface({ input: socket }).on('line', (line) => {
      heard.push(line);
      server.emit('heard');
    });
  });
  // An address that no other run of this test has: the port is the application's.
  const address = `127.${(process.pid >> 16) & 255}.${(process.pid >> 8) & 255}.${process.pid & 255}`;
  server.listen(1080, address);
  await once(server, 'listening');
  t.after(() => server.close());
  // What can be collected is collected at once.
  const argv = ['--gc-global', '--gc-interval=200', join(import.meta.dirname, 'set-clients.js')];
  const clients = spawn(process.execPath, [...argv, address], { stdio: 'inherit' });
  t.after(() => clients.kill('SIGKILL'));
  while (!heard.includes('w 1.3')) await once(server, 'heard');
  assert.deepEqual(heard.filter((line) => line.startsWith('w 1.')).slice(0, 3), [
    'w 1.1',
    'w 1.2',
    'w 1.3',
  ]);
});
