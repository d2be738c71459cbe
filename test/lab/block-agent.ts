/** Blocks the JavaScript of an agent, as an endless loop or a long garbage collection would. */
import assert from 'node:assert/strict';
import type { Host } from '../../src/lab/host.ts';

/** Says "connected", then at a line of its input makes the process wait for BLOCK_MS. */
const blocker = `
  const list = async () => {
    for (;;) {
      try { return await (await fetch('http://127.0.0.1:9229/json')).json(); }
      catch { await new Promise((resolve) => setTimeout(resolve, 20)); }
    }
  };
  const socket = new WebSocket((await list())[0].webSocketDebuggerUrl);
  await new Promise((resolve) => { socket.onopen = resolve; });
  console.log('connected');
  await new Promise((resolve) => process.stdin.once('data', resolve));
  const expression =
    'Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ' + process.env.BLOCK_MS + ')';
  socket.onmessage = () => process.exit(0);
  socket.send(JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression } }));
`;

/** What it gives back begins the block, and resolves at its end. */
export async function blockAgent(host: Host, ms: number): Promise<() => Promise<void>> {
  // Node opens its inspector at this signal; there it is told to wait for nothing.
  assert.equal(host.kill(/^\S*node \S*agent\.js/, 'SIGUSR1'), 1);
  const block = await host.spawn([process.execPath, '--experimental-websocket', '-e', blocker], {
    env: { BLOCK_MS: String(ms) },
  });
  await new Promise((resolve) => block.child.stdout?.once('data', resolve));
  return async () => {
    block.child.stdin?.write('go\n');
    assert.equal(await block.ended, 0);
  };
}
