/** The rules themselves: each must find what is planted, and nothing else. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { impurities, wrongImports, wrongIncludes } from './imports.ts';
import type { Source } from './source.ts';
import {
  deadLinks,
  leftoversIn,
  maxLines,
  tooLong,
  unusedPackages,
  wrongDependencies,
  wrongErrorCodes,
} from './tidy.ts';

const file = (path: string, text: string): Source => ({ path, text });

describe('wrongImports', () => {
  const bad: readonly (readonly [string, string])[] = [
    ['src/core/farm.ts', "import { readFileSync } from 'node:fs';"],
    ['src/core/farm.ts', "import { HoldfastError } from '../errors.ts';"],
    ['src/core/farm.ts', "import type { ClusterConfig } from '../config/model.ts';"],
    ['src/sim/run.ts', "import { z } from 'zod';"],
    ['src/config/cluster.ts', "import { Host } from '../host/agent.ts';"],
    ['src/native/beat.ts', "const { x } = await import('../host/x.ts');"],
    ['src/host/agent.ts', "import { serve } from '../api/server.ts';"],
    ['src/host/agent.ts', "export * from '../cli/io.ts';"],
    ['src/api/server.ts', "import { main } from '../cli/program.ts';"],
    ['src/api/server.ts', "import { up } from '../lab/lab.ts';"],
    ['src/errors/agent.ts', "import { paths } from '../paths.ts';"],
    ['src/module/package.ts', "import {\n  type A,\n  b,\n} from '../host/face.ts';"],
    ['src/cli/program.ts', "import '../agent.ts';"],
    ['src/cli/program.ts', "import { none } from '../../test/house/tidy.ts';"],
  ];
  for (const [path, text] of bad) {
    test(`found: ${path}: ${text.replace(/\s+/g, ' ')}`, () => {
      assert.equal(wrongImports([file(path, text)]).length, 1);
    });
  }

  const good: readonly (readonly [string, string])[] = [
    ['src/core/farm.ts', "import { bucketCount } from './farm-types.ts';"],
    ['src/core/farm.ts', "// import { x } from '../host/x.ts'\n/* from 'node:fs' */"],
    ['src/sim/run.ts', "import { step } from '../core/farm.ts';"],
    ['src/host/agent.ts', "import { step } from '../core/farm.ts';\nimport { z } from 'zod';"],
    ['src/errors.ts', "import { agentErrors } from './errors/agent.ts';"],
    ['src/cli/program.ts', "const { labCommands } = await import('../lab/cli.ts');"],
    ['src/agent.ts', "import { serve } from './api/server.ts';"],
  ];
  for (const [path, text] of good) {
    test(`let be: ${path}: ${text.replace(/\s+/g, ' ')}`, () => {
      assert.deepEqual(wrongImports([file(path, text)]), []);
    });
  }

  test('the line is that of the import', () => {
    const text = "import { a } from './a.ts';\n\nimport { b } from '../host/b.ts';\n";
    assert.match(wrongImports([file('src/config/x.ts', text)])[0] ?? '', /^src\/config\/x\.ts:3: /);
  });
});

describe('impurities', () => {
  for (const code of [
    'const now = Date.now();',
    'Math.random()',
    'setTimeout(f, 1)',
    'process.env',
  ]) {
    test(`found: ${code}`, () => assert.equal(impurities([file('src/core/a.ts', code)]).length, 1));
  }
  for (const code of ['// Date is not used', "log('the process ended')", 'const update = 1;']) {
    test(`let be: ${code}`, () => assert.deepEqual(impurities([file('src/core/a.ts', code)]), []));
  }
});

describe('wrongIncludes', () => {
  const bad: readonly (readonly [string, string])[] = [
    ['native/beat/engine.cc', '#include <napi.h>'],
    ['native/beat/engine.h', '#include "napi.h"'],
    ['native/beat/engine.cc', '#include "filter/loader.h"'],
    ['native/beat/addon.cc', '#include "../link/link.h"'],
    ['native/common/ring.h', '#include "beat/wire.h"'],
  ];
  for (const [path, text] of bad) {
    test(`found: ${path}: ${text}`, () => {
      assert.equal(wrongIncludes([file(path, `// first\n${text}\n`)]).length, 1);
    });
  }
  const good: readonly (readonly [string, string])[] = [
    ['native/beat/addon.cc', '#include <napi.h>'],
    [
      'native/beat/engine.cc',
      '#include "common/ring.h"\n#include "beat/engine.h"\n#include "wire.h"',
    ],
    ['native/beat/engine.cc', '#include <linux/if_ether.h>\n#include "../common/ring.h"'],
    ['native/test/beat_test.cc', '#include "beat/engine.h"\n#include "filter/loader.h"'],
  ];
  for (const [path, text] of good) {
    test(`let be: ${path}: ${text.replace(/\n/g, ' ')}`, () => {
      assert.deepEqual(wrongIncludes([file(path, text)]), []);
    });
  }
});

describe('tidy rules', () => {
  test('tooLong', () => {
    const lines = (count: number): string => 'x\n'.repeat(count);
    assert.equal(tooLong([file('src/a.ts', lines(maxLines))]).length, 0);
    assert.equal(tooLong([file('src/a.ts', lines(maxLines + 1))]).length, 1);
  });

  test('leftoversIn', () => {
    for (const text of [
      '// TODO later',
      'x(); // FIXME',
      "test.only('a')",
      "'/home/me/x'",
      '/work/x/y',
    ]) {
      assert.equal(leftoversIn([file('src/a.ts', text)]).length, 1, text);
    }
    for (const text of ['mastodon', 'onlyOne(1)', 'at https://host/work/x', '$HOME/x', 'TODOs']) {
      assert.deepEqual(leftoversIn([file('src/a.ts', text)]), [], text);
    }
  });

  test('wrongErrorCodes', () => {
    const entry = (code: string): string => `  '${code}': {\n    sentence: 'x',\n  },\n`;
    const user = file('src/a.ts', "new HoldfastError('HF-A-001'); 'HF-A-002'");
    const check = (...texts: readonly string[]) =>
      wrongErrorCodes(
        texts.map((text, index) => file(`src/errors/${index}.ts`, text)),
        [user],
      );
    assert.deepEqual(check(entry('HF-A-001') + entry('HF-A-002')), []);
    assert.match(
      check(entry('HF-A-001'), entry('HF-A-001')).join(),
      /also at src\/errors\/0\.ts:1/,
    );
    assert.match(check(entry('HF-A-003')).join(), /nothing uses HF-A-003/);
    assert.match(check(entry('HF-a-1')).join(), /is no error code/);
  });

  test('wrongDependencies', () => {
    const json = { dependencies: { zod: '4.6.7' }, devDependencies: { typescript: '7.0.2' } };
    const table = '| `zod` 4.6.7 | why |\n| `typescript` 7.0.2 | why |\n| `clang` | why |\n';
    assert.deepEqual(wrongDependencies(json, ['clang'], table), []);
    assert.equal(wrongDependencies(json, ['make'], table).length, 1);
    assert.equal(wrongDependencies({ dependencies: { zod: '4.6.8' } }, [], table).length, 1);
    assert.equal(wrongDependencies({ dependencies: { zod: '^4.6.7' } }, [], table).length, 2);
  });

  test('unusedPackages', () => {
    const user = file('src/a.ts', "import { z } from 'zod';\nrequire('fs-ext');");
    assert.deepEqual(unusedPackages(['zod', 'fs-ext'], [user]), []);
    assert.deepEqual(unusedPackages(['fs'], [user]), ['nothing uses fs']);
  });

  test('deadLinks', () => {
    const a = file(
      'docs/a.md',
      '# One & two\n[b](b.md) [top](#one--two) [x](../README.md#start)\n',
    );
    const b = file(
      'docs/b.md',
      '[gone](none.md)\n```\n[in code](none.md)\n```\n[out](https://x.y/z)\n',
    );
    const readme = file('README.md', '## Start\n');
    const exists = (path: string): boolean =>
      ['docs/a.md', 'docs/b.md', 'README.md'].includes(path);
    assert.deepEqual(deadLinks([a, b, readme], exists), ['docs/b.md:1: none.md does not exist']);
    const wrong = file('docs/c.md', '[a](a.md#three)\n');
    assert.equal(deadLinks([a, wrong], exists).length, 1);
  });
});
