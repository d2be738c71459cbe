/** The files of the repository as the house rules see them. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository, seen from dist/test/house. */
export const root = fileURLToPath(new URL('../../../', import.meta.url));

export interface Source {
  /** Relative to the repository, with `/`. */
  readonly path: string;
  readonly text: string;
}

/** A breach of a rule, as it is shown: `path:line: what`. */
export type Finding = string;

function pathsBelow(folder: string): string[] {
  const full = join(root, folder);
  if (!existsSync(full)) return [];
  return readdirSync(full, { withFileTypes: true }).flatMap((entry) => {
    const path = posix.join(folder, entry.name);
    return entry.isDirectory() ? pathsBelow(path) : [path];
  });
}

function isFolder(path: string): boolean {
  return statSync(join(root, path), { throwIfNoEntry: false })?.isDirectory() === true;
}

/** All files below the folders (or the files themselves) whose name ends in one of `ends`. */
export function sources(folders: readonly string[], ends: readonly string[]): Source[] {
  return folders
    .flatMap((path) => (isFolder(path) ? pathsBelow(path) : [path]))
    .filter((path) => ends.some((end) => path.endsWith(end)) && existsSync(join(root, path)))
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));
}

/** Each line with its number from 1. */
export function* numbered(text: string): Generator<readonly [number, string]> {
  let number = 0;
  for (const line of text.split('\n')) yield [(number += 1), line];
}

/** The text of one file of the repository. */
export function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}
