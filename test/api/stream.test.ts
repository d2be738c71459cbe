import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { after, before, beforeEach, describe, test } from 'node:test';
import { coded, TestCluster } from './fixture.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await TestCluster.make(['a']);
});
after(() => cluster.close());

describe('the event stream', () => {
  interface Reader {
    readonly answer: IncomingMessage;
    /** Resolves with the text so far when it has this many blank-line-ended blocks. */
    blocks(count: number): Promise<string[]>;
    close(): void;
  }

  async function stream(query = '', headers: Record<string, string> = {}): Promise<Reader> {
    const { paths } = cluster.node(0);
    const outgoing = request({
      socketPath: paths.agentSocket,
      path: `/api/v1/events/stream${query}`,
      headers,
      agent: false,
    });
    outgoing.end();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    answer.setEncoding('utf8');
    let text = '';
    let wake: () => void = () => undefined;
    answer.on('data', (chunk: string) => {
      text += chunk;
      wake();
    });
    answer.on('error', () => undefined);
    const parts = (): string[] => text.split('\n\n').slice(0, -1);
    return {
      answer,
      blocks: async (count) => {
        while (parts().length < count) await new Promise<void>((resolve) => (wake = resolve));
        return parts();
      },
      close: () => outgoing.destroy(),
    };
  }
  const idsOf = (blocks: readonly string[]): number[] =>
    blocks.flatMap((block) => /^id: (\d+)$/m.exec(block)?.[1] ?? []).map(Number);

  beforeEach(() => {
    cluster.node(0).agent.journal.length = 0;
    cluster.node(0).agent.oldestSeq = 1;
  });

  test('resumes after Last-Event-ID without a gap or a double', async () => {
    const { agent } = cluster.node(0);
    for (let n = 1; n <= 5; n += 1) agent.emit(`event ${n}`);
    const first = await stream('?after=2');
    assert.equal(first.answer.headers['content-type'], 'text/event-stream');
    agent.emit('event 6');
    assert.deepEqual(idsOf(await first.blocks(5)), [3, 4, 5, 6]);
    first.close();
    agent.emit('event 7');
    agent.emit('event 8');
    // The header of the browser counts more than the address it began with.
    const second = await stream('?after=2', { 'last-event-id': '6' });
    agent.emit('event 9');
    assert.deepEqual(idsOf(await second.blocks(4)), [7, 8, 9]);
    second.close();
  });

  test('without a position begins with what happens from now on', async () => {
    const { agent } = cluster.node(0);
    agent.emit('past');
    const reader = await stream('?module=web');
    agent.emit('of another', 'db');
    agent.emit('mine', 'web');
    const blocks = await reader.blocks(2);
    assert.deepEqual(idsOf(blocks), [3]);
    assert.match(blocks[1] ?? '', /"text":"mine"/);
    reader.close();
  });

  test('says what is no longer in the journal, and begins anew after a lost journal', async () => {
    const { agent } = cluster.node(0);
    for (let n = 1; n <= 9; n += 1) agent.emit(`event ${n}`);
    agent.oldestSeq = 7;
    const late = await stream('?after=2');
    const blocks = await late.blocks(5);
    assert.equal(blocks[1], 'event: gap\ndata: {"after":2,"before":7}');
    assert.deepEqual(idsOf(blocks), [7, 8, 9]);
    late.close();
    agent.oldestSeq = 1;
    const ahead = await stream('', { 'last-event-id': '4711' });
    assert.equal(idsOf(await ahead.blocks(10)).length, 9);
    ahead.close();
  });

  test('is bounded in number, and a reader that goes makes room', async () => {
    const { agent, api } = cluster.node(0);
    while ((api.stats()['streams_open'] ?? 0) > 0) await new Promise((go) => setImmediate(go));
    const readers: Reader[] = [];
    for (let n = 0; n < 32; n += 1) readers.push(await stream());
    const { local } = cluster.node(0);
    await assert.rejects(local.followEvents().next(), coded('HF-API-008'));
    for (const reader of readers) reader.close();
    while (agent.listeners > 0) await new Promise((go) => setImmediate(go));
    const again = await stream();
    again.close();
  });

  test('cuts off a reader that does not read', async () => {
    const { agent, api } = cluster.node(0);
    const { paths } = cluster.node(0);
    const outgoing = request({
      socketPath: paths.agentSocket,
      path: '/api/v1/events/stream',
      agent: false,
    });
    outgoing.end();
    outgoing.on('error', () => undefined);
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    answer.on('error', () => undefined);
    answer.pause();
    const large = 'x'.repeat(100_000);
    for (let n = 0; n < 100 && api.stats()['streams_cut_off'] === 0; n += 1) agent.emit(large);
    assert.equal(api.stats()['streams_cut_off'], 1);
    outgoing.destroy();
  });
});
