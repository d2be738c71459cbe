import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { conflictsBetween, parseClusterConfig, parseModuleConfig } from '../../src/config/index.ts';
import { config, edited, places } from './fixtures.ts';
import { confXml, mirrorClusterXml, mirrorXml } from './mirror-cases.ts';

const byHand = config(parseClusterConfig(mirrorClusterXml));
const decided = config(
  parseClusterConfig(
    edited(mirrorClusterXml, [
      '</lans>',
      '</lans><arbiter type="witness" name="w" addr="10.0.0.9"/>',
    ]),
  ),
);
const operator = config(
  parseClusterConfig(edited(mirrorClusterXml, ['</lans>', '</lans><arbiter type="operator"/>'])),
);

/** The `<vip>` comes on line 18. */
function parse(vip: string, cluster = decided, name = 'db', xml = mirrorXml) {
  return parseModuleConfig(edited(xml, ['<user/>', `${vip}<user/>`]), { name, cluster });
}

const real = (addrs: string, attributes = '') =>
  `<vip><interface_list><interface ${attributes}><real_interface>${addrs}</real_interface></interface></interface_list></vip>`;
const addr = (value: string, attributes = '') => `<virtual_addr addr="${value}" ${attributes}/>`;

describe('the virtual IP of a mirror', () => {
  it('becomes the model: on one side, with the MAC of the device', () => {
    const { vip } = config(
      parse(
        `<vip tcpreset="off"><interface_list>
          <interface name="bond0" arpreroute="on" arpinterval="30s" arpelapse="5m"><real_interface>
            ${addr('10.0.0.100', 'netmask="255.255.255.0"')}${addr('[2001:db8::64]', 'where="one_side_alias"')}
          </real_interface></interface>
          <interface><real_interface>${addr('192.168.7.100')}</real_interface></interface>
        </interface_list></vip>`,
      ),
    );
    assert.equal(vip?.tcpreset, false);
    assert.deepEqual(vip?.groups, []);
    const [first, second] = vip?.interfaces ?? [];
    assert.deepEqual(
      { ...first, virtualInterface: null },
      {
        name: 'bond0',
        check: true,
        arpreroute: true,
        arpIntervalMs: 30_000,
        arpElapseMs: 300_000,
        virtualInterface: null,
      },
    );
    assert.equal(first?.virtualInterface?.type, 'vmac_directed');
    assert.equal(first?.virtualInterface?.mac, null);
    assert.deepEqual(
      first?.virtualInterface?.addrs.map((one) => [one.addr, one.prefix, one.where]),
      [
        ['10.0.0.100', 24, 'one_side_alias'],
        ['2001:db8::64', 128, 'one_side_alias'],
      ],
    );
    assert.equal(second?.name, null);
    assert.equal(second?.virtualInterface?.addrs[0]?.addr, '192.168.7.100');
  });

  it('is not acted on where the mirror is run by hand, and that is said', () => {
    const warned = (cluster: typeof decided) =>
      places(parse(real(addr('10.0.0.100')), cluster).warnings);
    assert.deepEqual(
      warned(decided).filter((at) => at.startsWith('067')),
      [],
    );
    for (const cluster of [byHand, operator]) {
      assert.deepEqual(
        warned(cluster).filter((at) => at.startsWith('067')),
        ['067:18'],
      );
    }
  });

  it('counts in the filter of its device: a table and three rules for each mirror', () => {
    const other = (index: number) =>
      config(
        parse(
          real(addr(`10.0.1.${index}`), 'name="eth0"'),
          decided,
          `m${index}`,
          edited(mirrorXml, [confXml, ''], ['/srv/data/', `/srv/data${index}/`]),
        ),
      );
    const many = Array.from({ length: 17 }, (_, index) => other(index + 1));
    assert.deepEqual(conflictsBetween(many.slice(0, 16)), []);
    const [error] = conflictsBetween(many);
    assert.match(error?.message ?? '', /17 groups together; the filter of eth0 holds 16/);
  });
});
