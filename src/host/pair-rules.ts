/**
 * What the checkers of a mirror that decides for itself lead to: which rules there are, and which of
 * them holds. Pure but for the time, which comes in.
 */
import { checkResource, procResource } from '../checkers/checker.ts';
import type { CheckConfig, ModuleConfig } from '../config/model.ts';
import {
  type Expression,
  holds,
  resourcesOf,
  type ResourceState,
  type RuleAction,
} from '../core/rules.ts';

/** script: a file below bin/; where it does not end with 0, a stopstart. */
export type WatchAction = RuleAction | { readonly script: string };

export interface WatchRule {
  readonly label: string;
  readonly when: Expression;
  readonly action: WatchAction;
  /** It must hold for this long. */
  readonly forMs: number;
}

/** SafeKit's names of the rules that checkers bring. */
const labelOf: Readonly<Record<CheckConfig['kind'], (ident: string) => string>> = {
  tcp: (ident) => `t_${ident}`,
  ping: (ident) => `p_${ident}`,
  custom: (ident) => `c_${ident}`,
  intf: () => 'interface_failure',
  ip: () => 'ip_failure',
  module: () => 'module_failure',
  splitbrain: () => 'splitbrain_failure',
};

const isDown = (resource: string): Expression => ({ is: 'state', resource, state: 'down' });

/** The administrator's rules, then those of the checkers, unless `extends` leaves them out. */
export function rulesOf({ checks, errd, failover }: ModuleConfig): readonly WatchRule[] {
  const rules: WatchRule[] = (failover?.rules ?? []).map((rule) => ({
    ...rule,
    forMs: failover?.handleTimeMs ?? 0,
  }));
  const taken = new Set(rules.map(({ label }) => label));
  const mayAdd = failover?.extends !== false;
  for (const check of mayAdd ? checks : []) {
    const label = labelOf[check.kind](check.ident);
    // A rule of the same name takes the place of the checker's.
    if (check.action === 'noaction' || taken.has(label)) continue;
    const when = isDown(checkResource(check));
    rules.push({ label, when, action: check.action, forMs: 0 });
  }
  for (const proc of errd?.procs ?? []) {
    if (proc.action === 'noaction') continue;
    const label = procResource(proc);
    const action = actionOf(proc.action);
    rules.push({ label, when: isDown(label), action, forMs: 0 });
  }
  return rules;
}

function actionOf(text: string): WatchAction {
  switch (text) {
    case 'stop':
    case 'stopstart':
    case 'restart':
    case 'wait':
      return text;
    default:
      return { script: text };
  }
}

/** Since when rules hold. */
export class RuleTimes {
  readonly #since = new Map<WatchRule, number>();

  /** The rules that hold long enough, in their order. */
  ripe(
    rules: readonly WatchRule[],
    resources: ReadonlyMap<string, ResourceState>,
    nowMs: number,
  ): readonly WatchRule[] {
    for (const rule of rules) {
      if (!holds(rule.when, resources)) this.#since.delete(rule);
      else if (!this.#since.has(rule)) this.#since.set(rule, nowMs);
    }
    return rules.filter((rule) => {
      const since = this.#since.get(rule);
      return since !== undefined && nowMs - since >= rule.forMs;
    });
  }

  /** When the next of those that hold will have held long enough; null: none. */
  nextMs(nowMs: number): number | null {
    const left = [...this.#since].map(([rule, since]) => since + rule.forMs - nowMs);
    const waiting = left.filter((ms) => ms > 0);
    return waiting.length === 0 ? null : Math.min(...waiting);
  }

  clear(): void {
    this.#since.clear();
  }
}

/** The resources that a rule of this action looks at. */
export function lookedAt(
  rules: readonly WatchRule[],
  action: RuleAction,
  known: Iterable<string>,
): ReadonlySet<string> {
  const all = [...known];
  return new Set(
    rules.filter((rule) => rule.action === action).flatMap((rule) => resourcesOf(rule.when, all)),
  );
}
