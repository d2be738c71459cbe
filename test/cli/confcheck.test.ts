import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { FileReport } from '../../src/cli/confcheck.ts';
import { HoldfastError } from '../../src/errors.ts';
import { cli, FakeNode } from './fake.ts';

const cluster = `<?xml version="1.0"?>
<!-- two <servers> -->
<cluster>
  <lans>
    <lan name="blue">
      <node name="n1" addr="10.0.0.1"/>
      <node name="n2" addr="10.0.0.2"/>
    </lan>
  </lans>
</cluster>
`;

function farm(addr = '10.0.0.100'): string {
  return `<safe>
  <service mode="farm">
    <farm><lan name="blue"/></farm>
    <vip>
      <interface_list>
        <interface name="eth0">
          <virtual_interface type="vmac_invisible">
            <virtual_addr addr="${addr}" where="alias"/>
          </virtual_interface>
        </interface>
      </interface_list>
      <loadbalancing_list>
        <group name="web">
          <rule port="80" proto="tcp" filter="on_port"/>
        </group>
      </loadbalancing_list>
    </vip>
    <user/>
  </service>
</safe>
`;
}

describe('confcheck', () => {
  let root = '';
  /** Nothing must be asked of it but with -H. */
  let agent = new FakeNode('n1');
  const at = (name: string): string => join(root, name);
  const install = async (name: string, xml: string): Promise<void> => {
    await mkdir(at(`etc/holdfast/modules/${name}/conf`), { recursive: true });
    await writeFile(at(`etc/holdfast/modules/${name}/conf/userconfig.xml`), xml);
  };

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'holdfast-confcheck-'));
  });
  after(() => rm(root, { recursive: true }));
  beforeEach(async () => {
    await rm(root, { recursive: true });
    await mkdir(at('etc/holdfast'), { recursive: true });
    await writeFile(at('etc/holdfast/cluster.xml'), cluster);
    agent = new FakeNode('n1');
    agent.failure = new HoldfastError('HF-API-010', { where: 'socket', reason: 'ENOENT' });
  });

  test('good installed files', async () => {
    await install('web', farm());
    const { code, out, err } = await cli(agent, ['confcheck'], { root });
    assert.equal(err, '');
    assert.equal(
      out,
      `${at('etc/holdfast/cluster.xml')}: ok\n` +
        `${at('etc/holdfast/modules/web/conf/userconfig.xml')}: ok\n`,
    );
    assert.equal(code, 0);
    assert.deepEqual(agent.asked, []);
  });

  test('every error of a file, with code, file, line and hint; exit code 2', async () => {
    const bad = farm()
      .replace('addr="10.0.0.100"', 'adress="10.0.0.100"')
      .replace('proto="tcp"', 'proto="tpc"');
    await writeFile(at('bad.xml'), bad);
    const { code, out, err } = await cli(agent, ['confcheck', at('bad.xml')], { root });
    assert.equal(code, 2);
    const lines = err.trimEnd().split('\n');
    const errors = lines.filter((line) => line.startsWith('error['));
    const form = /^error\[HF-CONFIG-\d{3}\] (.*):(\d+): ./;
    for (const error of errors) assert.equal(form.exec(error)?.[1], at('bad.xml'), error);
    const places = new Set(errors.map((error) => form.exec(error)?.[2]));
    assert.ok(places.has('8') && places.has('14'), err);
    assert.equal(lines.filter((line) => line.startsWith('hint: ')).length, errors.length);
    assert.equal(out, `${at('bad.xml')}: ${errors.length} errors\n`);
  });

  test('--json: a report per file', async () => {
    await writeFile(at('good.xml'), farm());
    await writeFile(at('bad.xml'), farm('10.0.0.300'));
    const files = [at('good.xml'), at('bad.xml')];
    const { code, out, err } = await cli(agent, ['confcheck', '--json', ...files], { root });
    const reports = JSON.parse(out) as FileReport[];
    assert.deepEqual(
      reports.map(({ file, ok }) => [file, ok]),
      [
        [files[0], true],
        [files[1], false],
      ],
    );
    const [error] = reports[1]?.errors ?? [];
    assert.equal(error?.file, files[1]);
    assert.equal(error?.line, 8);
    assert.match(error?.code ?? '', /^HF-CONFIG-\d{3}$/);
    assert.equal(err, '');
    assert.equal(code, 2);
  });

  test('a cluster.xml among the files, or named by --cluster, is the one to check against', async () => {
    await rm(at('etc/holdfast/cluster.xml'));
    await writeFile(at('cluster.xml'), cluster);
    await writeFile(at('user.xml'), farm());
    const both = await cli(agent, ['confcheck', at('user.xml'), at('cluster.xml')], { root });
    assert.equal(both.code, 0, both.err);
    const named = ['confcheck', at('user.xml'), '--cluster', at('cluster.xml')];
    assert.equal((await cli(agent, named, { root })).code, 0);
    const without = await cli(agent, ['confcheck', at('user.xml')], { root });
    assert.match(without.err, /^error\[HF-CLI-010\] no cluster\.xml to check .*user\.xml against/);
    assert.equal(without.code, 2);
  });

  test('a module is checked against the networks of the cluster', async () => {
    await writeFile(at('user.xml'), farm().replace('lan name="blue"', 'lan name="red"'));
    const { code, err } = await cli(agent, ['confcheck', at('user.xml')], { root });
    assert.match(err, /user\.xml:3: .*red/);
    assert.equal(code, 2);
  });

  test('-m checks one installed module', async () => {
    await install('web', farm());
    await install('broken', '<safe>');
    const good = await cli(agent, ['confcheck', '-m', 'web'], { root });
    assert.equal(good.code, 0, good.err);
    assert.equal((await cli(agent, ['confcheck', '-m', 'broken'], { root })).code, 2);
    assert.equal((await cli(agent, ['confcheck', 'web'], { root })).out, good.out);
    assert.equal((await cli(agent, ['confcheck', '-m', '../web'], { root })).code, 1);
    assert.equal((await cli(agent, ['confcheck', '-m', 'nope'], { root })).code, 2);
  });

  test('installed modules that exclude each other', async () => {
    await install('web', farm());
    await install('shop', farm());
    const { code, err } = await cli(agent, ['confcheck'], { root });
    assert.match(err, /error\[HF-CONFIG-\d{3}\] .*10\.0\.0\.100/);
    assert.equal(code, 2);
  });

  test('files that are no configuration', async () => {
    await writeFile(at('page.xml'), '<html/>');
    await writeFile(at('empty.xml'), '');
    await writeFile(at('bytes.xml'), Buffer.from([0x3c, 0xff, 0xfe]));
    for (const [name, code] of [
      ['page.xml', 'HF-CLI-006'],
      ['empty.xml', 'HF-CONFIG-'],
      ['bytes.xml', 'HF-CONFIG-'],
      ['none.xml', 'HF-CONFIG-'],
    ] as const) {
      const result = await cli(agent, ['confcheck', at(name)], { root });
      assert.ok(result.err.startsWith(`error[${code}`), `${name}: ${result.err}`);
      assert.equal(result.code, 2, name);
    }
  });

  test('-H asks the agent of that node', async () => {
    const there = new FakeNode('n2', agent.cluster);
    agent.failure = null;
    const good = await cli(agent, ['confcheck', '-m', 'web', '-H', 'n2'], { root });
    assert.equal(good.out, 'web: ok\n');
    assert.deepEqual(there.asked.at(-1), ['check', 'web', null]);
  });
});

describe('config', () => {
  const records = [3, 9].map((line) => ({
    code: 'HF-CONFIG-012',
    message: `wrong ${line}`,
    hint: 'do this',
    file: 'userconfig.xml',
    line,
  }));

  test('applies the installed file, or one that is given', async () => {
    const node = new FakeNode('n1');
    const { out } = await cli(node, ['config', 'web']);
    assert.equal(out, 'web  UP (Ready)\n');
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-config-'));
    await writeFile(join(folder, 'new.xml'), '<safe/>');
    await cli(node, ['config', '-m', 'web', '-f', join(folder, 'new.xml')]);
    await rm(folder, { recursive: true });
    assert.deepEqual(
      node.asked.filter(([what]) => what === 'apply'),
      [
        ['apply', 'web', null],
        ['apply', 'web', '<safe/>'],
      ],
    );
  });

  test('a configuration with errors is not applied; all of them are told', async () => {
    const node = new FakeNode('n1');
    node.configErrors = records;
    const { code, err } = await cli(node, ['config', 'web']);
    assert.equal(
      err,
      'error[HF-CONFIG-012] userconfig.xml:3: wrong 3\nhint: do this\n' +
        'error[HF-CONFIG-012] userconfig.xml:9: wrong 9\nhint: do this\n',
    );
    assert.equal(code, 2);
    assert.deepEqual(
      node.asked.filter(([what]) => what === 'apply'),
      [],
    );
    const json = await cli(node, ['config', 'web', '--json']);
    assert.deepEqual(JSON.parse(json.err), { error: records[0], errors: records });
  });

  test('a file that is not there', async () => {
    const node = new FakeNode('n1');
    const { code, err } = await cli(node, ['config', 'web', '-f', '/no/such/file']);
    assert.match(err, /^error\[HF-CLI-003\] \/no\/such\/file cannot be read/);
    assert.equal(code, 1);
    assert.deepEqual(node.asked, []);
  });
});
