import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectTcp, createServer as createTcpServer, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import { type NodeAddress, tlsIdentity } from '../../src/api/dial.ts';
import {
  decodeFrame,
  encodeFrame,
  FrameReader,
  hostCodec,
  maxFrameBytes,
} from '../../src/api/frames.ts';
import { openPeers, PeerLinks } from '../../src/api/peers.ts';
import { makeCa, makeRequest, type NodeKeys, signRequest } from '../../src/api/pki.ts';
import { freePort } from './fixture.ts';
import { fc } from '../support/random.ts';

const secret = new Uint8Array(32);

/** Keys of nodes of one new CA. */
async function makeKeys(names: readonly string[]): Promise<NodeKeys[]> {
  const ca = await makeCa('test');
  return await Promise.all(
    names.map(async (node) => {
      const { key, request } = await makeRequest(node);
      const cert = await signRequest(ca, request, node, ['127.0.0.1']);
      return { node, caCert: ca.cert, cert, key, secret };
    }),
  );
}

function address(id: number, name: string, ...addrs: string[]): NodeAddress {
  return { id, name, addrs };
}

/** Resolves when a link's connection state for `node` becomes `want`. */
function connection(links: PeerLinks, node: number, want: boolean): Promise<void> {
  return new Promise((resolve) => {
    if (links.connected(node) === want) resolve();
    links.onConnection((at, isConnected) => {
      if (at === node && isConnected === want) resolve();
    });
  });
}

function nextMessage(links: PeerLinks): Promise<[number, unknown]> {
  return new Promise((resolve) => {
    links.onMessage((from, message) => resolve([from, message]));
  });
}

/** Resolves when the counter has reached `want`; a bound on turns makes a failure a failure. */
async function counted(links: PeerLinks, name: string, want: number): Promise<void> {
  for (let turn = 0; turn < 2000; turn += 1) {
    if ((links.stats()[name] ?? 0) >= want) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail(`${name} is ${links.stats()[name]}, not ${want}`);
}

/** Resolves when the connection is gone, with or without an error. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.once('close', () => resolve());
  });
}

describe('frames', () => {
  test('come out as they went in, however they are cut', () => {
    const messages = [{ a: 1 }, { table: new Uint8Array([0, 255, 7]), epoch: 12n }, 'ä€', null];
    const bytes = Buffer.concat(
      messages.map((message) => encodeFrame({ kind: 'm', message }, hostCodec) ?? Buffer.alloc(0)),
    );
    for (const size of [1, 2, 3, 5, 7, bytes.length]) {
      const reader = new FrameReader();
      const seen: unknown[] = [];
      for (let at = 0; at < bytes.length; at += size) {
        for (const text of reader.push(bytes.subarray(at, at + size))) {
          const frame = decodeFrame(text, hostCodec);
          seen.push(frame.kind === 'm' ? frame.message : frame);
        }
      }
      assert.deepEqual(seen, messages);
      assert.equal(reader.partial, false);
    }
  });

  test('are the only thing that any bytes can become, and never more than was sent', () => {
    const byte = fc.integer({ min: 0, max: 255 });
    // A small length in front makes whole frames likely; the text is JSON-like or anything.
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.json({ maxDepth: 2 }).map((text) => {
        const bytes = Buffer.alloc(4 + Buffer.byteLength(text));
        bytes.writeUInt32BE(bytes.length - 4);
        bytes.write(text, 4);
        return new Uint8Array(bytes);
      }),
      byte.map((n) => new Uint8Array([0, 0, 0, n])),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const reader = new FrameReader();
        let given = 0;
        let taken = 0;
        try {
          for (const bytes of pieces) {
            given += bytes.length;
            for (const text of reader.push(Buffer.from(bytes))) {
              taken += 4 + Buffer.byteLength(text);
              assert.ok(['m', 'p', 'q'].includes(decodeFrame(text, hostCodec).kind));
            }
          }
        } catch (error) {
          assert.ok(!(error instanceof assert.AssertionError), String(error));
        }
        assert.ok(taken <= given);
      }),
      { numRuns: 2000 },
    );
  });

  test('of more than 1 MiB are not made', () => {
    const fits = 'x'.repeat(maxFrameBytes - '["m",""]'.length);
    assert.equal(encodeFrame({ kind: 'm', message: fits }, hostCodec)?.length, maxFrameBytes + 4);
    assert.equal(encodeFrame({ kind: 'm', message: `${fits}x` }, hostCodec), null);
  });

  for (const [what, bytes] of [
    ['zero', [0, 0, 0, 0]],
    ['one too many', [0, 0x10, 0, 1]],
    ['the most there can be', [255, 255, 255, 255]],
    ['no UTF-8', [0, 0, 0, 2, 0xc3, 0x28]],
  ] as const) {
    test(`a length or text that is ${what} is refused`, () => {
      assert.throws(() => [...new FrameReader().push(Buffer.from(bytes))]);
    });
  }

  for (const text of [
    '',
    '{}',
    '[]',
    '["m",',
    '["m",}]',
    '["x",1]',
    '["p",1]',
    '["p","a",1]',
    'null',
  ]) {
    test(`the text ${JSON.stringify(text)} is refused`, () => {
      assert.throws(() => decodeFrame(text, hostCodec));
    });
  }
});

describe('peers', () => {
  let port = 0;
  let keys: NodeKeys[];
  let foreign: NodeKeys[];
  const open: PeerLinks[] = [];
  before(async () => {
    port = await freePort();
    keys = await makeKeys(['a', 'b', 'c']);
    foreign = await makeKeys(['a', 'b']);
  });
  after(async () => {
    await Promise.all(open.map((links) => links.close()));
  });

  /** Opens node `id` of the keys on its loopback address. */
  async function node(
    id: number,
    peers: readonly NodeAddress[],
    over: { signature?: () => string; keys?: NodeKeys; addr?: string } = {},
  ): Promise<PeerLinks> {
    const own = over.keys ?? keys[id];
    assert.ok(own !== undefined);
    const links = await openPeers({
      keys: own,
      peers,
      port,
      listenAddr: over.addr ?? `127.0.1.${id + 1}`,
      signature: over.signature ?? (() => 'sig'),
    });
    open.push(links);
    return links;
  }
  const a = address(0, 'a', '127.0.1.1');
  const b = address(1, 'b', '127.0.1.2');
  const c = address(2, 'c', '127.0.1.3');

  async function end(...links: PeerLinks[]): Promise<void> {
    await Promise.all(links.map((one) => one.close()));
    for (const one of links) open.splice(open.indexOf(one), 1);
  }

  /** A TLS client of the test's own towards `links` on addr; resolves when the server took it. */
  async function client(own: NodeKeys, alpn = 'holdfast-peer/1'): Promise<TLSSocket> {
    const socket = connect({
      host: '127.0.1.1',
      port,
      ...tlsIdentity(own),
      ALPNProtocols: [alpn],
      checkServerIdentity: () => undefined,
    });
    socket.on('error', () => undefined);
    await once(socket, 'secureConnect');
    return socket;
  }

  function frame(text: string): Buffer {
    const bytes = Buffer.alloc(4 + Buffer.byteLength(text));
    bytes.writeUInt32BE(bytes.length - 4);
    bytes.write(text, 4);
    return bytes;
  }

  test('carry messages both ways, in order', async () => {
    const left = await node(0, [b]);
    assert.equal(left.send(1, 'too early'), false);
    assert.equal(left.stats()['dropped_not_connected'], 1);
    const right = await node(1, [a]);
    await Promise.all([connection(left, 1, true), connection(right, 0, true)]);
    const seen: unknown[] = [];
    const done = new Promise<void>((resolve) => {
      right.onMessage((from, message) => {
        assert.equal(from, 0);
        if (seen.push(message) === 1000) resolve();
      });
    });
    for (let n = 0; n < 1000; n += 1) assert.ok(left.send(1, { n, bytes: new Uint8Array([n]) }));
    await done;
    assert.deepEqual(
      seen,
      Array.from({ length: 1000 }, (_, n) => ({ n, bytes: new Uint8Array([n]) })),
    );
    const back = nextMessage(left);
    assert.ok(right.send(0, 'answer'));
    assert.deepEqual(await back, [1, 'answer']);
    await end(left, right);
  });

  test('dial again after the other side was away, and fall back to a second address', async () => {
    const left = await node(0, [address(1, 'b', '127.0.1.2', '127.0.1.12')]);
    let right = await node(1, [a]);
    await connection(left, 1, true);
    const lost = connection(left, 1, false);
    await end(right);
    await lost;
    assert.equal(left.send(1, 'lost'), false);
    right = await node(1, [a], { addr: '127.0.1.12' });
    await connection(left, 1, true);
    await connection(right, 0, true);
    const got = nextMessage(right);
    assert.ok(left.send(1, 'again'));
    assert.deepEqual(await got, [0, 'again']);
    assert.equal(left.stats()['connects'], 2);
    await end(left, right);
  });

  test('leave an address on which heartbeats are silent', async () => {
    const left = await node(0, [address(1, 'b', '127.0.1.2', '127.0.1.12')]);
    // Two ends of one node, which itself dials nobody that exists.
    const nobody = [address(0, 'a', '127.0.1.99')];
    const right = await node(1, nobody);
    await connection(left, 1, true);
    const second = await node(1, nobody, { addr: '127.0.1.12' });
    const lost = connection(left, 1, false);
    left.setPath(1, '127.0.1.2', false);
    await lost;
    const got = nextMessage(second);
    await connection(left, 1, true);
    assert.ok(left.send(1, 'other way'));
    assert.deepEqual(await got, [0, 'other way']);
    // With both silent there is nothing better: the connection stays.
    left.setPath(1, '127.0.1.12', false);
    assert.equal(left.connected(1), true);
    // One is heard again: it is the better one now.
    const back = nextMessage(right);
    left.setPath(1, '127.0.1.2', true);
    assert.equal(left.connected(1), false);
    await connection(left, 1, true);
    assert.ok(left.send(1, 'back'));
    assert.deepEqual(await back, [0, 'back']);
    await end(left, right, second);
  });

  test('kick dials at once a peer that waits for its turn, or whose attempt hangs', async (t) => {
    // With timers that never fire only kick can dial again.
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const left = await node(0, [b]);
    while (left.stats()['dial_failed'] === 0) await new Promise((go) => setImmediate(go));
    let taken = 0;
    const mute = createTcpServer((socket) => {
      taken += 1;
      socket.on('error', () => undefined).resume();
    });
    mute.listen(port, '127.0.1.2');
    await once(mute, 'listening');
    left.kick(1);
    // The port is open, but nobody speaks TLS there.
    while (taken < 3) {
      await new Promise((go) => setImmediate(go));
      left.kick(1);
    }
    assert.equal(left.stats()['connects'], 0);
    const isClosed = once(mute, 'close');
    mute.close();
    await end(left);
    await isClosed;
  });

  test('tell their cluster signature at once and after each change', async () => {
    let signature = 'old';
    const left = await node(0, [b]);
    const seen: string[] = [];
    const both = new Promise<void>((resolve) => {
      left.onSignature((peer, text) => {
        assert.equal(peer.name, 'b');
        if (seen.push(text) === 2) resolve();
      });
    });
    const right = await node(1, [a], { signature: () => signature });
    await connection(left, 1, true);
    assert.equal(left.signatureOf(1), 'old');
    signature = 'new';
    await both;
    assert.deepEqual(seen, ['old', 'new']);
    await end(left, right);
  });

  test('setPeers cuts off who is gone and dials who is new', async () => {
    const left = await node(0, [b]);
    const right = await node(1, [a]);
    const third = await node(2, [a]);
    await Promise.all([connection(left, 1, true), connection(right, 0, true)]);
    await counted(left, 'refused_unknown', 1);
    const gone = connection(left, 1, false);
    const cut = connection(right, 0, false);
    left.setPeers([c]);
    await Promise.all([gone, cut]);
    await Promise.all([connection(left, 2, true), connection(third, 0, true)]);
    assert.equal(left.send(1, 'x'), false);
    assert.equal(left.send(2, 'x'), true);
    await end(left, right, third);
  });

  test('a full queue refuses and counts', async () => {
    const left = await node(0, [b]);
    const right = await node(1, [a]);
    await connection(left, 1, true);
    const large = 'x'.repeat(900_000);
    // All in one turn of the loop: nothing can leave meanwhile but what the kernel takes.
    let refused = 0;
    for (let n = 0; n < 40; n += 1) if (!left.send(1, large)) refused += 1;
    assert.ok(refused > 0);
    assert.equal(left.stats()['dropped_queue_full'], refused);
    assert.ok((left.stats()['queued_bytes'] ?? 0) <= 4 * 1024 * 1024);
    assert.equal(left.send(1, 'x'.repeat(maxFrameBytes)), false);
    assert.equal(left.stats()['dropped_oversize'], 1);
    await end(left, right);
  });

  test('one incoming connection per peer: the newest wins', async () => {
    const left = await node(0, [b]);
    const [, own] = keys;
    assert.ok(own !== undefined);
    const older = await client(own);
    older.write(frame('["m",1]'));
    assert.deepEqual(await nextMessage(left), [1, 1]);
    const gone = closed(older);
    const newer = await client(own);
    await gone;
    assert.equal(left.stats()['replaced'], 1);
    newer.write(frame('["m",2]'));
    assert.deepEqual(await nextMessage(left), [1, 2]);
    newer.destroy();
    await end(left);
  });

  describe('refuse and count', () => {
    let left: PeerLinks;
    const messages: unknown[] = [];
    before(async () => {
      left = await node(0, [b]);
      left.onMessage((_from, message) => messages.push(message));
    });
    after(() => end(left));

    for (const [what, bytes] of [
      ['garbage', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
      ['an oversized length', Buffer.from([0, 0x10, 0, 1, 0x5b])],
      ['an empty frame', Buffer.from([0, 0, 0, 0])],
      ['bad JSON', frame('["m",{"a":]')],
      ['an unknown kind', frame('["z",1]')],
      ['a pong that nobody asked for', frame('["q","sig"]')],
      ['a damaged bigint', frame('["m",{"$n":"seven"}]')],
    ] as const) {
      test(what, async () => {
        const [, own] = keys;
        assert.ok(own !== undefined);
        const count = left.stats()['refused_frame'] ?? 0;
        const socket = await client(own);
        socket.write(bytes);
        await closed(socket);
        assert.equal(left.stats()['refused_frame'], count + 1);
        assert.deepEqual(messages, []);
      });
    }

    test('a truncated frame', async () => {
      const [, own] = keys;
      assert.ok(own !== undefined);
      const socket = await client(own);
      socket.end(frame('["m","whole"]').subarray(0, 9));
      await counted(left, 'truncated', 1);
      assert.deepEqual(messages, []);
    });

    test('a certificate of another CA, none, an older TLS, and no TLS', async () => {
      const [, own] = keys;
      const [, stranger] = foreign;
      assert.ok(own !== undefined && stranger !== undefined);
      for (const options of [
        { ...tlsIdentity(stranger) },
        { ca: own.caCert },
        { ...tlsIdentity(own), minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' },
      ] as const) {
        const count = left.stats()['refused_handshake'] ?? 0;
        const socket = connect({
          host: '127.0.1.1',
          port,
          rejectUnauthorized: false,
          ALPNProtocols: ['holdfast-peer/1'],
          ...options,
        });
        socket.on('error', () => undefined);
        socket.once('secureConnect', () => socket.write(frame('["m","forged"]')));
        await closed(socket);
        await counted(left, 'refused_handshake', count + 1);
      }
      const count = left.stats()['refused_handshake'] ?? 0;
      const plain = connectTcp(port, '127.0.1.1');
      plain.on('error', () => undefined);
      plain.resume();
      plain.write(frame('["m","forged"]'));
      await closed(plain);
      await counted(left, 'refused_handshake', count + 1);
      assert.deepEqual(messages, []);
    });

    test('a node of the CA that cluster.xml does not name, and another protocol', async () => {
      const [, own, third] = keys;
      assert.ok(own !== undefined && third !== undefined);
      for (const [count, make] of [
        [1, () => client(third)],
        [2, () => client(third)],
      ] as const) {
        const socket = await make();
        socket.write(frame('["m","forged"]'));
        await closed(socket);
        await counted(left, 'refused_unknown', count);
      }
      await assert.rejects(client(own, 'other/9'));
      assert.deepEqual(messages, []);
    });
  });

  test('do not talk to a node that answers at the address of another', async () => {
    // c answers where b should be: same CA, wrong name.
    const left = await node(0, [b]);
    const wrong = await node(2, [a], { addr: '127.0.1.2' });
    await counted(left, 'dial_failed', 3);
    assert.equal(left.connected(1), false);
    assert.equal(left.stats()['connects'], 0);
    await end(left, wrong);
  });
});
