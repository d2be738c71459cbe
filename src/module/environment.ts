import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Paths } from '../paths.ts';
import { moduleDirs } from './name.ts';

/** States of a module as scripts are told them. */
export type ScriptState = 'STOP' | 'WAIT' | 'ALONE' | 'UP' | 'PRIM' | 'SECOND';

/** What a script is told of the module it belongs to. */
export interface ScriptModule {
  readonly name: string;
  /** Name of this node in cluster.xml. */
  readonly node: string;
  /** `<user><var>` of its configuration. */
  readonly vars: Readonly<Record<string, string>>;
}

/** Programs of the product (`holdfast` itself); from dist/src/module to bin. */
const productBin = fileURLToPath(new URL('../../../bin', import.meta.url));
const systemPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The whole environment of a module's scripts and checks: SafeKit's names, the module's own variables,
 * nothing of the agent's environment but the language, so that a script behaves the same whoever
 * started the agent. A module variable cannot take the place of one of ours.
 */
export function scriptEnvironment(
  paths: Paths,
  module: ScriptModule,
  state: ScriptState,
): Record<string, string> {
  const dirs = moduleDirs(paths, module.name);
  const root = process.env['HOLDFAST_ROOT'];
  return {
    ...module.vars,
    // The agent's own Node.js comes last, for scripts in JavaScript on servers without another one.
    PATH: `${systemPath}:${productBin}:${dirname(process.execPath)}`,
    LANG: process.env['LANG'] ?? 'C.UTF-8',
    HOME: '/root',
    SAFE: paths.etc,
    SAFEMODULE: module.name,
    SAFEBIN: productBin,
    SAFEUSERBIN: dirs.bin,
    SAFEUSERCONF: dirs.conf,
    SAFEVAR: paths.state,
    SAFEUSERVAR: dirs.userVar,
    SAFELOG: dirs.log,
    HOLDFAST_NODE: module.node,
    HOLDFAST_MODULE: module.name,
    HOLDFAST_STATE: state,
    // The scripts' `holdfast` must talk to the agent that runs them.
    ...(root === undefined ? {} : { HOLDFAST_ROOT: root }),
  };
}
