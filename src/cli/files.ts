/** Files of this package, and those that the command line names. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HoldfastError } from '../errors.ts';

/** The folder of this package, seen from dist/src/cli. */
export const packageRoot = fileURLToPath(new URL('../../../', import.meta.url));

/** The version of this package. */
export async function ownVersion(): Promise<string> {
  const parsed: unknown = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8'));
  return (parsed as { version: string }).version;
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/** Throws HF-CLI-003. */
export async function readBytes(file: string): Promise<Uint8Array> {
  try {
    return await readFile(file);
  } catch (cause) {
    throw new HoldfastError('HF-CLI-003', { file, reason: reasonOf(cause) }, null, cause);
  }
}

/** Throws HF-CLI-003. `-` is standard input. */
export async function readText(file: string): Promise<string> {
  const bytes = await readBytes(file === '-' ? '/dev/stdin' : file);
  return Buffer.from(bytes).toString('utf8');
}

/** For `.catch()` of a write: throws HF-CLI-004. */
export function cannotWrite(file: string): (cause: unknown) => never {
  return (cause) => {
    throw new HoldfastError('HF-CLI-004', { file, reason: reasonOf(cause) }, null, cause);
  };
}
