import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HoldfastError } from '../errors.ts';

/** The folder of the package: the nearest one above this file that holds package.json. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && folder !== '/') folder = dirname(folder);
  return folder;
}

/** Path of a file that the native build makes: an addon, an executable, a BPF object. */
export function builtFile(name: string): string {
  return join(packageRoot(), 'build', 'Release', name);
}

/**
 * Loads the addon build/Release/NAME.node. The caller says what it exports. Throws HF-NATIVE-001
 * with the loader's reason (not built, missing library).
 */
export function loadAddon(name: string): unknown {
  try {
    return createRequire(import.meta.url)(builtFile(`${name}.node`)) as unknown;
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new HoldfastError('HF-NATIVE-001', { engine: name, reason }, null, error);
  }
}
