/**
 * Exit codes of `holdfast`, and how an error is told. `status -q` alone answers by the module's state
 * (SafeKit's codes 0 to 4); there every error is 64 or more, so that it is never taken for a state.
 */
import { CommanderError } from 'commander';
import { type ErrorRecord, HoldfastError } from '../errors.ts';
import type { ModuleState } from '../host/face.ts';
import type { Io } from './io.ts';

export const exitCodes = {
  done: 0,
  failed: 1,
  badConfig: 2,
  differs: 3,
  usage: 64,
  unavailable: 69,
  internal: 70,
} as const;

/** What each code means, for the reference. */
export const exitMeanings: readonly (readonly [number, string])[] = [
  [exitCodes.done, 'done'],
  [exitCodes.failed, 'refused or failed; the error says why'],
  [exitCodes.badConfig, 'a configuration has errors; all of them are printed'],
  [exitCodes.differs, '`verify` found differences'],
  [exitCodes.usage, 'the command line is wrong'],
  [exitCodes.unavailable, 'the agent, or the node named by -H, does not answer'],
  [exitCodes.internal, 'an error inside Holdfast; with `status -q` any other error'],
];

/** SafeKit's exit codes of `state -q`. */
export const stateCodes: Readonly<Record<ModuleState, number>> = {
  STOP: 0,
  WAIT: 1,
  ALONE: 2,
  UP: 2,
  PRIM: 3,
  SECOND: 4,
};

/** Several errors of one command: all that is wrong with a configuration. */
export class ManyErrors extends Error {
  readonly records: readonly ErrorRecord[];

  constructor(records: readonly ErrorRecord[]) {
    super(`${records.length} errors`);
    this.records = records;
  }
}

/** The exit code of an error. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) {
    return error.exitCode === 0 ? exitCodes.done : exitCodes.usage;
  }
  if (error instanceof ManyErrors) return exitCodes.badConfig;
  if (!(error instanceof HoldfastError)) return exitCodes.internal;
  return error.code.startsWith('HF-CONFIG-') ? exitCodes.badConfig : error.exit;
}

/** Its code with `status -q`, where 1 to 4 are states. */
export function quietExitCodeOf(error: unknown): number {
  const code = exitCodeOf(error);
  return code >= exitCodes.usage ? code : exitCodes.internal;
}

/** The two lines of an error: what is wrong, and what can be done. */
export function errorLines(record: ErrorRecord): string {
  const at = record.file === undefined ? '' : `${record.file}:${record.line ?? 0}: `;
  const hint = record.hint === '' ? '' : `hint: ${record.hint}\n`;
  return `error[${record.code}] ${at}${record.message}\n${hint}`;
}

/** An error as records; one that is not ours keeps its stack, for it is a fault of this program. */
export function recordsOf(error: unknown): readonly ErrorRecord[] {
  if (error instanceof ManyErrors) return error.records;
  if (error instanceof HoldfastError) return [error.toRecord()];
  const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return [new HoldfastError('HF-API-005', { reason }).toRecord()];
}

/** The JSON form: `error` is the first, `errors` are all where there are several. */
export function jsonOf(error: unknown): {
  readonly error: ErrorRecord | undefined;
  readonly errors?: readonly ErrorRecord[];
} {
  const records = recordsOf(error);
  return { error: records[0], ...(records.length > 1 ? { errors: records } : {}) };
}

/** Tells an error on stderr: as JSON where the command was asked for JSON. */
export function reportError(io: Io, error: unknown, json: boolean): void {
  // Commander has told its own already.
  if (error instanceof CommanderError) return;
  io.err(json ? `${JSON.stringify(jsonOf(error))}\n` : recordsOf(error).map(errorLines).join(''));
}
