import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { routes } from '../../src/api/routes.ts';
import { TestCluster } from './fixture.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await TestCluster.make(['a']);
});
after(() => cluster.close());

const tableOf = (): string[] => {
  const { agent, cluster: service } = cluster.node(0);
  return routes({ agent, cluster: service, limitJoin: () => undefined }).map(
    ({ method, path, summary }) =>
      `| ${method} | /api/v1${path.replace(':module', 'MODULE')} | ${summary} |`,
  );
};

describe('the description of the API', () => {
  test('names every route in docs/reference/api.md, in their order', () => {
    const lines = readFileSync('docs/reference/api.md', 'utf8').split('\n');
    const first = lines.indexOf('|---|---|---|', lines.indexOf('## Routes')) + 1;
    const table = tableOf();
    assert.deepEqual(lines.slice(first, first + table.length), table);
  });

  test('as OpenAPI has the bodies, queries and rights of the routes', async () => {
    const outgoing = request({
      socketPath: cluster.node(0).paths.agentSocket,
      path: '/api/v1/openapi.json',
      agent: false,
    });
    outgoing.end();
    const [answer] = (await once(outgoing, 'response')) as [AsyncIterable<Buffer>];
    const chunks: Buffer[] = [];
    for await (const chunk of answer) chunks.push(chunk);
    const { openapi, paths } = JSON.parse(Buffer.concat(chunks).toString()) as {
      openapi: string;
      paths: Record<string, Record<string, Record<string, unknown>>>;
    };
    assert.equal(openapi, '3.1.0');
    assert.equal(Object.values(paths).flatMap(Object.keys).length, tableOf().length + 1);
    const drain = paths['/api/v1/modules/{module}/drain']?.['post'];
    assert.deepEqual(drain?.['parameters'], [
      { name: 'module', in: 'path', required: true, schema: { type: 'string' } },
    ]);
    assert.deepEqual(drain?.['requestBody'], {
      required: true,
      content: {
        'application/json': {
          schema: {
            type: 'object',
            properties: {
              node: { type: 'string', minLength: 1, maxLength: 64 },
              on: { type: 'boolean' },
            },
            required: ['node', 'on'],
            additionalProperties: false,
          },
        },
      },
    });
    assert.deepEqual(drain?.['security'], [{ node: [] }]);
    assert.deepEqual(paths['/api/v1/cluster/join']?.['post']?.['security'], []);
  });
});
