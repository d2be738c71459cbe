/**
 * Planted bugs: each takes one guard away. The simulator must find every one of them, or it proves
 * nothing by finding none in the product.
 */
import { farmRules } from '../core/farm-rules.ts';
import { nobody } from '../core/farm-types.ts';
import { shares } from '../core/table.ts';
import type { FarmRules } from '../core/farm-rules.ts';
import type { FaultKind } from './faults.ts';
import type { KeeperGuards } from './keeper.ts';
import type { SimOptions } from './run.ts';

export interface Mutant extends SimOptions {
  readonly name: string;
  /** Rules of which at least one must be seen broken. */
  readonly breaks: readonly string[];
}

function plant(
  name: string,
  breaks: readonly string[],
  rules: Partial<FarmRules>,
  faults: readonly FaultKind[] = [],
): Mutant {
  const mutant = { name, breaks, rules: { ...farmRules, ...rules } };
  return faults.length === 0 ? mutant : { ...mutant, faults };
}

function plantKeeper(
  name: string,
  guards: Partial<KeeperGuards>,
  faults: readonly FaultKind[] = [],
): Mutant {
  const mutant = { name, breaks: ['two answers'], guards };
  return faults.length === 0 ? mutant : { ...mutant, faults };
}

/** A table that gives whole ranges in order, whatever was before: right shares, needless moves. */
const rangesTable: FarmRules['table'] = (weights, previous) => {
  const counts = shares(weights, []);
  const table = new Uint8Array(previous.length).fill(nobody);
  let b = 0;
  for (const [slot, { node }] of weights.entries()) {
    table.fill(node, b, b + (counts[slot] ?? 0));
    b += counts[slot] ?? 0;
  }
  return table;
};

export const mutants: readonly Mutant[] = [
  plant('gainer starts before the loser has let go', ['two answers'], { mayTake: () => true }),
  plant('owner is not quiet while another holds', ['reset of a live connection'], {
    isQuiet: () => false,
  }),
  plant('a hung node is taken over before its lease lapsed', ['two answers'], {
    lapseAfterMs: () => 0,
  }),
  plant('a member takes an older view', ['view goes back', 'two answers'], {
    mayAdopt: () => true,
  }),
  plant('an excluded node goes on', ['two answers'], { excludes: () => false }),
  plant('a leader includes a node that does not hear it', ['not served', 'served, then not'], {
    mayInclude: (peer) => peer.reach !== 'silent',
  }),
  plant('a holder is forgotten by an old walk', ['reset of a live connection'], {
    walkCounts: () => true,
    reportCounts: () => true,
  }),
  plant('a node that is not ready stays open', ['open though not ready'], {
    mayOwnUnready: () => true,
  }),
  plant('a claim is used as soon as it is made', ['two answers'], { settleMs: () => 0 }),
  plant('a leader issues although another may act', ['two answers'], { mayIssue: () => true }),
  plantKeeper('the lease ignores that members do not echo', { echoCap: false }),
  plantKeeper(
    'the lease ignores a node that was left out and does not know',
    { strangersCap: false },
    ['oneWay', 'agentPause'],
  ),
  plantKeeper('the lease forgets a deaf node as soon as it is not heard', { deafCap: false }, [
    'deaf',
    'oneWay',
  ]),
  plantKeeper('after a hang the lease is renewed at once', { shutFirst: false }, [
    'agentPause',
    'oneWay',
  ]),
  plantKeeper(
    'a lapsed lease comes back before the newest view is enforced',
    { noRevival: false },
    ['oneWay', 'agentPause'],
  ),
  plantKeeper('a peer is echoed while it is being taken for dead', { mute: false }, [
    'agentPause',
    'pairCut',
    'oneWay',
  ]),
  plant('the table moves more than it must', ['needless moves'], { table: rangesTable }),
];
