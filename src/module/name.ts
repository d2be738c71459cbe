import { join } from 'node:path';
import { HoldfastError } from '../errors.ts';
import type { Paths } from '../paths.ts';

/** Where one module keeps its files on this node. */
export interface ModuleDirs {
  /** The installed module: conf/ and bin/. SafeKit's SAFE/modules/NAME. */
  readonly root: string;
  readonly conf: string;
  readonly bin: string;
  readonly userconfig: string;
  /** What the agent remembers of the module. */
  readonly state: string;
  /** The scripts' own folder for pid files and the like (SAFEUSERVAR); the agent never touches it. */
  readonly userVar: string;
  /** Former configurations, newest has the greatest number. */
  readonly history: string;
  /** Which script runs now; in /run, as it means nothing after a reboot. */
  readonly running: string;
  /** Which process a custom checker has; in /run for the same reason. */
  checker(ident: string): string;
  /** User logs. */
  readonly log: string;
}

const syntax = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$/;

/** True for 1 to 32 of letters, digits, `_`, `-`, `.`, beginning with a letter or a digit. */
export function isModuleName(name: string): boolean {
  return syntax.test(name);
}

/** Throws HF-MODULE-001 unless the name is one; a checked name is safe as one path component. */
export function checkModuleName(name: string): void {
  if (!isModuleName(name)) throw new HoldfastError('HF-MODULE-001', { name: name.slice(0, 64) });
}

/** The folders of a module; throws HF-MODULE-001 for what is not a module's name. */
export function moduleDirs(paths: Paths, name: string): ModuleDirs {
  checkModuleName(name);
  const root = join(paths.modules, name);
  const state = join(paths.state, 'modules', name);
  return {
    root,
    conf: join(root, 'conf'),
    bin: join(root, 'bin'),
    userconfig: join(root, 'conf/userconfig.xml'),
    state,
    userVar: join(state, 'var'),
    history: join(state, 'history'),
    running: join(paths.run, 'modules', `${name}.script`),
    checker: (ident) => join(paths.run, 'modules', `${name}.check.${encodeURIComponent(ident)}`),
    log: join(paths.log, 'modules', name),
  };
}
