import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nearest } from '../../src/config/suggest.ts';
import {
  defaultFarmMac,
  durationMsMax,
  edgeOfNetwork,
  formatDuration,
  parseAddress,
  parseDuration,
  parseMac,
  parseNetmask,
  whyNotFarmMac,
  whyNotHost,
} from '../../src/config/values.ts';
import { fc } from '../support/random.ts';

function address(text: string) {
  const parsed = parseAddress(text);
  assert.ok(parsed !== null, text);
  return parsed;
}

describe('durations', () => {
  it('take a unit, or a bare number in the own unit', () => {
    assert.deepEqual(parseDuration('50', 'ms'), { ok: true, ms: 50 });
    assert.deepEqual(parseDuration('50', 's'), { ok: true, ms: 50_000 });
    assert.deepEqual(parseDuration('24', 'h'), { ok: true, ms: 86_400_000 });
    assert.deepEqual(parseDuration('2d', 's'), { ok: true, ms: 172_800_000 });
    assert.deepEqual(parseDuration('0', 'm'), { ok: true, ms: 0 });
  });
  it('refuse a unit smaller than the own one', () => {
    assert.deepEqual(parseDuration('500ms', 's'), { ok: false, why: 'unit', unit: 'ms' });
    assert.deepEqual(parseDuration('5us', 'ms'), { ok: false, why: 'unit', unit: 'us' });
    assert.deepEqual(parseDuration('59s', 'm'), { ok: false, why: 'unit', unit: 's' });
  });
  it('refuse other forms', () => {
    for (const text of [
      '',
      's',
      '-1s',
      '1.5s',
      '1 s',
      '1S',
      '1w',
      '1e3',
      '0x10',
      '1s2ms',
      '9'.repeat(16),
    ]) {
      assert.deepEqual(parseDuration(text, 'ms'), { ok: false, why: 'form' }, text);
    }
  });
  it('refuse more than 365 days', () => {
    assert.deepEqual(parseDuration('365d', 's'), { ok: true, ms: durationMsMax });
    assert.deepEqual(parseDuration('366d', 's'), { ok: false, why: 'too_long' });
  });
  it('are written so that they read back the same', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: durationMsMax }), (ms) => {
        assert.deepEqual(parseDuration(formatDuration(ms), 'ms'), { ok: true, ms });
      }),
    );
    assert.equal(formatDuration(90_000), '90s');
    assert.equal(formatDuration(7_200_000), '2h');
    assert.equal(formatDuration(1500), '1500ms');
  });
});

describe('addresses', () => {
  it('have one canonical form', () => {
    assert.equal(address('[FD00:0:0::00A]').text, 'fd00::a');
    assert.equal(address('10.0.0.1').text, '10.0.0.1');
    assert.deepEqual(address('fd00::1:2').bytes, [0xfd, 0, ...Array(10).fill(0), 0, 1, 0, 2]);
    assert.deepEqual(address('64:ff9b::192.0.2.33').bytes.slice(-4), [192, 0, 2, 33]);
  });
  it('are refused in other forms', () => {
    for (const text of [
      '',
      'web1',
      '10.0.0',
      '10.0.0.256',
      '010.0.0.1',
      'fe80::1%eth0',
      '::ffff:10.0.0.1',
      '1::2::3',
      '[10.0.0.1]',
      '10.0.0.1/24',
    ]) {
      assert.equal(parseAddress(text), null, text);
    }
  });
  it('of groups, networks and nobody are not those of hosts', () => {
    for (const text of [
      '0.0.0.0',
      '0.1.2.3',
      '224.0.0.1',
      '255.255.255.255',
      '::',
      'ff02::1',
      'fe80::1',
    ]) {
      assert.notEqual(whyNotHost(address(text)), null, text);
    }
    for (const text of [
      '10.0.0.1',
      '127.0.0.1',
      '223.255.255.255',
      'fd00::1',
      '2001:db8::1',
      '::1',
    ]) {
      assert.equal(whyNotHost(address(text)), null, text);
    }
  });
});

describe('masks', () => {
  it('are prefix lengths or dotted masks', () => {
    assert.equal(parseNetmask('24', 'ipv4'), 24);
    assert.equal(parseNetmask('255.255.255.0', 'ipv4'), 24);
    assert.equal(parseNetmask('255.255.255.255', 'ipv4'), 32);
    assert.equal(parseNetmask('128.0.0.0', 'ipv4'), 1);
    assert.equal(parseNetmask('64', 'ipv6'), 64);
  });
  it('are refused in other forms', () => {
    for (const text of ['0', '33', '255.0.255.0', '0.0.0.0', '0.0.0.255', '', 'x']) {
      assert.equal(parseNetmask(text, 'ipv4'), null, text);
    }
    for (const text of ['0', '129', '255.255.255.0'])
      assert.equal(parseNetmask(text, 'ipv6'), null);
  });
  it('tell the edges of an IPv4 network', () => {
    assert.equal(edgeOfNetwork(address('10.0.0.0'), 24), 'network');
    assert.equal(edgeOfNetwork(address('10.0.0.255'), 24), 'broadcast');
    assert.equal(edgeOfNetwork(address('10.0.0.255'), 16), null);
    assert.equal(edgeOfNetwork(address('10.0.0.0'), 31), null);
    assert.equal(edgeOfNetwork(address('fd00::'), 64), null);
  });
});

describe('farm MAC addresses', () => {
  it('are 5a:fe: and the virtual IP', () => {
    assert.equal(defaultFarmMac(address('10.0.0.100')), '5a:fe:0a:00:00:64');
    assert.equal(defaultFarmMac(address('fd00::1:2')), '5a:fe:00:01:00:02');
    assert.equal(whyNotFarmMac(defaultFarmMac(address('10.0.0.100'))), null);
  });
  it('are multicast or locally administered', () => {
    assert.equal(whyNotFarmMac('01:00:5e:00:00:01'), null);
    assert.match(whyNotFarmMac('00:16:3e:00:00:01') ?? '', /locally administered/);
    assert.match(whyNotFarmMac('00:00:00:00:00:00') ?? '', /locally administered/);
    assert.match(whyNotFarmMac('ff:ff:ff:ff:ff:ff') ?? '', /broadcast/);
  });
  it('are written with colons in lower case', () => {
    assert.equal(parseMac('5A-FE-0A-00-00-64'), '5a:fe:0a:00:00:64');
    assert.equal(parseMac('5afe.0a00.0064'), null);
  });
});

describe('suggestions', () => {
  it('name the word that was meant', () => {
    const names = ['addr', 'where', 'check', 'connections', 'netmask'];
    assert.equal(nearest('adress', names), 'addr');
    assert.equal(nearest('address', names), 'addr');
    assert.equal(nearest('conections', names), 'connections');
    assert.equal(nearest('NETMASK', names), 'netmask');
    assert.equal(nearest('farn', ['mirror', 'farm', 'light']), 'farm');
  });
  it('are not made at random', () => {
    assert.equal(nearest('colour', ['addr', 'where', 'check']), null);
    assert.equal(nearest('', ['addr']), null);
    assert.equal(nearest('x'.repeat(1000), ['x'.repeat(999)]), null);
  });
});
