/** The fault table: each row, what a mirror or farm owes there, and the tests that hold it. */
import { clockRows } from './clocks.ts';
import { diskRows } from './disks.ts';
import { networkRows } from './network.ts';
import { powerRows } from './power.ts';
import { processRows } from './processes.ts';
import type { Scenario } from './scenario.ts';

/** A test by its file and words of its title as the file has them. */
export type Proof = readonly [file: string, title: string];

export interface Row {
  readonly number: number;
  readonly fault: string;
  /** Tests beside the measured ones. */
  readonly proofs?: readonly Proof[];
  /** Why a lab on one machine does not do it, or does less than the row says. */
  readonly note?: string;
}

/** The measured faults: each is a test of test/lab/fault-rows-*.test.ts. */
export const scenarios: readonly Scenario[] = [
  ...processRows,
  ...powerRows,
  ...networkRows,
  ...diskRows,
  ...clockRows,
];

const sim = 'test/sim/mirror-rows.test.ts';
const vip = 'test/lab/mirror-vip.test.ts';
const faults = 'test/lab/pair-faults.test.ts';
const input = 'test/lab/fault-input.test.ts';
const attack = 'native/test/beat_attack.cc';

export const rows: readonly Row[] = [
  {
    number: 1,
    fault: 'the application dies',
    proofs: [
      ['test/core/mirror-orders.test.ts', 'maxloop: the automatic action over the limit is a stop'],
      ['test/lab/fault-power.test.ts', 'an application that dies again and again: maxloop ends it'],
    ],
  },
  {
    number: 2,
    fault: 'a process of Holdfast dies on the primary',
    proofs: [
      ['test/lab/pair.test.ts', 'a primary whose agent is killed goes on'],
      [faults, 'agents that are killed at any moment lose nothing'],
    ],
  },
  { number: 3, fault: 'a process of Holdfast dies on the secondary' },
  { number: 4, fault: 'Holdfast stands still (SIGSTOP)' },
  {
    number: 5,
    fault: 'a whole server stands still, application and all',
    proofs: [[vip, 'a lease that lapses silences it in the kernel, with all processes stopped']],
  },
  {
    number: 6,
    fault: 'the agent’s JavaScript is blocked for a while',
    proofs: [[sim, 'the agent does not act for 3 s']],
  },
  {
    number: 7,
    fault: 'kernel panic',
    note: 'All hosts of a lab run on one kernel. From outside it is row 8: frames end at once, and nothing is said.',
  },
  {
    number: 8,
    fault: 'hard power pull',
    proofs: [
      ['test/lab/pair.test.ts', 'a primary that loses its power: the other answers'],
      ['test/lab/pair-apps.test.ts', 'what was acknowledged is there after a takeover'],
    ],
  },
  { number: 9, fault: 'reboot in order' },
  {
    number: 10,
    fault: 'both servers lose their power, both return',
    proofs: [
      [faults, 'after both lost their power the service comes back by itself'],
      ['test/replica/resync-return.test.ts', 'both pulled, both back as they were'],
    ],
  },
  {
    number: 11,
    fault: 'both are lost, only the stale one returns',
    proofs: [[sim, 'both are off and only the one that was left behind comes back: it waits']],
  },
  {
    number: 12,
    fault: 'the primary is lost while it is alone, and a stale peer lives',
    proofs: [[sim, 'while the other was left behind: nobody takes over']],
  },
  {
    number: 13,
    fault: 'the witness is down',
    proofs: [[faults, 'without its witness a mirror goes on']],
  },
  {
    number: 14,
    fault: 'the witness is down, then a server fails',
    proofs: [
      ['test/lab/pair-witness.test.ts', 'without the witness nobody takes over; when it is back'],
    ],
  },
  {
    number: 15,
    fault: 'the witness lost its disk, or was restored from a backup',
    proofs: [
      ['test/lab/pair-arbiters.test.ts', 'a witness that lost its records is given them anew'],
      ['test/arbiter/witness-hostile.test.ts', 'is empty where a backup was brought back'],
      ['test/core/mirror-lead.test.ts', 'a register that was rolled back changes nothing'],
    ],
  },
  {
    number: 16,
    fault: 'the witness is slow, or comes and goes',
    proofs: [[sim, 'takes 400 ms for each answer: a loss is only handled later']],
  },
  {
    number: 17,
    fault: 'all links between the servers are cut, both see the witness',
    proofs: [['test/lab/pair.test.ts', 'a cut between the servers moves nothing']],
  },
  {
    number: 18,
    fault: 'the primary is cut off from all',
    proofs: [[faults, 'a primary that is cut off from everybody ends its service']],
  },
  { number: 19, fault: 'the servers are cut, and the witness sees the secondary only' },
  {
    number: 20,
    fault: 'one of two networks is down',
    proofs: [
      ['test/lab/fault-network.test.ts', 'one of two networks down: an alert'],
      [sim, 'the connection of the engines alone: the primary goes on alone'],
    ],
  },
  {
    number: 21,
    fault: 'frames are lost in one direction',
    proofs: [[sim, 'one direction is lost']],
  },
  {
    number: 22,
    fault: 'loss of 1, 5, 10, 20, 30 % on all links',
    proofs: [[sim, '10 % of everything is lost for a minute']],
    note: 'Seconds here, a minute of simulated time there; not 24 hours.',
  },
  {
    number: 23,
    fault: 'losses in bursts',
    proofs: [['test/sim/mirror.test.ts', 'whole again']],
    note: 'The kernel of the lab has no gemodel; all frames are lost for a time instead, again and again.',
  },
  {
    number: 24,
    fault: 'delay and jitter',
    proofs: [[sim, 'everything takes 200 ms, and a quarter comes twice or late']],
  },
  {
    number: 25,
    fault: 'frames come twice and out of order',
    proofs: [[input, 'heartbeats that come twice are counted as replayed']],
  },
  {
    number: 26,
    fault: 'frames are changed on the way',
    proofs: [
      [attack, 'attack: forged, damaged, misdirected datagrams change counters only'],
      ['native/test/beat_wire.cc', 'wire: any bit that changes is noticed'],
      [
        'native/test/replica_link_hostile.cc',
        'hostile: bytes that are not TLS, or were changed on the way, end it',
      ],
    ],
  },
  { number: 27, fault: 'MTU black hole' },
  { number: 28, fault: 'the replication fills a narrow line' },
  { number: 29, fault: 'the switch starts again' },
  { number: 30, fault: 'a network card flaps' },
  {
    number: 31,
    fault: 'another host has the virtual IP',
    proofs: [
      [vip, 'another host that answers for it is told of'],
      [
        'test/host/mirror-vip.test.ts',
        'another host that answers is told of; the address is defended each 10 s',
      ],
    ],
  },
  {
    number: 32,
    fault: 'switch or router ignores gratuitous ARP',
    proofs: [
      [vip, 'the gateway is asked, and said to know the address'],
      [
        'test/host/mirror-vip.test.ts',
        'spread over the first seconds, then each minute, while it is open',
      ],
      [
        'test/host/mirror-vip.test.ts',
        'the gateway that does not is an alert after 20 s, until it does',
      ],
    ],
  },
  {
    number: 33,
    fault: 'forged or replayed heartbeats, ARP and NDP',
    proofs: [
      [input, 'forged, cut off and oversized heartbeats are counted, and change nothing'],
      [attack, 'attack: a recorded life of a peer, replayed after its death, does not revive it'],
      [attack, 'attack: datagrams of an old boot are no restart'],
      ['native/test/link_engine.cc', 'malformed claims are no claims'],
    ],
  },
  { number: 34, fault: 'the wall clock jumps by 1 h, or strobes' },
  {
    number: 35,
    fault: 'clocks of different rates',
    proofs: [
      [
        'native/test/beat_detector.cc',
        'detector: clocks that drift apart for hours keep the point within a few ms',
      ],
      ['native/test/beat_engine.cc', 'engine: two nodes reach each other, whatever their clocks'],
      ['test/core/mirror-timing.test.ts', 'default and fast: the address is free in time'],
    ],
    note: 'Hosts of a lab share the kernel’s clock; the rates are those of the heartbeat engine’s simulated clocks. The grace allows 1 %.',
  },
  { number: 36, fault: 'no processor time' },
  {
    number: 37,
    fault: 'memory runs out',
    note: 'A lab shares the machine’s memory. What the kernel kills is row 1 (the application), 2 and 3 (Holdfast).',
  },
  {
    number: 38,
    fault: 'no file descriptors; the disk of the logs is full',
    proofs: [
      [input, 'a full disk of the state folder: the farm serves on'],
      [
        'test/host/logger.test.ts',
        'a full disk is said once, and the log goes on when there is room',
      ],
      ['test/host/store.test.ts', 'a full disk is a result, the former value stays'],
    ],
  },
  {
    number: 39,
    fault: 'the data disk is full',
    proofs: [
      [faults, 'a secondary whose disk is full is given up by a new epoch, and not before'],
      [
        'test/replica/resync-cut.test.ts',
        'the disk of the target fills: it goes back, and is made equal when there is room',
      ],
    ],
  },
  {
    number: 40,
    fault: 'write errors on the primary',
    proofs: [
      [
        'test/core/mirror-orders.test.ts',
        'a primary whose disk failed gives way to a secondary that has everything',
      ],
      [sim, 'it cannot write any more: the other, which can, takes over'],
    ],
  },
  {
    number: 41,
    fault: 'write errors on the secondary',
    proofs: [
      [
        'native/test/replica_receiver.cc',
        'receiver: a change that cannot be applied ends this copy',
      ],
      [
        'native/test/replica_link.cc',
        'link: a peer that failed is left behind, one that only stopped is waited for',
      ],
    ],
  },
  { number: 42, fault: 'slow disk on the secondary' },
  { number: 43, fault: 'hung disk on the primary' },
  {
    number: 44,
    fault: 'fsync fails once',
    proofs: [
      [
        'native/test/replica_receiver.cc',
        'receiver: a journal that cannot be written ends this copy',
      ],
      ['native/test/replica_marks.cc', 'marks: a failing disk fails the guard'],
      [
        'native/test/replica_link.cc',
        'link: a local failure is said once and is in the superblock',
      ],
    ],
  },
  {
    number: 45,
    fault: 'writes that were not synced are lost at a power cut, or torn',
    proofs: [
      [
        'native/test/replica_power.cc',
        'power: all that was acknowledged is found, and nothing that was never sent',
      ],
      [
        'test/replica/resync-return.test.ts',
        'both pulled, both back as they were: what was synced is there',
      ],
      ['test/replica/marks.test.ts', 'what differs after a loss of power is marked'],
    ],
    note: 'On images of their own, whose unsynced pages are thrown away; the lab’s own power cut loses no page.',
  },
  { number: 46, fault: 'bit rot on one copy' },
  {
    number: 47,
    fault: 'the engine’s metadata are damaged or missing',
    proofs: [
      [
        'test/replica/resync-return.test.ts',
        'its marks are damaged: all is compared, and that is said',
      ],
      ['test/core/mirror-start.test.ts', 'a blank server that the record names does not claim'],
      [
        'test/host/store.test.ts',
        'a value comes back, also the one before it when the file is damaged',
      ],
      [
        'native/test/replica_journal.cc',
        'journal: a flipped bit ends it before the record that has it',
      ],
    ],
  },
  {
    number: 48,
    fault: 'a crash at each step of the protocol',
    proofs: [
      ['test/sim/mirror-explore.test.ts', 'comes to what the protocol comes to, and to all of it'],
      ['test/sim/mirror.test.ts', 'nothing lost, one answer, whole again'],
    ],
  },
  {
    number: 49,
    fault: 'a failure during a resynchronisation',
    proofs: [
      [
        'test/replica/resync-cut.test.ts',
        'the source dies: the target goes back to what it was, and says so',
      ],
      [
        'test/replica/resync-cut.test.ts',
        'the worker of the target dies: the resync goes on where it was',
      ],
      ['test/core/mirror-start.test.ts', 'no takeover in the middle of a resync'],
    ],
  },
  {
    number: 50,
    fault: 'a failover during a failover; many swaps',
    proofs: [[sim, '30 swaps: each ends with the other as primary, within a second']],
  },
  {
    number: 51,
    fault: 'a virtual machine is paused',
    proofs: [[sim, 'the whole server stands still for 60 s']],
  },
  {
    number: 52,
    fault: 'the agent’s JavaScript is blocked for long',
    proofs: [
      ['test/lab/pair.test.ts', 'an agent that hangs loses the address to the other server'],
    ],
  },
  {
    number: 53,
    fault: 'two versions side by side',
    proofs: [
      [
        'test/host/store.test.ts',
        'a lower version is read, a higher one is refused and left in place',
      ],
      [
        'test/api/peers.test.ts',
        'a node of the CA that cluster.xml does not name, and another protocol',
      ],
    ],
    note: 'There is one release so far: what speaks another version is refused.',
  },
  {
    number: 54,
    fault: 'the configurations of the servers differ',
    proofs: [
      [
        'test/lab/replica-distant.test.ts',
        'ports that differ, since one server has more modules, are refused with what to do',
      ],
      ['test/api/peers.test.ts', 'a certificate of another CA, none, an older TLS, and no TLS'],
      ['native/test/beat_engine.cc', 'engine: faults are events when they come and when they go'],
      ['test/host/timing.test.ts', 'is refused where the cluster detects later'],
    ],
  },
  {
    number: 55,
    fault: 'the configuration is applied anew under load',
    proofs: [['native/test/beat_engine.cc', 'engine: the same configuration again resets nothing']],
  },
  {
    number: 56,
    fault: 'both servers start at once',
    proofs: [
      ['test/core/mirror-start.test.ts', 'both first: they ask, and the former primary goes first'],
    ],
  },
  {
    number: 57,
    fault: 'a secondary stops in order, the primary writes, it rejoins',
    proofs: [
      [faults, 'a secondary that is stopped in order holds no write up'],
      ['test/replica/resync-alone.test.ts', 'stopped in order, the primary writes, it rejoins'],
    ],
  },
  {
    number: 58,
    fault: 'a fence device is out of reach',
    note: 'A mirror decides by its arbiter and its lease; nothing waits for a fence device.',
  },
  {
    number: 59,
    fault: 'the network of a cloud ignores gratuitous ARP',
    proofs: [
      [
        'test/host/mirror-vip.test.ts',
        'the gateway that does not is an alert after 20 s, until it does',
      ],
    ],
    note: 'A lab has no provider whose routes could be changed. A module’s scripts are where that is called.',
  },
  {
    number: 60,
    fault: 'farm: a member dies, half of it is cut off, a member flaps',
    proofs: [
      ['test/lab/fault-power.test.ts', 'the power of the leader is pulled, then that of the next'],
      ['test/lab/fault-network.test.ts', 'a farm in two parts: each side answers its clients'],
      ['test/core/table.test.ts', 'moves only the buckets of a node that died'],
      ['test/sim/sim.test.ts', 'one answer at most, whole again after'],
    ],
  },
];
