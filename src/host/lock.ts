/** The lock that keeps a second agent off a state folder. */
import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createRequire } from 'node:module';
import { HoldfastError } from '../errors.ts';

interface FsExt {
  flockSync(fd: number, mode: 'exnb' | 'un'): void;
}

/**
 * Takes the exclusive lock of a state folder, or throws HF-AGENT-001. The kernel drops the lock with
 * the process (flock(2)), so a killed agent leaves none behind.
 * @returns a function that gives the lock back.
 */
export function takeLock(stateFolder: string): () => void {
  // fs-ext is CommonJS and must stay on the main thread: it keeps per-process statics.
  const fsExt = createRequire(import.meta.url)('fs-ext') as FsExt;
  // Applications of modules run as other users and keep their files below it.
  mkdirSync(stateFolder, { recursive: true, mode: 0o711 });
  const file = join(stateFolder, 'lock');
  const fd = openSync(file, 'a', 0o600);
  try {
    fsExt.flockSync(fd, 'exnb');
  } catch (error) {
    closeSync(fd);
    throw new HoldfastError('HF-AGENT-001', { file }, null, error);
  }
  try {
    ftruncateSync(fd);
    writeSync(fd, `${process.pid}\n`);
  } catch {
    // The pid in the file is for people; a full disk must not keep the agent from running.
  }
  return () => closeSync(fd);
}
