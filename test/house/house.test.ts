/** The house rules, held over the whole repository. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { directions, impurities, wrongImports, wrongIncludes } from './imports.ts';
import { read, root, sources } from './source.ts';
import {
  deadLinks,
  dependenciesOf,
  leftoversIn,
  longFiles,
  ownChances,
  type PackageJson,
  tooLong,
  unusedPackages,
  wrongDependencies,
  wrongErrorCodes,
} from './tidy.ts';

const typeScript = ['.ts'];
const native = ['.cc', '.h', '.hpp', '.c'];
const product = sources(['src'], typeScript);
const engines = sources(['native'], native);
const packageJson = JSON.parse(read('package.json')) as PackageJson;

function none(findings: readonly string[]): void {
  assert.equal(findings.length, 0, `\n${findings.join('\n')}`);
}

describe('import directions', () => {
  test('there is something to look at', () => {
    const parts = new Set(product.map(({ path }) => path.split('/')[1]));
    for (const part of ['core', 'config', 'native', 'host', 'api', 'cli']) {
      assert.ok(parts.has(part), part);
    }
  });

  test('src: nothing imports upward', () => none(wrongImports(product)));

  test('src: each folder has its place', () => {
    const folders = new Set(
      product
        .map(({ path }) => path.split('/'))
        .flatMap((parts) => (parts.length > 2 ? [parts[1]] : [])),
    );
    none(
      [...folders]
        .filter((name) => name !== undefined && directions[name] === undefined)
        .map(String),
    );
  });

  test('core: no clock, no chance, no outside', () => {
    none(impurities(product.filter(({ path }) => path.startsWith('src/core/'))));
  });

  test('native: engines know neither Node nor each other', () => none(wrongIncludes(engines)));
});

describe('files', () => {
  test('none is too long', () => {
    const tools = sources(['tools'], ['.mjs']);
    none(tooLong([...product, ...engines, ...sources(['bench'], typeScript), ...tools]));
  });

  test('each exception still is one', () => {
    none(Object.keys(longFiles).filter((path) => !existsSync(join(root, path))));
  });

  test('nothing is left over', () => {
    const folders = [
      'src',
      'native',
      'test',
      'bench',
      'tools',
      'modules',
      'docs',
      'schema',
      'bin',
      '.ci',
    ];
    const top = ['README.md', 'CHANGELOG.md', 'package.json', 'binding.gyp'];
    const all = sources([...folders, ...top], ['']);
    none(leftoversIn(all.filter(({ path }) => !path.startsWith('test/house/'))));
  });

  test('no test has a seed of its own', () => {
    const tests = sources(['test'], typeScript);
    const own = ['test/house/', 'test/support/'];
    none(ownChances(tests.filter(({ path }) => !own.some((folder) => path.startsWith(folder)))));
    const wrong =
      "import fc from 'fast-check';\nconst first = Date.now() % 7;\nfoo(Math.random());\n";
    assert.equal(ownChances([{ path: 'test/a.test.ts', text: wrong }]).length, 3);
  });

  test('every test is found by the runner', () => {
    const tests = sources(['test'], typeScript);
    const runs = tests.filter(
      ({ text }) => /from 'node:test'/.test(text) && /^(describe|test)\(/m.test(text),
    );
    none(runs.map(({ path }) => path).filter((path) => !path.endsWith('.test.ts')));
  });
});

describe('errors', () => {
  test('codes are well-formed, unique and used', () => {
    const registry = product.filter(({ path }) => path.startsWith('src/errors/'));
    none(
      wrongErrorCodes(
        registry,
        product.filter(({ path }) => !path.startsWith('src/errors/')),
      ),
    );
  });
});

describe('dependencies', () => {
  const apt = Object.values(
    JSON.parse(read('tools/packages.json')) as Record<string, { apt: string[] }>,
  ).flatMap((group) => group.apt);

  test('exact versions, each with its reason', () => {
    none(wrongDependencies(packageJson, apt, read('docs/dependencies.md')));
  });

  test('each that is installed with the product is used by it', () => {
    const names = Object.keys(packageJson.dependencies ?? {});
    // The engines have node-addon-api as headers, by way of their build files.
    none(
      unusedPackages(
        names.filter((name) => name !== 'node-addon-api'),
        product,
      ),
    );
    assert.match(read('native/addon.gypi'), /node-addon-api/);
  });

  test('the lock is of this package.json', () => {
    const lock = JSON.parse(read('package-lock.json')) as { packages: { '': PackageJson } };
    assert.deepEqual(
      new Map(dependenciesOf(lock.packages[''])),
      new Map(dependenciesOf(packageJson)),
    );
  });

  test('nan builds with each Node, and only named packages run install scripts', () => {
    assert.match(packageJson.overrides?.['nan'] ?? '', /^\d+\.\d+\.\d+$/);
    const lock = JSON.parse(read('package-lock.json')) as {
      packages: Record<string, { hasInstallScript?: boolean; dev?: boolean }>;
    };
    const scripts = Object.entries(lock.packages).filter(([, entry]) => entry.hasInstallScript);
    const names = scripts.map(([path]) => path.replace(/^.*node_modules\//, ''));
    none(names.filter((name) => packageJson.allowScripts?.[name] === undefined));
  });
});

describe('documents', () => {
  test('links lead somewhere', () => {
    const documents = sources(['docs', 'README.md', 'CHANGELOG.md'], ['.md']);
    none(deadLinks(documents, (path) => existsSync(join(root, path))));
  });
});
