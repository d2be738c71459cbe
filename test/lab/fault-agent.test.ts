/** What dies or stops on one server: its agent, holdfastd, both, for a moment or for good. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isAlive, signal, until } from '../../src/lab/tool.ts';
import { randomOf } from '../replica/prefix.ts';
import { firstSeed } from '../support/random.ts';
import { blockAgent } from './block-agent.ts';
import {
  alerted,
  calm,
  epochsAt,
  killAgent,
  lastAnswerMs,
  processesOf,
  ready,
  silentMs,
  Traffic,
} from './fault-support.ts';
import { Farm, skip } from './support.ts';

const all = ['s1', 's2', 's3'];
/** Short, to be waited for; long enough for an agent to start again on a busy machine. */
const agentDeadlineMs = 4000;

describe('faults of a server', { skip, timeout: 300_000 }, () => {
  let farm: Farm;
  before(async () => {
    farm = await Farm.up({ timing: { agentDeadlineMs } });
  });
  after(async () => farm?.down());
  afterEach(async () => {
    await Traffic.stop();
    await farm.lab.heal();
  });

  test('agents killed at any moment and started again: nothing moves, nothing is lost', async () => {
    // A lost SYN is sent again after 1 s: a request that was not answered at once is a timeout.
    const epochs = await calm(farm, all);
    const traffic = await Traffic.start(farm, { timeoutMs: 900 });
    await traffic.mark();
    const random = randomOf(firstSeed);
    for (const name of ['s2', 's1', 's3', 's1']) {
      const host = farm.host(name);
      await killAgent(host);
      // Once more while it starts.
      await delay(random(700));
      await killAgent(host);
      await ready(farm, all);
    }
    await traffic.healthy();
    const phase = await traffic.mark();
    assert.equal(phase.breaks, 0, JSON.stringify(phase));
    assert.equal(phase.timeouts, 0, JSON.stringify(phase));
    for (const name of all) assert.deepEqual(await epochsAt(farm, name), epochs, name);
  });

  test('holdfastd and its agent killed for good: silent by the kernel, then taken in again', async () => {
    const traffic = await Traffic.start(farm, { timeoutMs: 200 });
    await farm.settled(all);
    const host = farm.host('s2');
    const killedUs = await traffic.strike(() => {
      for (const id of processesOf(host).all) signal(id, 'SIGKILL');
    });
    await farm.settled(['s1', 's3']);
    await traffic.healthy();
    const without = await traffic.mark();
    const last = lastAnswerMs(without.seen, host, killedUs);
    assert.ok(last <= silentMs, `it answered ${last} ms after its death`);

    await farm.cluster.startAgent(host);
    await farm.settled(all);
    await traffic.healthy();
    const again = await traffic.mark();
    assert.ok((again.seen.synAcksByMac[host.mac()] ?? 0) > 0, 'it answers again');
    assert.equal(again.breaks, 0, JSON.stringify(again));
  });

  test('all of Holdfast stopped for 10 s and continued: silent meanwhile, nobody answers twice', async () => {
    const traffic = await Traffic.start(farm, { timeoutMs: 200 });
    await farm.settled(all);
    const host = farm.host('s1');
    const ids = processesOf(host).all;
    assert.equal(ids.length, 2);
    const stoppedUs = await traffic.strike(() => farm.lab.pause('s1', ids));
    await delay(10_000);
    const meanwhile = await traffic.mark();
    const last = lastAnswerMs(meanwhile.seen, host, stoppedUs);
    assert.ok(last <= silentMs, `it answered ${last} ms after it was stopped`);
    await traffic.healthy();

    await farm.lab.heal();
    await farm.settled(all);
    await traffic.healthy();
    const again = await traffic.mark();
    assert.ok((again.seen.synAcksByMac[host.mac()] ?? 0) > 0, 'it answers again');
  });

  /** The agent gives no sign of life from the strike on; `resume` ends that. */
  const assertHung = async (name: string, strike: () => unknown, resume: () => unknown) => {
    const traffic = await Traffic.start(farm, { timeoutMs: 200 });
    await farm.settled(all);
    const host = farm.host(name);
    const others = all.filter((other) => other !== name);
    const stoppedUs = await traffic.strike(strike);
    for (const other of others) await alerted(farm, other, /^peer\.\d+\.hung$/);
    await farm.settled(others);
    await traffic.healthy();
    const without = await traffic.mark();
    const last = lastAnswerMs(without.seen, host, stoppedUs);
    // The last sign of life was up to an eighth of the deadline before the fault.
    assert.ok(last >= agentDeadlineMs * 0.85 - 200, `it fell silent ${last} ms after the fault`);
    assert.ok(last <= agentDeadlineMs + silentMs, `it answered ${last} ms after the fault`);

    await resume();
    await farm.settled(all);
    for (const other of others) await alerted(farm, other, /^peer\.\d+\.hung$/, false);
    await traffic.healthy();
    const again = await traffic.mark();
    assert.ok((again.seen.synAcksByMac[host.mac()] ?? 0) > 0, 'it answers again');
  };

  test('an agent that is stopped: served on until its deadline, then taken over', async () => {
    const { agent } = processesOf(farm.host('s1'));
    assert.ok(agent !== null);
    const resume = () => farm.lab.heal();
    await assertHung('s1', () => farm.lab.pause('s1', [agent]), resume);
  });

  test('an agent whose JavaScript is blocked: served on until its deadline, then taken over', async () => {
    const host = farm.host('s3');
    const { agent } = processesOf(host);
    assert.ok(agent !== null);
    const blockedMs = agentDeadlineMs + 4000;
    const block = await blockAgent(host, blockedMs);
    let ended = Promise.resolve();
    await assertHung(
      's3',
      () => {
        ended = block();
      },
      () => ended,
    );
    assert.ok(isAlive(agent), 'the agent itself went on');
  });

  test('holdfastd told to end: its agent ends first, no connection breaks', async () => {
    const traffic = await Traffic.start(farm, { timeoutMs: 200 });
    await farm.settled(all);
    await traffic.mark();
    const host = farm.host('s2');
    const daemon = farm.cluster.daemons.get('s2');
    assert.equal(daemon?.kill('SIGTERM'), true);
    assert.equal(await daemon?.ended, 0);
    assert.ok(await until(() => processesOf(host).all.length === 0, 1000));
    await farm.settled(['s1', 's3']);
    await traffic.healthy();
    const phase = await traffic.mark();
    assert.equal(phase.breaks, 0, JSON.stringify(phase));
    await farm.cluster.startAgent(host);
    await farm.members(all);
  });
});
