import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import { type ElementRule, packageRoot, schemaOf } from '../../src/config/schema.ts';
import { config, lines } from './fixtures.ts';

const root = packageRoot();

interface Generator {
  renderDocs(): Map<string, string>;
}

async function generated(): Promise<Map<string, string>> {
  const tool = pathToFileURL(join(root, 'tools/docs.mjs')).href;
  return ((await import(tool)) as Generator).renderDocs();
}

function example(markdown: string): string {
  const xml = /```xml\n([^]*?)```/.exec(markdown)?.[1];
  assert.ok(xml !== undefined);
  return xml;
}

describe('the reference', () => {
  it('is as its sources', async () => {
    for (const [path, text] of await generated()) {
      const same = readFileSync(join(root, path), 'utf8') === text;
      assert.ok(same, `${path} is not as its sources: run \`node tools/docs.mjs\` after the build`);
    }
  });

  it('shows examples that are accepted', async () => {
    const docs = await generated();
    const clusterDoc = parseClusterConfig(example(docs.get('docs/reference/cluster.xml.md') ?? ''));
    const cluster = config(clusterDoc);
    const module = parseModuleConfig(example(docs.get('docs/reference/userconfig.xml.md') ?? ''), {
      name: 'web',
      cluster,
    });
    config(module);
    assert.deepEqual(lines([...clusterDoc.warnings, ...module.warnings]), []);
  });

  it('says something of every element and attribute', () => {
    const visit = (rule: ElementRule) => {
      assert.notEqual(rule.text, '', rule.name);
      for (const attribute of rule.attributes.values()) {
        assert.notEqual(attribute.text, '', `${rule.name} ${attribute.name}`);
        assert.notEqual(attribute.wanted, '', `${rule.name} ${attribute.name}`);
      }
      for (const child of rule.children.values()) visit(child);
    };
    visit(schemaOf('cluster').root);
    visit(schemaOf('userconfig').root);
  });
});
