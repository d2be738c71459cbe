import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import { HoldfastError } from '../../src/errors.ts';
import { timingChains } from '../../src/host/timing.ts';

const witness = '<arbiter type="witness" name="w1" addr="10.0.0.9"/>';
const cluster = (attributes = '', arbiter = witness) => {
  const { config } = parseClusterConfig(`<cluster><lans${attributes}><lan name="net1">
    <node name="n1" addr="10.0.0.1"/><node name="n2" addr="10.0.0.2"/></lan></lans>${arbiter}</cluster>`);
  assert.ok(config !== null);
  return config;
};

function modules(heart = '') {
  const mirror = `<safe><service mode="mirror"><heart ${heart}><heartbeat name="net1"/></heart>
    <rfs><replicated dir="/d"/></rfs></service></safe>`;
  const farm = '<safe><service mode="farm"/></safe>';
  return [
    ['db', mirror],
    ['web', farm],
  ].map(([name = '', xml = '']) => {
    const { config } = parseModuleConfig(xml, { name, cluster: cluster() });
    assert.ok(config !== null);
    return { hosted: { config } };
  });
}

const none = { module: null, profile: null };
const figures = (rows: ReturnType<typeof timingChains>, of: string) =>
  Object.fromEntries(rows.filter((row) => row.of === of).map(({ name, ms }) => [name, ms]));

describe('the chain of deadlines', () => {
  it('of a mirror is that of docs/internals/mirror-core.md, at the pulse of the cluster', () => {
    const rows = timingChains(cluster(), modules(), { ...none, module: 'db' });
    assert.deepEqual(figures(rows, 'mirror db'), {
      heartbeat: 50,
      suspect: 1000,
      'head start': 300,
      lease: 1500,
      'room to go alone': 500,
      grace: 1665,
      ask: 3000,
      'agent deadline': 1500,
      'worst gap, server lost': 1665,
    });
  });

  it('ends with what takes longest: the grace, or suspicion and the claim', () => {
    const gap = (heart: string) =>
      figures(timingChains(cluster(), modules(heart), none), 'mirror db')['worst gap, server lost'];
    assert.equal(gap('timing="fast"'), 353);
    assert.equal(gap('suspect="2s" lease="2100"'), 50 + 2000 + 600);
  });

  it('of a node is that of its cluster, then of each mirror', () => {
    const rows = timingChains(cluster(), modules(), none);
    assert.deepEqual([...new Set(rows.map(({ of }) => of))], ['cluster', 'mirror db']);
    assert.equal(figures(rows, 'cluster')['suspect'], 200);
  });

  it('of a mirror run by hand is shown when it is asked for', () => {
    const byHand = cluster('', '');
    const chains = (query: typeof none | { module: string; profile: null }) => [
      ...new Set(timingChains(byHand, modules(), query).map(({ of }) => of)),
    ];
    assert.deepEqual(chains(none), ['cluster']);
    assert.deepEqual(chains({ ...none, module: 'db' }), ['mirror db, with an arbiter']);
  });

  it('of a farm is that of the cluster', () => {
    const rows = timingChains(cluster(), modules(), { ...none, module: 'web' });
    assert.deepEqual([...new Set(rows.map(({ of }) => of))], ['cluster']);
  });

  it('of a profile is told before it is chosen', () => {
    const rows = timingChains(cluster(), [], { ...none, profile: 'wan' });
    assert.equal(figures(rows, 'profile wan')['suspect'], 6000);
  });

  it('is refused where the cluster detects later, or the module is not there', () => {
    const refused = (code: string) => (error: unknown) =>
      error instanceof HoldfastError && error.code === code;
    const slow = cluster(' pulse="100ms" slost_count="4"');
    const fast = { ...none, profile: 'fast' } as const;
    assert.throws(() => timingChains(slow, [], fast), refused('HF-CONFIG-123'));
    const absent = { ...none, module: 'no' };
    assert.throws(() => timingChains(slow, modules(), absent), refused('HF-AGENT-004'));
  });
});
