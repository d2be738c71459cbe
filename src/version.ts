import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The package's root: this file is dist/src/version.js when it runs. */
export const packageRoot = join(dirname(fileURLToPath(import.meta.url)), '../..');

/** Version of the product, from package.json. */
export const version: string = (
  JSON.parse(
    readFileSync(createRequire(import.meta.url).resolve('../../package.json'), 'utf8'),
  ) as {
    version: string;
  }
).version;
