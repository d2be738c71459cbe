import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nearestDevice } from '../../src/host/fabric.ts';
import { gateway4, gateway6 } from '../../src/host/gateway.ts';

describe('the device of a virtual IP without a name', () => {
  const addresses = [
    { device: 'lo', addr: '127.0.0.1', prefix: 8 },
    { device: 'eth0', addr: '10.0.0.1', prefix: 8 },
    { device: 'eth1', addr: '10.0.1.1', prefix: 24 },
    { device: 'eth2', addr: '10.0.2.9', prefix: 32 },
    { device: 'eth3', addr: 'fd00::1', prefix: 64 },
    { device: 'eth4', addr: '2001:db8::9', prefix: 128 },
  ];
  const rows = [
    ['10.0.0.100', 'eth0'],
    ['10.0.1.100', 'eth1'],
    ['10.0.2.10', 'eth0'],
    ['192.168.0.1', null],
    ['fd00::64', 'eth3'],
    ['fd00:0:0:1::64', null],
    ['2001:db8::8', null],
  ] as const;
  for (const [addr, device] of rows) {
    it(`${addr}: ${device}`, () => assert.equal(nearestDevice(addresses, addr), device));
  }
});

describe('gateways', () => {
  it('of IPv4: the default route of the device with the best metric', () => {
    const table = [
      'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
      'eth0\t00000000\tFE00000A\t0003\t0\t0\t100\t00000000\t0\t0\t0',
      'eth0\t00000000\tFD00000A\t0003\t0\t0\t50\t00000000\t0\t0\t0',
      'eth1\t00000000\t0107A8C0\t0003\t0\t0\t10\t00000000\t0\t0\t0',
      'eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0',
      'eth2\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0',
    ].join('\n');
    assert.equal(gateway4(table, 'eth0'), '10.0.0.253');
    assert.equal(gateway4(table, 'eth1'), '192.168.7.1');
    assert.equal(gateway4(table, 'eth2'), null);
    assert.equal(gateway4('', 'eth0'), null);
  });

  it('of IPv6 too', () => {
    const zero = '0'.repeat(32);
    const table = [
      `${zero} 00 ${zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0`,
      `${zero} 00 ${zero} 00 fe800000000000000000000000000002 00000100 00000001 00000000 00000003     eth0`,
      `fd000000000000000000000000000000 40 ${zero} 00 ${zero} 00000100 00000001 00000000 00000001     eth0`,
      `${zero} 00 ${zero} 00 ${zero} ffffffff 00000001 00000000 00200200       lo`,
    ].join('\n');
    assert.equal(gateway6(table, 'eth0'), 'fe80:0000:0000:0000:0000:0000:0000:0002');
    assert.equal(gateway6(table, 'lo'), null);
  });
});
