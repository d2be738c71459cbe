/** Rows of the fault table that happen to processes of a server, and to the arbiter. */
import assert from 'node:assert/strict';
import { execFile as execFileBack } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { parseClusterConfig, renderClusterXml } from '../../../src/config/index.ts';
import { blockAgent } from '../block-agent.ts';
import { module } from '../pair-support.ts';
import { eventually } from '../support.ts';
import { aloneForAMoment, type Scenario } from './scenario.ts';
import { programs, type World } from './world.ts';

const execFile = promisify(execFileBack);

const goesOn = 'nothing moves';
const takenOver = 'the other server takes over; this one follows when it is back';
const alone = 'the primary goes on alone by a new epoch; the other one is brought up to date';

async function arbiterState(world: World, wanted: 'ok' | 'silent'): Promise<void> {
  await eventually(`the arbiter to be ${wanted}`, async () =>
    (await world.pair.status(world.primary)).pair?.arbiter.state === wanted ? true : null,
  );
}

/** Once the register is out of reach nobody takes over; when it is back somebody does. */
async function witnessAndPrimary(world: World): Promise<void> {
  world.pair.stopWitness();
  await arbiterState(world, 'silent');
  await world.power(world.primary);
  await world.says(world.secondary, /arbiter/);
  assert.equal((await world.pair.status(world.secondary)).state, 'SECOND');
  await world.pair.startWitness();
  await world.moves();
}

async function emptyWitness(world: World): Promise<void> {
  const incarnation = async (): Promise<number> =>
    (await world.pair.status(world.primary)).pair?.record?.incarnation ?? 0;
  const former = await incarnation();
  world.pair.stopWitness();
  const argv = ['sh', '-c', 'rm -r /var/lib/holdfast/witness/*/records'];
  await world.lab.host('wit').exec(argv);
  await world.pair.startWitness();
  await eventually('the register to be written anew', async () =>
    (await incarnation()) > former ? true : null,
  );
  await world.served(world.primary);
}

/** The cluster is configured anew under load, there and back. */
async function reload(world: World): Promise<void> {
  // The server that holds the key of the cluster.
  const client = world.pair.cluster.client(world.pair.a);
  const xml = await client.clusterXml();
  const { config } = parseClusterConfig(xml);
  assert.ok(config !== null);
  for (const heartbeatMs of [100, config.heartbeatMs]) {
    await client.applyClusterXml(renderClusterXml({ ...config, heartbeatMs }), 'cluster');
    await world.stays(1000);
  }
}

async function stopped(world: World): Promise<void> {
  const client = world.pair.cluster.client(world.secondary);
  await client.command(module, 'stop');
  world.undo(() => client.command(module, 'start'));
  await world.alone();
  await delay(500);
  await world.served(world.primary);
}

async function swaps(world: World, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await world.pair.cluster.client(world.primary).swap(module, true);
    await world.pair.settled();
    await world.moves();
    [world.primary, world.secondary] = [world.secondary, world.primary];
  }
}

async function failoverInFailover(world: World): Promise<void> {
  await world.power(world.primary);
  await eventually('the takeover to be under way', async () =>
    (await world.epoch(world.secondary)) > world.begunEpoch ? true : null,
  );
  // The one that takes over loses its power too, in the middle of it, and both come back.
  await world.power(world.secondary);
  await Promise.all([world.boot(world.primary), world.boot(world.secondary)]);
  await world.served();
}

async function starved(world: World): Promise<void> {
  await world.lab.slow(world.primary.name, 20);
  await delay(4000);
  await world.served();
}

async function fewFiles(world: World): Promise<void> {
  const agents = world.primary.processes().filter(({ command }) => programs.agent.test(command));
  const [agent] = agents;
  assert.ok(agent !== undefined);
  const pid = agent.id.slice(0, agent.id.indexOf(':'));
  // Not one descriptor more than there are already.
  const limit = (soft: number) => execFile('prlimit', ['--pid', pid, `--nofile=${soft}:`]);
  await limit(3);
  // It may have ended by that, and another one may be in its place.
  world.undo(() => limit(4096).catch(() => undefined));
  await delay(3000);
  await world.served();
}

export const processRows: readonly Scenario[] = [
  {
    row: 1,
    title: 'the application is killed',
    expected: 'it is started again where it was; after `maxloop` times the module stops',
    act: async (world) => {
      await world.killed(world.primary, programs.application);
      await world.stays();
    },
  },
  {
    row: 2,
    title: 'the agent of the primary is killed; holdfastd starts the next one',
    expected: goesOn,
    act: async (world) => {
      await world.killed(world.primary, programs.agent);
      await world.stays();
    },
  },
  {
    row: 2,
    title: 'holdfastd of the primary is killed and stays away',
    expected: takenOver,
    act: async (world) => {
      world.killDaemon(world.primary);
      await world.moves();
    },
  },
  {
    row: 2,
    title: 'both processes of the primary’s replication engine are killed',
    expected: takenOver,
    act: async (world) => {
      await world.killed(world.primary, programs.engine);
      await world.moves();
    },
  },
  {
    row: 2,
    title: 'the worker of the primary’s replication engine is killed',
    expected: goesOn,
    act: async (world) => {
      await world.killed(world.primary, programs.worker);
      await world.served(world.primary);
    },
  },
  {
    row: 3,
    title: 'holdfastd of the secondary is killed and stays away',
    expected: alone,
    act: async (world) => {
      world.killDaemon(world.secondary);
      await world.alone();
    },
  },
  {
    row: 3,
    title: 'both processes of the secondary’s replication engine are killed',
    expected: 'they are started again; the copy is brought up to date',
    act: async (world) => {
      await world.killed(world.secondary, programs.engine);
      // The module starts anew there, of which the primary hears; it may go alone for that.
      for (let i = 0; i < 50 && (await world.epoch()) === world.begunEpoch; i++) await delay(100);
      await world.served(world.primary);
    },
  },
  {
    row: 4,
    title: 'all of Holdfast on the primary stands still (SIGSTOP) for 0.5 s',
    expected: aloneForAMoment,
    act: async (world) => {
      await world.pausedFor(500, programs.holdfast);
      await world.keeps();
    },
  },
  {
    row: 4,
    title: 'all of Holdfast on the primary stands still (SIGSTOP) for 10 s',
    expected: `its address falls silent in the kernel; ${takenOver}`,
    isLong: true,
    act: async (world) => {
      await world.pause(world.primary, programs.holdfast);
      await world.moves();
      await delay(8000);
    },
  },
  {
    row: 5,
    title: 'every process of the primary stands still for 10 s, the application too',
    expected: takenOver,
    act: async (world) => {
      await world.lab.pause(world.primary.name);
      await world.moves();
      await delay(8000);
    },
  },
  {
    row: 6,
    title: 'the JavaScript of the primary’s agent is blocked for 3 s',
    expected: `${goesOn}, up to \`agent_deadline\` (5 s)`,
    act: async (world) => {
      await (await blockAgent(world.primary, 3000))();
      await world.stays();
    },
  },
  {
    row: 52,
    title: 'the JavaScript of the primary’s agent is blocked for 10 s',
    expected: `after \`agent_deadline\` (5 s) the other server takes over; this one follows afterwards`,
    isLong: true,
    act: async (world) => {
      const ended = (await blockAgent(world.primary, 10_000))();
      await world.moves();
      await ended;
    },
  },
  {
    row: 13,
    title: 'the witness is killed',
    expected: `${goesOn}; an alert says that no failure would be survived`,
    isLong: true,
    act: async (world) => {
      world.pair.stopWitness();
      world.undo(() => world.pair.startWitness());
      await arbiterState(world, 'silent');
      await world.stays(1000);
    },
  },
  {
    row: 14,
    title: 'the witness is killed, then the primary loses its power',
    expected: 'nobody takes over; when the witness is back the other server does',
    isLong: true,
    act: witnessAndPrimary,
  },
  {
    row: 15,
    title: 'the witness comes back without its records',
    expected: 'the register is written anew by both servers, under another incarnation',
    isLong: true,
    act: emptyWitness,
  },
  {
    row: 16,
    title: 'the witness answers 0.6 s late, then the primary loses its power',
    expected: 'the other server takes over, later; a witness from 1 s on counts as none',
    isLong: true,
    act: async (world) => {
      await world.lab.delay('wit', 300);
      await delay(2500);
      await world.stays();
      await world.power(world.primary);
      await world.moves();
    },
  },
  {
    row: 16,
    title: 'the witness comes and goes each second, twice',
    expected: goesOn,
    act: async (world) => {
      for (let i = 0; i < 2; i++) {
        await world.lab.flap('wit', 1000);
        await delay(1000);
      }
      await world.stays();
    },
  },
  {
    row: 36,
    title: '20 busy processes beside the primary, on the machine’s processors',
    expected: 'nobody takes over',
    act: starved,
  },
  {
    row: 38,
    title: 'the agent of the primary gets no file descriptor more for 3 s',
    expected: 'the agent may end by that; another one follows, or the other server takes over',
    isLong: true,
    act: fewFiles,
  },
  {
    row: 50,
    title: 'three swaps, one after the other',
    expected: 'each ends with the other server as primary',
    act: (world) => swaps(world, 3),
  },
  {
    row: 50,
    title: 'a hundred swaps, one after the other',
    expected: 'each ends with the other server as primary',
    isLong: true,
    act: (world) => swaps(world, 100),
  },
  {
    row: 50,
    title: 'the server that takes over loses its power meanwhile; both come back',
    expected: 'one is primary, the other follows',
    isLong: true,
    act: failoverInFailover,
  },
  {
    row: 55,
    title: 'the heartbeat interval is configured anew under load, there and back',
    expected: goesOn,
    act: reload,
  },
  {
    row: 57,
    title: 'the secondary is stopped in order, the primary writes on, it is started',
    expected: 'no write waits; it gets what it lacks, and follows',
    isLong: true,
    act: stopped,
  },
];
