/** A witness among strangers, other clusters, backups and second witnesses. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFileSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { connect as connectPlain, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { answerSize, decodeAnswer, encodeQuestion } from '../../src/arbiter/witness-wire.ts';
import { first, next } from './contract.ts';
import {
  clusterId,
  type KeyFiles,
  makeAuthority,
  startWitness,
  WitnessWorld,
  writeKeyFiles,
} from './witness-world.ts';

const won = { outcome: 'won' };
const holds = (record: unknown) => ({ outcome: 'record', record });
const question = encodeQuestion(3, { kind: 'read', module: 'db' });

function optionsOf(world: WitnessWorld, files: KeyFiles | null): ConnectionOptions {
  return {
    host: '127.0.0.1',
    port: world.port,
    servername: clusterId,
    rejectUnauthorized: false,
    ...(files === null ? {} : { cert: readFileSync(files.cert), key: readFileSync(files.key) }),
  };
}

/** What comes back for some bytes, until the other side ends the connection. */
async function exchange(socket: Socket | TLSSocket, bytes: Buffer): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  // An alert, or a reset: what counts is what was answered before.
  socket.on('error', () => undefined);
  socket.write(bytes);
  await new Promise((resolve) => socket.once('close', resolve));
  return Buffer.concat(chunks);
}

/** One answer on an open connection. */
async function answerOn(socket: TLSSocket, bytes: readonly Buffer[]): Promise<unknown> {
  let got = Buffer.alloc(0);
  for (const part of bytes) socket.write(part);
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    got = Buffer.concat([got, chunk as Buffer]);
    if (got.length >= answerSize) break;
  }
  return decodeAnswer(got).answer;
}

describe('a witness', () => {
  it('answers nobody without a certificate of the cluster', async (t) => {
    const world = await WitnessWorld.make(t);
    assert.deepEqual(await world.open(0).swap('db', null, first), won);
    const stranger = await makeAuthority('ffffffffffffffff');
    const files = await writeKeyFiles(join(world.folder, 'stranger'), stranger, 'a', 'node');
    const ours = world.filesOf(0);
    const cases: readonly (readonly [string, ConnectionOptions])[] = [
      ['no certificate', optionsOf(world, null)],
      ['of another authority', optionsOf(world, files)],
      ['no name', { ...optionsOf(world, ours), servername: '' }],
      ['another name', { ...optionsOf(world, ours), servername: 'ffffffffffffffff' }],
      ['a path for a name', { ...optionsOf(world, ours), servername: `../${clusterId}` }],
      ['TLS 1.2', { ...optionsOf(world, ours), maxVersion: 'TLSv1.2' }],
    ];
    for (const [name, options] of cases) {
      const answer = await exchange(connect(options), question);
      assert.equal(answer.length, 0, name);
    }
    const noise = connectPlain({ host: '127.0.0.1', port: world.port });
    const answer = await exchange(noise, Buffer.from('GET / HTTP/1.1\r\n\r\n'.repeat(50)));
    assert.ok(answer.length < 100, 'an alert at most');
    assert.deepEqual(await world.open(1).read('db'), holds(first), 'and it goes on');
  });

  it('takes questions in any pieces, and ends a connection that sends none', async (t) => {
    const world = await WitnessWorld.make(t);
    const socket = connect(optionsOf(world, world.filesOf(0)));
    t.after(() => socket.destroy());
    await once(socket, 'secureConnect');
    const pieces = [...question].map((byte) => Buffer.from([byte]));
    assert.deepEqual(await answerOn(socket, pieces), holds(null));
    assert.deepEqual(await answerOn(socket, [question]), holds(null));
    const ended = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => undefined);
    socket.write(Buffer.alloc(question.length, 0xff));
    await ended;
    const many = connect(optionsOf(world, world.filesOf(0)));
    t.after(() => many.destroy());
    await once(many, 'secureConnect');
    many.write(Buffer.concat(Array.from({ length: 500 }, () => question)));
    let size = 0;
    for await (const chunk of many) {
      size += (chunk as Buffer).length;
      if (size >= 500 * answerSize) break;
    }
    assert.equal(size, 500 * answerSize);
  });

  it('lets servers in while strangers fill the room', async (t) => {
    const world = await WitnessWorld.make(t);
    const strangers = Array.from({ length: 300 }, () =>
      connectPlain({ host: '127.0.0.1', port: world.port }).on('error', () => undefined),
    );
    t.after(() => strangers.forEach((socket) => socket.destroy()));
    await Promise.all(strangers.map((socket) => once(socket, 'connect')));
    const dropped = strangers.map((socket) => once(socket, 'close'));
    assert.deepEqual(await world.open(0).swap('db', null, first), won);
    await Promise.any(dropped);
    assert.deepEqual(await world.open(1).read('db'), holds(first));
  });

  it('keeps clusters apart, and takes in one that joins while it runs', async (t) => {
    const world = await WitnessWorld.make(t);
    assert.deepEqual(await world.open(0).swap('db', null, first), won);
    const id = '1122334455667788';
    const other = await makeAuthority(id);
    const keyFiles = await writeKeyFiles(join(world.folder, 'other'), other, 'a', 'node');
    for (const early of [{ keyFiles, clusterId: id }, { keyFiles }]) {
      const answer = await world.client(early).read('db');
      assert.ok(answer.outcome === 'unreachable');
      assert.match(answer.why, /it is no witness of this cluster \([a-z0-9 -]+\)$/);
    }
    await writeKeyFiles(join(world.folder, id), other, 'w1', 'witness');
    renameSync(join(world.folder, id), join(world.state, id));
    const theirs = world.client({ keyFiles, clusterId: id });
    assert.deepEqual(await theirs.read('db'), holds(null));
    assert.deepEqual(await theirs.swap('db', null, next(first)), won);
    assert.deepEqual(await world.open(0).read('db'), holds(first));
    const across = await world.client({ keyFiles }).read('db');
    assert.equal(across.outcome, 'unreachable', 'their certificate is not ours');
    await world.crash();
    assert.deepEqual(
      await world.client({ keyFiles, clusterId: id }).read('db'),
      holds(next(first)),
    );
  });

  it('has room for the other clusters, whatever one does', async (t) => {
    const world = await WitnessWorld.make(t);
    const other = await makeAuthority('1122334455667788');
    const clusterOfOthers = { clusterId: '1122334455667788' };
    await writeKeyFiles(join(world.state, '1122334455667788'), other, 'w1', 'witness');
    const keyFiles = await writeKeyFiles(join(world.folder, 'other'), other, 'a', 'node');
    const many = Array.from({ length: 128 }, (_, n) => world.open(n % 2));
    const answers = await Promise.all(many.map((register) => register.read('db')));
    for (const answer of answers) assert.deepEqual(answer, holds(null));
    assert.equal((await world.open(0).read('db')).outcome, 'unreachable');
    assert.deepEqual(await world.client({ keyFiles, ...clusterOfOthers }).read('db'), holds(null));
    await many[0]?.close();
    const late = world.open(1);
    while ((await late.read('db')).outcome !== 'record') await new Promise(setImmediate);
  });

  it('is empty where a backup was brought back', async (t) => {
    const world = await WitnessWorld.make(t);
    const file = join(world.state, clusterId, 'records/db');
    assert.deepEqual(await world.open(0).swap('db', null, first), won);
    copyFileSync(file, join(world.folder, 'backup'));
    assert.deepEqual(await world.open(0).swap('db', first, next(first)), won);
    await world.down();
    copyFileSync(join(world.folder, 'backup'), file);
    await world.up();
    assert.deepEqual(await world.open(0).read('db'), holds(null));
    assert.deepEqual(readdirSync(join(world.state, clusterId, 'records')), ['.restored-db']);
  });

  it('is alone in its folder', async (t) => {
    const world = await WitnessWorld.make(t);
    await assert.rejects(
      startWitness(world.state),
      /ended with 1: .*flock: Device or resource busy/,
    );
    assert.deepEqual(await world.open(0).read('db'), holds(null));
  });

  it('is not taken for another, nor a node for it', async (t) => {
    const world = await WitnessWorld.make(t);
    const answer = await world.client({ keyFiles: world.filesOf(0), name: 'w2' }).read('db');
    assert.ok(answer.outcome === 'unreachable');
    assert.match(answer.why, /witness:w1 answered there/);
  });
});
