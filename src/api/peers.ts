/**
 * Messages between agents over mutual TLS 1.3. Each node dials every other one and sends on the
 * connection that it opened; on connections that it accepted it only receives (and answers pings).
 * So there is no question which of two connections counts, and a path that works one way only
 * shows as what it is.
 *
 * Delivery is in order and at most once: what was queued when a connection broke is lost. The
 * senders' protocols repeat what matters.
 */
import type { Socket } from 'node:net';
import {
  connect,
  createSecureContext,
  createServer,
  type SecureContext,
  type Server,
  type TLSSocket,
} from 'node:tls';
import type { PeerChannel } from '../host/face.ts';
import { HoldfastError } from '../errors.ts';
import { certificateNode, identityOf, type NodeAddress, peerPort, tlsIdentity } from './dial.ts';
import {
  type Codec,
  decodeFrame,
  encodeFrame,
  type Frame,
  FrameReader,
  hostCodec,
} from './frames.ts';
import type { NodeKeys } from './pki.ts';

/** Bytes waiting in one connection before messages are refused; a view has some 10 KiB. */
const maxQueueBytes = 4 * 1024 * 1024;
/** A dead path shows after this silence; heartbeats notice a dead peer long before. */
const silenceMs = 3000;
const pingMs = 1000;
/** From dialling to the peer's first answer; a LAN takes 5 ms, a server under load some 100. */
const attemptMs = 2000;
/** An attempt of this age is worth a new one when the peer's heartbeats return. */
const hungMs = 200;
const handshakeMs = 5000;
/** Waits before attempts; the last one repeats. Jitter takes off up to a quarter. */
const backoffMs: readonly number[] = [20, 50, 100, 200, 500, 1000];
/** Connections accepted at one time: each peer twice, and room for strangers in handshake. */
const maxConnections = 256;
const protocol = 'holdfast-peer/1';

export interface PeerOptions {
  readonly keys: NodeKeys;
  readonly peers: readonly NodeAddress[];
  /** Signature of the cluster configuration in force; sent with each ping. */
  readonly signature: () => string;
  readonly port?: number;
  /** Address to accept connections on; default all. */
  readonly listenAddr?: string;
  readonly codec?: Codec;
}

const counterNames = [
  'sent',
  'received',
  'dropped_not_connected',
  'dropped_queue_full',
  'dropped_oversize',
  'dial_failed',
  'connects',
  'disconnects',
  'silent_closed',
  'refused_handshake',
  'refused_unknown',
  'refused_frame',
  'truncated',
  'replaced',
] as const;
type Counter = (typeof counterNames)[number];

/** The connection that this node opens to one other; it alone carries what this node sends. */
class Link {
  peer: NodeAddress;
  socket: TLSSocket | null = null;
  /** True once the peer has answered on this connection, so it has accepted us. */
  open = false;
  attempt = 0;
  /** Which of the peer's addresses is next, and which is in use. */
  turn = 0;
  addr: string | null = null;
  /** Addresses on networks where the peer is not heard now; dialled last. */
  readonly silent = new Set<string>();
  retry: NodeJS.Timeout | null = null;
  /** When the peer last answered on this connection, or when it was dialled. */
  heardMs = 0;
  signature: string | null = null;

  constructor(peer: NodeAddress) {
    this.peer = peer;
  }
}

/** See the file's head. Made by openPeers. */
export class PeerLinks implements PeerChannel {
  readonly #options: PeerOptions;
  readonly #codec: Codec;
  readonly #port: number;
  readonly #context: SecureContext;
  readonly #links = new Map<number, Link>();
  readonly #incoming = new Map<number, TLSSocket>();
  /** All accepted connections, those in handshake too. */
  readonly #accepted = new Set<Socket>();
  readonly #messageListeners: ((from: number, message: unknown) => void)[] = [];
  readonly #connectionListeners: ((node: number, connected: boolean) => void)[] = [];
  readonly #signatureListeners: ((node: NodeAddress, signature: string) => void)[] = [];
  readonly #counters = Object.fromEntries(counterNames.map((name) => [name, 0])) as Record<
    Counter,
    number
  >;
  #server: Server | null = null;
  #timer: NodeJS.Timeout | null = null;
  #tickedMs = performance.now();
  #closed = false;

  constructor(options: PeerOptions) {
    this.#options = options;
    this.#codec = options.codec ?? hostCodec;
    this.#port = options.port ?? peerPort;
    this.#context = createSecureContext(tlsIdentity(options.keys));
  }

  /** Opens the port, then dials the peers. HF-PEER-002. */
  async start(): Promise<void> {
    const server = createServer({
      ...tlsIdentity(this.#options.keys),
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: handshakeMs,
      ALPNProtocols: [protocol],
      noDelay: true,
      keepAlive: true,
    });
    server.maxConnections = maxConnections;
    server.on('connection', (socket: Socket) => {
      this.#accepted.add(socket);
      socket.once('close', () => this.#accepted.delete(socket));
    });
    server.on('tlsClientError', () => this.#count('refused_handshake'));
    server.on('secureConnection', (socket) => this.#accept(socket));
    this.#server = server;
    const { listenAddr } = this.#options;
    try {
      if (listenAddr !== undefined) await listen(server, this.#port, listenAddr);
      else {
        // A kernel without IPv6 has no "::".
        await listen(server, this.#port, '::').catch((cause: NodeJS.ErrnoException) => {
          if (cause.code !== 'EAFNOSUPPORT' && cause.code !== 'EADDRNOTAVAIL') throw cause;
          return listen(server, this.#port, '0.0.0.0');
        });
      }
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new HoldfastError('HF-PEER-002', { port: this.#port, reason }, null, cause);
    }
    server.on('error', () => this.#count('refused_handshake'));
    this.#timer = setInterval(() => this.#tick(), pingMs);
    this.setPeers(this.#options.peers);
  }

  /** The peers from now on: new ones are dialled, gone and changed ones are cut off. */
  setPeers(peers: readonly NodeAddress[]): void {
    const wanted = new Map(peers.map((peer) => [peer.id, peer]));
    for (const [id, link] of this.#links) {
      const next = wanted.get(id);
      if (next !== undefined && next.name === link.peer.name) {
        const isMoved = next.addrs.join() !== link.peer.addrs.join();
        link.peer = next;
        if (isMoved) this.#redial(link);
      } else {
        this.#links.delete(id);
        this.#end(link);
        this.#incoming.get(id)?.destroy();
        this.#incoming.delete(id);
      }
    }
    for (const peer of peers) {
      if (this.#links.has(peer.id)) continue;
      const link = new Link(peer);
      this.#links.set(peer.id, link);
      this.#dial(link);
    }
  }

  send(node: number, message: unknown): boolean {
    const link = this.#links.get(node);
    if (link === undefined || !link.open) {
      this.#count('dropped_not_connected');
      return false;
    }
    return this.#write(link, { kind: 'm', message });
  }

  onMessage(listener: (from: number, message: unknown) => void): void {
    this.#messageListeners.push(listener);
  }

  onConnection(listener: (node: number, connected: boolean) => void): void {
    this.#connectionListeners.push(listener);
  }

  /** Called with a peer's cluster signature when it connects and whenever it changes. */
  onSignature(listener: (node: NodeAddress, signature: string) => void): void {
    this.#signatureListeners.push(listener);
  }

  connected(node: number): boolean {
    return this.#links.get(node)?.open ?? false;
  }

  /** The peer's cluster signature as it last said; null while unknown. */
  signatureOf(node: number): string | null {
    return this.#links.get(node)?.signature ?? null;
  }

  kick(node: number): void {
    const link = this.#links.get(node);
    if (link === undefined) return;
    const ageMs = performance.now() - link.heardMs;
    if (link.socket === null || ageMs > (link.open ? 1.5 * pingMs : hungMs)) this.#redial(link);
  }

  setPath(node: number, addr: string, up: boolean): void {
    const link = this.#links.get(node);
    if (link === undefined) return;
    const { silent } = link;
    if (up) silent.delete(addr);
    else silent.add(addr);
    const isBetter = link.peer.addrs.some((other) => !silent.has(other));
    if (link.addr !== null && silent.has(link.addr) && isBetter) this.#redial(link);
  }

  stats(): Readonly<Record<string, number>> {
    let connected = 0;
    let queuedBytes = 0;
    for (const link of this.#links.values()) {
      if (link.open) connected += 1;
      queuedBytes += link.socket?.writableLength ?? 0;
    }
    return {
      ...this.#counters,
      connected,
      incoming: this.#incoming.size,
      queued_bytes: queuedBytes,
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    for (const link of this.#links.values()) this.#end(link);
    this.#links.clear();
    for (const socket of this.#accepted) socket.destroy();
    const server = this.#server;
    this.#server = null;
    if (server?.listening === true) await new Promise<void>((done) => server.close(() => done()));
  }

  // ---- outgoing

  #dial(link: Link): void {
    if (link.retry !== null) clearTimeout(link.retry);
    link.retry = null;
    link.socket?.destroy();
    const { peer, silent } = link;
    const addrs = peer.addrs.toSorted((a, b) => Number(silent.has(a)) - Number(silent.has(b)));
    const host = addrs[link.turn % addrs.length];
    link.turn += 1;
    if (host === undefined) return;
    link.addr = host;
    link.heardMs = performance.now();
    const socket = connect({
      host,
      port: this.#port,
      secureContext: this.#context,
      ALPNProtocols: [protocol],
      checkServerIdentity: identityOf(peer.name),
    });
    link.socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, silenceMs);
    const timer = setTimeout(() => socket.destroy(), attemptMs);
    socket.once('secureConnect', () => {
      if (socket.alpnProtocol !== protocol) socket.destroy();
      else this.#write(link, { kind: 'p', signature: this.#options.signature() });
    });
    const reader = new FrameReader();
    socket.on('data', (chunk: Buffer) => {
      this.#read(socket, reader, chunk, (frame) => {
        if (frame.kind !== 'q') return false;
        clearTimeout(timer);
        this.#heard(link, frame.signature);
        return true;
      });
    });
    // 'close' follows and does what is to be done.
    socket.on('error', () => undefined);
    socket.once('close', () => {
      clearTimeout(timer);
      if (link.socket === socket) this.#lost(link);
    });
  }

  /** The peer answered a ping. */
  #heard(link: Link, signature: string): void {
    link.heardMs = performance.now();
    const isNews = link.signature !== signature || !link.open;
    link.signature = signature;
    if (!link.open) {
      link.open = true;
      link.attempt = 0;
      // After the next break the command network comes first again.
      link.turn = 0;
      this.#count('connects');
      for (const listener of this.#connectionListeners) listener(link.peer.id, true);
    }
    if (isNews) for (const listener of this.#signatureListeners) listener(link.peer, signature);
  }

  #lost(link: Link): void {
    const wasOpen = link.open;
    link.open = false;
    link.socket = null;
    link.signature = null;
    if (!this.#closed && this.#links.get(link.peer.id) === link) {
      const wait = backoffMs[Math.min(link.attempt, backoffMs.length - 1)] ?? 1000;
      link.attempt += 1;
      link.retry = setTimeout(() => this.#dial(link), wait * (0.75 + Math.random() / 4));
    }
    if (!wasOpen) this.#count('dial_failed');
    else {
      this.#count('disconnects');
      for (const listener of this.#connectionListeners) listener(link.peer.id, false);
    }
  }

  /** Ends a link for good. */
  #end(link: Link): void {
    this.#drop(link);
    if (link.retry !== null) clearTimeout(link.retry);
    link.retry = null;
  }

  /** Ends the present connection or attempt now; the next one is set as after any loss. */
  #drop(link: Link): void {
    const { socket } = link;
    if (socket !== null) {
      this.#lost(link);
      socket.destroy();
    }
  }

  /** Gives up the present connection or attempt, if any, and dials again at once. */
  #redial(link: Link): void {
    this.#drop(link);
    link.attempt = 0;
    link.turn = 0;
    this.#dial(link);
  }

  #write(link: Link, frame: Frame): boolean {
    const { socket } = link;
    if (socket === null || socket.destroyed) return false;
    const bytes = encodeFrame(frame, this.#codec);
    if (bytes === null) {
      this.#count('dropped_oversize');
      return false;
    }
    if (socket.writableLength + bytes.length > maxQueueBytes) {
      this.#count('dropped_queue_full');
      return false;
    }
    socket.write(bytes);
    this.#count('sent');
    return true;
  }

  /** Once a second: ping each peer, give up connections that have fallen silent. */
  #tick(): void {
    const nowMs = performance.now();
    // After a pause of our own the answers wait unread in the sockets: judge at the next tick.
    const wasPaused = nowMs - this.#tickedMs > 2 * pingMs;
    this.#tickedMs = nowMs;
    for (const link of this.#links.values()) {
      if (!link.open) continue;
      if (!wasPaused && nowMs - link.heardMs > silenceMs) {
        this.#count('silent_closed');
        link.socket?.destroy();
      } else this.#write(link, { kind: 'p', signature: this.#options.signature() });
    }
  }

  // ---- incoming

  #accept(socket: TLSSocket): void {
    socket.on('error', () => undefined);
    const name = socket.authorized ? certificateNode(socket.getPeerCertificate()) : null;
    const peer = [...this.#links.values()].find((link) => link.peer.name === name)?.peer;
    if (peer === undefined || socket.alpnProtocol !== protocol || this.#closed) {
      this.#count('refused_unknown');
      socket.destroy();
      return;
    }
    const former = this.#incoming.get(peer.id);
    if (former !== undefined) {
      this.#count('replaced');
      former.destroy();
    }
    this.#incoming.set(peer.id, socket);
    // It dialled, so it is there: an agent that was started again must not wait for our next attempt.
    this.kick(peer.id);
    // The other side pings each second; without that the connection is dead.
    socket.setTimeout(2 * silenceMs, () => socket.destroy());
    const reader = new FrameReader();
    socket.on('data', (chunk: Buffer) => {
      this.#read(socket, reader, chunk, (frame) => this.#take(peer.id, socket, frame));
    });
    socket.once('close', () => {
      if (reader.partial) this.#count('truncated');
      if (this.#incoming.get(peer.id) === socket) this.#incoming.delete(peer.id);
    });
  }

  #take(from: number, socket: TLSSocket, frame: Frame): boolean {
    if (frame.kind === 'q') return false;
    if (frame.kind === 'p') {
      const answer = encodeFrame({ kind: 'q', signature: this.#options.signature() }, this.#codec);
      // A peer that pings without reading is not worth memory.
      if (answer === null || socket.writableLength > maxQueueBytes) return false;
      socket.write(answer);
    } else for (const listener of this.#messageListeners) listener(from, frame.message);
    return true;
  }

  /** Feeds received bytes; a frame that is malformed or that `take` refuses ends the connection. */
  #read(
    socket: TLSSocket,
    reader: FrameReader,
    chunk: Buffer,
    take: (frame: Frame) => boolean,
  ): void {
    const frames = reader.push(chunk);
    for (;;) {
      let frame: Frame;
      try {
        const next = frames.next();
        if (next.done === true) return;
        frame = decodeFrame(next.value, this.#codec);
      } catch {
        this.#refuse(socket);
        return;
      }
      if (socket.destroyed) return;
      if (!take(frame)) {
        this.#refuse(socket);
        return;
      }
      this.#count('received');
    }
  }

  #refuse(socket: TLSSocket): void {
    this.#count('refused_frame');
    socket.destroy();
  }

  #count(name: Counter): void {
    this.#counters[name] += 1;
  }
}

/** Opens the channel: port and connections. HF-PEER-002. */
export async function openPeers(options: PeerOptions): Promise<PeerLinks> {
  const links = new PeerLinks(options);
  await links.start();
  return links;
}

function listen(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host, exclusive: true }, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}
