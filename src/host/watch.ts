/** The health gate of a module, from its configuration. */
import { startReadyGate, type CheckerDeps } from '../checkers/checker.ts';
import { systemTimers } from '../checkers/poll.ts';
import type { ModuleConfig, ReadyConfig } from '../config/model.ts';
import type { Paths } from '../paths.ts';

/** Starts the gate; reports come on change only, and never after stop. */
export function watchReady(
  ready: ReadyConfig,
  config: ModuleConfig,
  node: string,
  paths: Paths,
  report: (up: boolean, why: string) => void,
): { stop(): void } {
  const deps: CheckerDeps = {
    paths,
    module: { name: config.name, node, vars: config.user?.vars ?? {} },
    state: () => 'UP',
    timers: systemTimers,
    report: ({ state, reason }) => report(state === 'up', reason),
    ...unusedByTheGate,
  };
  const gate = startReadyGate(ready, deps);
  return { stop: () => void gate.stop() };
}

/** What the other kinds of checks need and a gate does not. */
const unusedByTheGate: Pick<CheckerDeps, 'links' | 'pinger' | 'clusterCa'> = {
  links: { addresses: () => [], devices: () => [], subscribe: () => () => {} },
  pinger: { ping: () => Promise.resolve('a gate sends no ping') },
  clusterCa: '',
};
