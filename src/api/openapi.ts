/** The API's description as OpenAPI 3.1, made from the table of routes. */
import { z } from 'zod';
import { type Route, StreamQuery } from './routes.ts';

const errorAnswerSchema = {
  description: 'Refused; see docs/reference/errors.md for the codes',
  content: {
    'application/json': {
      schema: {
        type: 'object',
        required: ['error'],
        properties: {
          error: {
            type: 'object',
            required: ['code', 'message', 'hint'],
            properties: {
              code: { type: 'string' },
              message: { type: 'string' },
              hint: { type: 'string' },
              file: { type: 'string' },
              line: { type: 'integer' },
            },
          },
        },
      },
    },
  },
} as const;

/** What the routes outside the table look like in the description. */
const stream: Pick<Route, 'method' | 'path' | 'summary' | 'query'> = {
  method: 'GET',
  path: '/events/stream',
  summary: 'The event journal as server-sent events; resumes after Last-Event-ID',
  query: StreamQuery,
};

/** The document; `version` is the product's. */
export function openApi(routes: readonly Route[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of [...routes, stream as Route]) {
    const path = `/api/v1${route.path.replace(/:(\w+)/g, '{$1}')}`;
    const operations = (paths[path] ??= {});
    operations[route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Holdfast', version, license: { name: 'Apache-2.0' } },
    components: { securitySchemes: { node: { type: 'mutualTLS' } } },
    paths,
  };
}

function operation(route: Route): Record<string, unknown> {
  const pathNames = [...route.path.matchAll(/:(\w+)/g)].map(([, name]) => name);
  const query = route.query === undefined ? {} : jsonSchema(route.query);
  const required = new Set((query['required'] as string[] | undefined) ?? []);
  const parameters = [
    ...pathNames.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
    ...Object.entries((query['properties'] as object | undefined) ?? {}).map(([name, schema]) => ({
      name,
      in: 'query',
      required: required.has(name),
      schema: schema as unknown,
    })),
  ];
  const content =
    route.archive === true
      ? { 'application/octet-stream': {} }
      : route.body === undefined
        ? null
        : { 'application/json': { schema: jsonSchema(route.body) } };
  return {
    summary: route.summary,
    security: route.open === true ? [] : [{ node: [] }],
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(content === null ? {} : { requestBody: { required: true, content } }),
    responses: { 200: { description: 'Done' }, default: errorAnswerSchema },
  };
}

function jsonSchema(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: 'input' });
  return rest;
}
