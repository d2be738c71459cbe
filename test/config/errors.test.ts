/** One mistake each: the code, the line, and no second error for the same mistake. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errorRegistry } from '../../src/errors.ts';
import { parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import type { Case } from './case.ts';
import { clusterCases } from './cluster-cases.ts';
import { cluster, clusterXml, edited, lines, moduleXml, parseModule, places } from './fixtures.ts';
import { mirrorCodes } from './mirror-cases.ts';
import { many, moduleCases } from './module-cases.ts';

const tried = new Set<string>(mirrorCodes);

function check(
  parsed: ReturnType<typeof parseModule> | ReturnType<typeof parseClusterConfig>,
  c: Case,
) {
  assert.deepEqual(places(parsed.errors), c.at, lines(parsed.errors).join('\n'));
  assert.equal(parsed.config, null);
  const said = lines(parsed.errors).join('\n');
  assert.match(said, c.says);
  assert.doesNotMatch(
    said + parsed.errors.map((e) => e.hint).join('\n'),
    /\{\w+\}/,
    'a placeholder is left',
  );
  for (const error of parsed.errors) tried.add(error.code);
}

describe('errors of cluster.xml', () => {
  for (const c of clusterCases) {
    it(`HF-CONFIG-${c.at.join(' ')} ${c.says.source}`, () => {
      check(parseClusterConfig(edited(clusterXml, ...c.edits)), c);
    });
  }
});

describe('errors of userconfig.xml', () => {
  for (const c of moduleCases) {
    it(`HF-CONFIG-${c.at.join(' ')} ${c.says.source}`, () => {
      check(parseModule(edited(moduleXml, ...c.edits)), c);
    });
  }
});

describe('errors of any file', () => {
  const codes = (xml: string) => places(parseModule(xml).errors);

  it('name an empty file', () => {
    for (const xml of ['', '  \n', '\ufeff']) assert.deepEqual(codes(xml), ['004:1']);
    tried.add('HF-CONFIG-004');
  });
  it('name a file that is too large', () => {
    assert.deepEqual(codes(`<safe>${' '.repeat(1024 * 1024)}</safe>`), ['002:1']);
    tried.add('HF-CONFIG-002');
  });
  it('name a bad module name', () => {
    for (const name of ['', '../x', 'a b', 'x'.repeat(33), '.hidden', 'a/b']) {
      const parsed = parseModuleConfig(moduleXml, { name, cluster });
      assert.deepEqual(places(parsed.errors), ['062:1'], name);
    }
    tried.add('HF-CONFIG-062');
  });
  it('are all shown, by line', () => {
    const xml = edited(
      moduleXml,
      ['maxloop="3"', 'maxloop="x"'],
      ['name="office"', 'name="nowhere"'],
      ['addr="fd00::100"', 'addr="10.0.0.1"'],
      ['name="web2"', 'name="web9"'],
      ['8000-8099', '9-1'],
    );
    assert.deepEqual(codes(xml), ['016:4', '064:6', '081:15', '090:28', '093:31']);
  });
  it('end after 50, and say so', () => {
    const xml = edited(moduleXml, [
      '<var name="PORT" value="80"/>',
      many(80, () => '<var name="A-B" value=""/>\n'),
    ]);
    const all = codes(xml);
    assert.equal(all.length, 51);
    assert.equal(all.at(-1), '028:90');
    tried.add('HF-CONFIG-028');
  });
  it('keep control characters of the file off the terminal', () => {
    const [error] = parseModule(edited(moduleXml, ['mode="farm"', 'mode="fa&#9;\u009brm"'])).errors;
    assert.equal(error?.code, 'HF-CONFIG-015');
    assert.match(error?.line() ?? '', /mode="fa rm"/);
  });
  it('never come from an entity or from another file', () => {
    const xml = '<!DOCTYPE safe [<!ENTITY x SYSTEM "file:///etc/hostname">]><safe>&x;</safe>';
    assert.deepEqual(codes(xml), ['006:1']);
    assert.deepEqual(codes('<safe>&x;</safe>'), ['005:1']);
    const bomb = `${many(15, (n) => `<macro name="m${n}" value="${`%m${n + 1}%`.repeat(500)}"/>`)}<macro name="m15" value=""/>`;
    const parsed = parseModule(
      edited(moduleXml, ['<service', `${bomb}<service`], ['value="80"', 'value="%m0%"']),
    );
    assert.deepEqual(places(parsed.errors), []);
  });
});

describe('the registry of configuration errors', () => {
  it('holds nothing that is never said', () => {
    const elsewhere = new Set(['001', '003', '020', '027', '078', '104']);
    const warnings = new Set([
      '037',
      '048',
      '049',
      '060',
      '063',
      '065',
      '067',
      '074',
      '076',
      '077',
      '099',
      '100',
      '116',
      '136',
    ]);
    const untried = Object.keys(errorRegistry)
      .filter((code) => code.startsWith('HF-CONFIG-') && !tried.has(code))
      .map((code) => code.slice(-3))
      .filter((number) => !elsewhere.has(number) && !warnings.has(number));
    assert.deepEqual(untried, []);
  });
});
