/** Files that the command line names. */
import { readFile } from 'node:fs/promises';
import { HoldfastError } from '../errors.ts';

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
