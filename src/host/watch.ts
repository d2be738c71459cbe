/** The health gate of a module, from its configuration. */
import { startReadyGate, type GateDeps } from '../checkers/checker.ts';
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
  const deps: GateDeps = {
    paths,
    module: { name: config.name, node, vars: config.user?.vars ?? {} },
    state: () => (config.service.mode === 'mirror' ? 'PRIM' : 'UP'),
    timers: systemTimers,
    report: ({ state, reason }) => report(state === 'up', reason),
  };
  const gate = startReadyGate(ready, deps);
  return { stop: () => void gate.stop() };
}
