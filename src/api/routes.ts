/** The routes below /api/v1: one table, from which the server, the checks and OpenAPI come. */
import { z } from 'zod';
import { HoldfastError } from '../errors.ts';
import { type Agent, type ModuleStatus, secondWays } from '../host/face.ts';
import { mirrorProfiles } from '../core/mirror-timing.ts';
import { type ClusterService, JoinRequest } from './cluster.ts';
import { WitnessRequest } from './witness.ts';

/** Greatest module archive, bytes. */
export const maxArchiveBytes = 16 * 1024 * 1024;
/** Configuration files and commands. */
export const maxJsonBytes = 1024 * 1024;

/** What a handler gets; all but `archive` checked against the route's schemas. */
export interface RouteRequest {
  readonly params: Readonly<Record<string, string>>;
  readonly query: unknown;
  readonly body: unknown;
  /** Body of a route with `archive`; empty on others. */
  readonly archive: Uint8Array;
  /** Address of the other side; empty on the unix socket. */
  readonly from: string;
}

export interface RouteAnswer {
  readonly body: unknown;
  /** Default application/json. */
  readonly type?: string;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** Below /api/v1, with :name for parameters. */
  readonly path: string;
  readonly summary: string;
  /** True: answered also to callers without a certificate. */
  readonly open?: boolean;
  readonly query?: z.ZodType;
  readonly body?: z.ZodType;
  /** True: the body is a module archive, application/octet-stream. */
  readonly archive?: boolean;
  /** Greatest body, bytes; default maxJsonBytes. */
  readonly limit?: number;
  readonly handle: (request: RouteRequest) => Promise<RouteAnswer> | RouteAnswer;
}

export interface RouteContext {
  readonly agent: Agent;
  readonly cluster: ClusterService;
  /** Throws HF-CLUSTER-013 where an address asks too often. */
  readonly limitJoin: (from: string) => void;
}

const name = z.string().min(1).max(64);
const xml = z.string().max(512 * 1024);
const Empty = z.strictObject({});
const ConfigBody = z.strictObject({ xml: xml.nullable() });
const DrainBody = z.strictObject({ node: name, on: z.boolean() });
const PowerBody = z.strictObject({
  node: name,
  group: name.nullable(),
  power: z
    .int()
    .min(0)
    .max(2 ** 24),
});
const ResourceBody = z.strictObject({
  resource: z.string().min(1).max(128),
  state: z.enum(['up', 'down']),
  reason: z.string().max(256).default('set from outside'),
});
const PrimBody = z.strictObject({
  alone: z.boolean().default(false),
  force: z.boolean().default(false),
});
const SecondBody = z.strictObject({ way: z.enum(secondWays).default('plain') });
const SwapBody = z.strictObject({ sync: z.boolean().default(true) });
const FailoverBody = z.strictObject({ on: z.boolean() });
const profiles = Object.keys(mirrorProfiles) as (keyof typeof mirrorProfiles)[];
const TimingQuery = z.strictObject({
  module: name.optional(),
  profile: z.enum(profiles).optional(),
});
const ClusterBody = z.strictObject({ xml, scope: z.enum(['node', 'cluster']).default('cluster') });
const TokenBody = z.strictObject({
  ttlMs: z
    .int()
    .min(1000)
    .max(7 * 24 * 3600_000)
    .optional(),
  replaces: name.nullable().optional(),
});
const count = (least: number, most: number, preset: number) =>
  z.coerce.number().int().min(least).max(most).default(preset);
export const EventsQuery = z.strictObject({
  after: count(0, Number.MAX_SAFE_INTEGER, 0),
  limit: count(1, 1000, 100),
  module: name.optional(),
});
export const StreamQuery = EventsQuery.pick({ module: true }).extend({
  after: EventsQuery.shape.after.optional(),
});
const LogQuery = z.strictObject({ module: name.optional(), lines: count(1, 10_000, 100) });
const PackageQuery = z.strictObject({ replace: z.enum(['true', 'false']).default('false') });

const json = (body: unknown): RouteAnswer => ({ body });
const text = (body: string, type = 'text/plain; charset=utf-8'): RouteAnswer => ({ body, type });
export const metricsType = 'text/plain; version=0.0.4; charset=utf-8';

/** All routes. The node proxy and the event stream are not in it: they answer by themselves. */
export function routes(context: RouteContext): Route[] {
  return [...nodeRoutes(context), ...moduleRoutes(context), ...clusterRoutes(context)];
}

function nodeRoutes({ agent }: RouteContext): Route[] {
  return [
    {
      method: 'GET',
      path: '/health',
      summary: 'Whether the agent answers',
      open: true,
      handle: () => json({ ok: true }),
    },
    {
      method: 'GET',
      path: '/status',
      summary: 'State of this node, its modules and peers',
      handle: () => json(agent.status()),
    },
    {
      method: 'GET',
      path: '/events',
      summary: 'The newest records of the event journal',
      query: EventsQuery,
      handle: ({ query }) => {
        const { after, limit, module } = query as z.infer<typeof EventsQuery>;
        return json(agent.events({ after, limit, module: module ?? null }));
      },
    },
    {
      method: 'GET',
      path: '/log',
      summary: "Last lines of a module's user log, or of the agent's log",
      query: LogQuery,
      handle: async ({ query }) => {
        const { module, lines } = query as z.infer<typeof LogQuery>;
        return json(await agent.log(module ?? null, lines));
      },
    },
    {
      method: 'GET',
      path: '/timing',
      summary:
        'The chains of deadlines in force: of the cluster, of a mirror, or as a profile would make it',
      query: TimingQuery,
      handle: ({ query }) => {
        const { module, profile } = query as z.infer<typeof TimingQuery>;
        return json(agent.timing({ module: module ?? null, profile: profile ?? null }));
      },
    },
    {
      method: 'GET',
      path: '/metrics',
      summary: 'Metrics, Prometheus text',
      handle: () => text(agent.metrics(), metricsType),
    },
    {
      method: 'POST',
      path: '/shutdown',
      summary: 'Closes the virtual addresses and ends the agent',
      body: Empty,
      handle: async () => {
        await agent.shutdown();
        return json(null);
      },
    },
  ];
}

const of = (params: Readonly<Record<string, string>>): string => params['module'] ?? '';

function mirrorRoutes(agent: Agent): Route[] {
  return [
    {
      method: 'POST',
      path: '/modules/:module/prim',
      summary:
        'Makes this node the primary of a mirror; alone: to acknowledge without its peer; force: with an older copy, and what it lacks is given up',
      body: PrimBody,
      handle: async ({ params, body }) => {
        const { alone, force } = body as z.infer<typeof PrimBody>;
        return json(await agent.prim(of(params), alone, force));
      },
    },
    {
      method: 'POST',
      path: '/modules/:module/second',
      summary:
        'Makes this node the secondary of a mirror; fullsync: its copy is none; discard: what it acknowledged alone is taken back',
      body: SecondBody,
      handle: async ({ params, body }) =>
        json(await agent.second(of(params), (body as z.infer<typeof SecondBody>).way)),
    },
    {
      method: 'POST',
      path: '/modules/:module/swap',
      summary:
        'Moves the application of a mirror to the other server; not sync: the server that it leaves keeps its copy as it is',
      body: SwapBody,
      handle: async ({ params, body }) =>
        json(await agent.swap(of(params), (body as z.infer<typeof SwapBody>).sync)),
    },
    {
      method: 'POST',
      path: '/modules/:module/failover',
      summary: 'Whether this server of a mirror takes over by itself',
      body: FailoverBody,
      handle: async ({ params, body }) =>
        json(await agent.failover(of(params), (body as z.infer<typeof FailoverBody>).on)),
    },
    {
      method: 'POST',
      path: '/modules/:module/resource',
      summary: 'What a checker of one’s own has found: its resource is up, or down',
      body: ResourceBody,
      handle: async ({ params, body }) => {
        const { resource, state, reason } = body as z.infer<typeof ResourceBody>;
        return json(await agent.setResource(of(params), resource, state, reason));
      },
    },
    {
      method: 'POST',
      path: '/modules/:module/verify',
      summary: 'Compares both servers of a mirror; answers with what differs',
      body: Empty,
      handle: async ({ params }) => json(await agent.verify(of(params))),
    },
  ];
}

function moduleRoutes({ agent }: RouteContext): Route[] {
  const verbs = ['start', 'stop', 'restart', 'stopstart', 'forcestop'] as const;
  const one = (module: string): ModuleStatus => {
    const found = agent.status().modules.find((status) => status.name === module);
    if (found === undefined) throw new HoldfastError('HF-MODULE-002', { name: module });
    return found;
  };
  return [
    {
      method: 'GET',
      path: '/modules',
      summary: 'The installed modules',
      handle: () => json(agent.status().modules),
    },
    {
      method: 'GET',
      path: '/modules/:module',
      summary: 'One module',
      handle: ({ params }) => json(one(of(params))),
    },
    ...verbs.map(
      (verb): Route => ({
        method: 'POST',
        path: `/modules/:module/${verb}`,
        summary: `Carries out ${verb}; answers when it is done`,
        body: Empty,
        handle: async ({ params }) => json(await agent.command(of(params), verb)),
      }),
    ),
    ...mirrorRoutes(agent),
    {
      method: 'GET',
      path: '/modules/:module/why',
      summary: 'Why the module is where it is',
      handle: ({ params }) => json(agent.why(of(params))),
    },
    {
      method: 'GET',
      path: '/modules/:module/package',
      summary: 'The module as a .safe archive',
      handle: async ({ params }) => ({
        body: await agent.packageModule(of(params)),
        type: 'application/octet-stream',
      }),
    },
    {
      method: 'PUT',
      path: '/modules/:module/package',
      summary: 'Installs a .safe archive as this module',
      query: PackageQuery,
      archive: true,
      limit: maxArchiveBytes,
      handle: async ({ params, query, archive }) => {
        const { replace } = query as z.infer<typeof PackageQuery>;
        return json(await agent.installModule(of(params), archive, replace === 'true'));
      },
    },
    {
      method: 'DELETE',
      path: '/modules/:module',
      summary: 'Removes a stopped module',
      handle: async ({ params }) => {
        await agent.uninstallModule(of(params));
        return json(null);
      },
    },
    {
      method: 'POST',
      path: '/modules/:module/config/check',
      summary: 'Checks a userconfig.xml (the installed one where xml is null); no effect',
      body: ConfigBody,
      handle: ({ params, body }) =>
        json(agent.checkConfig(of(params), (body as z.infer<typeof ConfigBody>).xml)),
    },
    {
      method: 'PUT',
      path: '/modules/:module/config',
      summary: 'Checks and applies a userconfig.xml (the installed one where xml is null)',
      body: ConfigBody,
      handle: async ({ params, body }) =>
        json(await agent.applyConfig(of(params), (body as z.infer<typeof ConfigBody>).xml)),
    },
    {
      method: 'POST',
      path: '/modules/:module/drain',
      summary: "Moves a node's buckets away and waits for its connections, or takes it back",
      body: DrainBody,
      handle: async ({ params, body }) => {
        const { node, on } = body as z.infer<typeof DrainBody>;
        return json(await agent.drain(of(params), node, on));
      },
    },
    {
      method: 'POST',
      path: '/modules/:module/power',
      summary: "Sets a node's power in one group, or in all where group is null",
      body: PowerBody,
      handle: async ({ params, body }) => {
        const { node, group, power } = body as z.infer<typeof PowerBody>;
        return json(await agent.power(of(params), node, group, power));
      },
    },
  ];
}

function clusterRoutes({ agent, cluster, limitJoin }: RouteContext): Route[] {
  return [
    {
      method: 'GET',
      path: '/cluster',
      summary: 'The nodes of the cluster as this one sees them',
      handle: () => json(cluster.status()),
    },
    {
      method: 'GET',
      path: '/cluster/config',
      summary: 'The cluster.xml in force',
      handle: () => text(agent.cluster().xml, 'application/xml; charset=utf-8'),
    },
    {
      method: 'PUT',
      path: '/cluster/config',
      summary: 'Checks and applies a cluster.xml, here or on all nodes',
      body: ClusterBody,
      handle: async ({ body }) => {
        const { xml, scope } = body as z.infer<typeof ClusterBody>;
        return json(await cluster.apply(xml, scope));
      },
    },
    {
      method: 'POST',
      path: '/cluster/tokens',
      summary: 'A new join token; only on the node with the key of the cluster CA',
      body: TokenBody,
      handle: ({ body }) => {
        const { ttlMs, replaces } = body as z.infer<typeof TokenBody>;
        return json(cluster.issueToken(ttlMs, replaces ?? null));
      },
    },
    {
      method: 'POST',
      path: '/cluster/join',
      summary: 'Admits the server that shows a join token',
      open: true,
      body: JoinRequest,
      limit: 16 * 1024,
      handle: async ({ body, from }) => {
        limitJoin(from);
        return json(await cluster.join(body as JoinRequest));
      },
    },
    {
      method: 'POST',
      path: '/cluster/witness',
      summary: 'Gives the machine that shows a join token the certificate of a witness',
      open: true,
      body: WitnessRequest,
      limit: 16 * 1024,
      handle: async ({ body, from }) => {
        limitJoin(from);
        return json(await cluster.admitWitness(body as WitnessRequest));
      },
    },
  ];
}
