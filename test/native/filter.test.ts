/** Every fixture, run by the kernel (BPF_PROG_TEST_RUN): ingress ones by XDP and by tc, with one result. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { layout, packConfig, reasonNames, addressBytes } from '../../src/native/filter-abi.ts';
import { filterObjectPath, loadFilterAddon, type NativeFilter } from '../../src/native/filter.ts';
import { directedFixtures } from './filter-fixtures-directed.ts';
import { ipFixtures } from './filter-fixtures-ip.ts';
import { neighbourFixtures } from './filter-fixtures-neighbour.ts';
import { sipHash } from './filter-siphash.ts';
import { type Fixture, leaseSlot, world } from './filter-world.ts';

const skip = process.getuid?.() === 0 ? false : 'loading BPF programs needs root';
const forever = 1n << 62n;
const fixtures = [...ipFixtures, ...directedFixtures, ...neighbourFixtures];

const verdicts = {
  xdp: { pass: 2, drop: 1, send: 3 },
  tc: { pass: 0xffff_ffff, drop: 2, send: 7 },
  egress: { pass: 0xffff_ffff, drop: 2, send: 7 },
} as const;

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Which counters moved, as `name` or `rule N accepted`. */
function moved(before: Float64Array, after: Float64Array): string[] {
  const names = [];
  for (const [at, value] of after.entries()) {
    if (value === before[at]) continue;
    assert.equal(value - (before[at] ?? 0), 1, 'a counter moves by one');
    const rule = Math.floor((at - reasonNames.length) / 2);
    const way = (at - reasonNames.length) % 2 === 0 ? 'accepted' : 'dropped';
    names.push(reasonNames[at] ?? `rule ${rule} ${way}`);
  }
  return names;
}

function run(filter: NativeFilter, fixture: Fixture, program: 'xdp' | 'tc' | 'egress'): void {
  filter.commit(packConfig(world(fixture.world)));
  filter.setLease(leaseSlot, fixture.lease === 'lapsed' ? 1n : forever);
  for (const frame of fixture.before ?? []) filter.testRun(program, frame, 1);
  const before = filter.counters();
  const result = filter.testRun(program, fixture.packet, 1);
  const counted = moved(before, filter.counters());
  const { verdict, reason, rule, out } = fixture.expect;
  assert.equal(result.verdict, verdicts[program][verdict], `verdict of ${program}`);
  const way = verdict === 'pass' ? 'accepted' : 'dropped';
  const expected: string[] = reason === null ? [] : [reason];
  if (rule !== undefined) expected.push(`rule ${rule} ${way}`);
  assert.deepEqual(counted, expected, `counters of ${program}`);
  if (verdict !== 'drop') {
    assert.equal(hex(result.packet), hex(out ?? fixture.packet), `frame after ${program}`);
  }
}

describe('filter fixtures', { skip }, () => {
  const addon = loadFilterAddon();
  const filter = new addon.NativeFilter({
    device: 'lo',
    pinDir: '',
    hook: 'none',
    objectPath: filterObjectPath(),
  });
  for (const fixture of fixtures) {
    test(fixture.name, () => {
      if (fixture.egress === true) {
        run(filter, fixture, 'egress');
      } else {
        run(filter, fixture, 'xdp');
        if (fixture.xdpOnly !== true) run(filter, fixture, 'tc');
      }
    });
  }
  test('fixtures have names of their own', () => {
    assert.equal(new Set(fixtures.map(({ name }) => name)).size, fixtures.length);
    assert.ok(fixtures.length >= 80);
  });
});

describe('the mirror of farm_abi.h', () => {
  test('sizes, offsets, limits and reasons agree', () => {
    const { reasons, ...numbers } = loadFilterAddon().layout();
    assert.deepEqual(numbers, { ...layout });
    assert.deepEqual(reasons, [...reasonNames]);
  });

  test('addresses become their bytes', () => {
    const cases = {
      '10.0.0.255': '0a0000ff',
      '::': '00'.repeat(16),
      '::1': `${'00'.repeat(15)}01`,
      'fd00::a:1': `fd00${'00'.repeat(10)}000a0001`,
      '1:2:3:4:5:6:7:8': '00010002000300040005000600070008',
      '::ffff:10.1.2.3': '00000000000000000000ffff0a010203',
      'fe80::': `fe80${'00'.repeat(14)}`,
    };
    for (const [text, bytes] of Object.entries(cases)) {
      assert.equal(hex(addressBytes(text)), bytes, text);
    }
    for (const text of ['', '10.0.0', '1::2::3', 'fe80::1%eth0', 'example.org']) {
      assert.throws(() => addressBytes(text), { code: 'HF-NATIVE-011' }, text);
    }
  });
});

describe('SipHash', () => {
  const key = Uint8Array.from({ length: 16 }, (_, at) => at);
  const message = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at);
  test('the reference of the tests is right: SipHash-2-4 of the paper, appendix A', () => {
    assert.equal(sipHash(2, 4, key, message(15)), 0xa129ca6149be45e5n);
    assert.equal(sipHash(2, 4, key, message(0)), 0x726fdb47dd0e0e31n);
  });
});

describe('configurations that the filter cannot hold', () => {
  const good = world();
  const [vip] = good.vips;
  const [rule] = good.rules;
  assert.ok(vip !== undefined && rule !== undefined);
  const cases = {
    'too many VIPs': { vips: Array.from({ length: 33 }, () => vip) },
    'too many rules': { rules: Array.from({ length: 65 }, () => rule) },
    'too many tables': { tables: Array.from({ length: 17 }, () => good.tables[0]) },
    'a rule for no table': { rules: [{ ...rule, table: 2 }] },
    'a rule for no VIP': { rules: [{ ...rule, vips: [2] }] },
    'ports backwards': { rules: [{ ...rule, portLow: 90 }] },
    'on_ipid for TCP': { rules: [{ ...rule, hash: 'on_ipid' }] },
    'a short key': { hashKey: new Uint8Array(15) },
    'no farm MAC': { vips: [{ ...vip, farmMac: null }] },
    'a MAC that is none': { vips: [{ ...vip, farmMac: '5a:fe' }] },
    'no lease slot': { vips: [{ ...vip, leaseSlot: 64 }] },
    'a short table': { tables: [{ ...good.tables[0], flags: new Uint8Array(1) }] },
  };
  for (const [name, change] of Object.entries(cases)) {
    test(name, () => {
      const config = { ...good, ...change } as typeof good;
      assert.throws(() => packConfig(config), { code: 'HF-NATIVE-011' });
    });
  }
});
