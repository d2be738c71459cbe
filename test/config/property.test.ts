import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { diag } from 'libxml2-wasm';
import {
  type ClusterSource,
  parseClusterConfig,
  renderClusterXml,
} from '../../src/config/index.ts';
import { clusterXml, config, moduleXml, parseModule } from './fixtures.ts';
import { mirrorXml } from './mirror-cases.ts';
import { fc } from '../support/random.ts';

/** Whatever the text: no exception, and either a configuration or errors that can be shown. */
function holds(parsed: ReturnType<typeof parseModule> | ReturnType<typeof parseClusterConfig>) {
  assert.equal(parsed.config === null, parsed.errors.length > 0);
  assert.ok(parsed.errors.length <= 51);
  let line = 0;
  for (const error of parsed.errors) {
    assert.ok(error.place !== null && error.place.line >= Math.max(1, line));
    line = error.place.line;
    assert.doesNotMatch(error.line(), /\n|HF-CONFIG-027/);
  }
}

/** Cuts, doublings, insertions and swaps of pieces of a good file. */
function mutated(xml: string): fc.Arbitrary<string> {
  const place = fc.nat(xml.length);
  const piece = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 8 }),
    fc.constantFrom(
      '<',
      '>',
      '"',
      '&',
      '%',
      '\n',
      '</safe>',
      '<!--',
      '-->',
      '<![CDATA[',
      ']]>',
      '<?',
      '<!DOCTYPE x>',
      '<rule/>',
      ' addr="x"',
      ' power="-1"',
      '%VIP%',
      '%%',
      '&#0;',
      '&lt;',
      'xmlns="u"',
      '\0',
      '\ud800',
    ),
  );
  const edit = fc.tuple(place, place, piece);
  return fc.array(edit, { minLength: 1, maxLength: 4 }).map((edits) =>
    edits.reduce((text, [at, length, inserted]) => {
      const cut = length % 12;
      return text.slice(0, at) + inserted + text.slice(at + cut);
    }, xml),
  );
}

/** A good file with the values of some attributes replaced: gets past the XML parser. */
function revalued(xml: string): fc.Arbitrary<string> {
  const values = fc.oneof(
    fc.string({ maxLength: 12 }),
    fc.constantFrom(
      '',
      '*',
      '0',
      '-1',
      '1e9',
      '99999999999999999999',
      '%VIP%',
      'on',
      'farm',
      'light',
      'mirror',
      '::',
      '10.0.0.1',
      'fd00::1',
      '0.0.0.0',
      '1d',
      '999999d',
      '5us',
      'ff:ff:ff:ff:ff:ff',
      '80-79',
      '../x',
      '__proto__',
      'arp',
      'on_ipid',
      'vmac_directed',
      'web1',
      '/var/lib',
      '64m',
      '![a-',
      'a{1,',
    ),
  );
  const total = xml.match(/="[^"]*"/g)?.length ?? 0;
  return fc
    .array(fc.tuple(fc.nat(total - 1), values), { minLength: 1, maxLength: 5 })
    .map((edits) => {
      const chosen = new Map(edits);
      let index = 0;
      return xml.replace(/="[^"]*"/g, (whole) => {
        const value = chosen.get(index);
        index += 1;
        if (value === undefined) return whole;
        return `="${value.replace(/[&<"]/g, (c) => `&#${c.charCodeAt(0)};`)}"`;
      });
    });
}

const ident = fc.stringMatching(/^[a-z][a-z0-9]{0,10}$/);
const address = fc
  .tuple(fc.integer({ min: 1, max: 126 }), fc.nat(255), fc.nat(255), fc.nat(255))
  .map((bytes) => bytes.join('.'));

const source: fc.Arbitrary<ClusterSource> = fc
  .tuple(
    fc.uniqueArray(ident, { minLength: 1, maxLength: 8 }),
    fc.uniqueArray(ident, { minLength: 1, maxLength: 3 }),
    fc.uniqueArray(address, { minLength: 24, maxLength: 24 }),
    fc.integer({ min: 10, max: 10_000 }),
    fc.integer({ min: 2, max: 30 }),
  )
  .map(([names, lans, addresses, heartbeatMs, lostCount]) => ({
    nodes: names.map((name, id) => ({ id, name })),
    lans: lans.map((name, lan) => ({
      name,
      command: lan === 0,
      nodes: names.map((_, node) => {
        const addr = addresses[lan * 8 + node] ?? '';
        return { node, addr, laddr: addr };
      }),
    })),
    heartbeatMs,
    lostCount,
  }));

describe('the parsers', () => {
  it('give the memory of the XML library back', () => {
    holds(parseModule(moduleXml));
    diag.configure({ enabled: true });
    try {
      const texts = [
        moduleXml,
        moduleXml.slice(0, 900),
        '<safe/>',
        '<x/>',
        moduleXml.replace('tcp', 'x'),
      ];
      for (const text of texts) holds(parseModule(text));
      assert.deepEqual(diag.report(), {});
    } finally {
      diag.configure({ enabled: false });
    }
  });
  it('never throw, on any text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
        holds(parseModule(text));
        holds(parseClusterConfig(text));
      }),
      { numRuns: 300 },
    );
  });
  it('never throw, on damaged files', () => {
    fc.assert(
      fc.property(mutated(moduleXml), (text) => holds(parseModule(text))),
      { numRuns: 400 },
    );
    fc.assert(
      fc.property(mutated(mirrorXml), (text) => holds(parseModule(text))),
      { numRuns: 300 },
    );
    fc.assert(
      fc.property(mutated(clusterXml), (text) => holds(parseClusterConfig(text))),
      { numRuns: 300 },
    );
  });
  it('never throw, on wrong values', () => {
    fc.assert(
      fc.property(revalued(moduleXml), (text) => holds(parseModule(text))),
      { numRuns: 400 },
    );
    fc.assert(
      fc.property(revalued(mirrorXml), (text) => holds(parseModule(text))),
      { numRuns: 400 },
    );
    fc.assert(
      fc.property(revalued(clusterXml), (text) => holds(parseClusterConfig(text))),
      { numRuns: 300 },
    );
  });
  it('read what renderClusterXml writes', () => {
    fc.assert(
      fc.property(source, (wanted) => {
        const read = config(parseClusterConfig(renderClusterXml(wanted)));
        assert.deepEqual(
          {
            nodes: read.nodes,
            lans: read.lans,
            heartbeatMs: read.heartbeatMs,
            lostCount: read.lostCount,
          },
          wanted,
        );
        assert.deepEqual(config(parseClusterConfig(renderClusterXml(read))), read);
      }),
    );
  });
  it('end soon on hostile text', () => {
    // Each of these would take minutes if anything in the reader grew with the square of the size.
    const hostile = [
      '<'.repeat(1_000_000),
      '</'.repeat(500_000),
      `<safe ${'a="'.repeat(300_000)}`,
      `<safe>${'<!--'.repeat(250_000)}`,
      `<safe ${' '.repeat(1_000_000)}`,
      `<${'a'.repeat(1_000_000)}`,
      `<safe>${'<a>\n'.repeat(4000)}`,
      `<safe>${'<a/>\n'.repeat(4900)}</safe>`,
      `<safe>${'%x%'.repeat(300_000)}</safe>`,
      `<safe><service mode="farm"><user><var name="A" value="${'%'.repeat(1_000_000)}"/></user></service></safe>`,
    ];
    for (const text of hostile) holds(parseModule(text));
  });
});
