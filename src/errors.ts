import { agentErrors } from './errors/agent.ts';
import { arbiterErrors } from './errors/arbiter.ts';
import { cliErrors } from './errors/cli.ts';
import { clusterErrors } from './errors/cluster.ts';
import { configErrors } from './errors/config.ts';
import { labErrors } from './errors/lab.ts';
import { mirrorErrors } from './errors/mirror.ts';
import { moduleErrors } from './errors/module.ts';
import { nativeErrors } from './errors/native.ts';
import { refusalErrors } from './errors/refusal.ts';

/**
 * What one error is: a sentence with {placeholders}, and what the operator can do about it.
 * The area files under src/errors/ hold the entries; this file makes them one registry.
 */
export interface ErrorSpec {
  readonly sentence: string;
  readonly hint: string;
  /** Exit code of the CLI; 1 where absent. */
  readonly exit?: number;
  /** HTTP status of the API; 400 where absent. */
  readonly http?: number;
}

export const errorRegistry = {
  ...agentErrors,
  ...arbiterErrors,
  ...cliErrors,
  ...clusterErrors,
  ...configErrors,
  ...labErrors,
  ...mirrorErrors,
  ...moduleErrors,
  ...nativeErrors,
  ...refusalErrors,
} as const satisfies Record<string, ErrorSpec>;

export type ErrorCode = keyof typeof errorRegistry;

/** A place in a file that an error speaks of. */
export interface ErrorPlace {
  readonly file: string;
  readonly line: number;
}

/** An error as it travels through the API and `--json`. */
export interface ErrorRecord {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  readonly file?: string;
  readonly line?: number;
}

/** An operating error with a code of the registry. Programmer errors are assertions, not this. */
export class HoldfastError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;
  readonly exit: number;
  readonly http: number;
  readonly place: ErrorPlace | null;

  constructor(
    code: ErrorCode,
    values: Readonly<Record<string, string | number>> = {},
    place: ErrorPlace | null = null,
    cause?: unknown,
  ) {
    const spec: ErrorSpec = errorRegistry[code];
    super(fill(spec.sentence, values), cause === undefined ? undefined : { cause });
    this.name = 'HoldfastError';
    this.code = code;
    this.hint = fill(spec.hint, values);
    this.exit = spec.exit ?? 1;
    this.http = spec.http ?? 400;
    this.place = place;
  }

  /** The one-line form of the CLI and the log: `error[CODE] file:line: sentence`. */
  line(severity: 'error' | 'warning' = 'error'): string {
    const at = this.place === null ? '' : `${this.place.file}:${this.place.line}: `;
    return `${severity}[${this.code}] ${at}${this.message}`;
  }

  toRecord(): ErrorRecord {
    return {
      code: this.code,
      message: this.message,
      hint: this.hint,
      ...(this.place === null ? {} : { file: this.place.file, line: this.place.line }),
    };
  }
}

function fill(template: string, values: Readonly<Record<string, string | number>>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) =>
    name in values ? String(values[name]) : whole,
  );
}
