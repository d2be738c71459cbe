/** Checkers, rules and the ping veto of a mirror that decides for itself. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Host } from '../../src/lab/host.ts';
import { module as name, Pair } from './pair-support.ts';
import { eventually, skip } from './support.ts';

const bin = `/etc/holdfast/modules/${name}/bin`;
/** Looks whether a file says that something is wrong, as a checker of one's own would. */
const script = `#!/bin/sh
while :; do
    if [ -e "$SAFEUSERVAR/broken" ]; then state=down; else state=up; fi
    [ "$state" = "$last" ] || holdfast set -m "$SAFEMODULE" -r custom.disk -v $state --reason "as found"
    last=$state
    sleep 0.2
done
`;
const elements = (witness: string): string => `
    <check>
      <custom ident="disk" when="prim" exec="look" action="noaction"/>
      <splitbrain ident="gw" arg="${witness}"/>
    </check>
    <errd polltimer="1s"><proc name="none" argregex="^never-there$" class="prim" action="noaction"/></errd>
    <failover handle_time="0ms"><![CDATA[
      disk: if (custom.disk == down && splitbrain.gw == up) then swap();
    ]]></failover>`;

describe('checkers of a mirror', { skip, timeout: 400_000 }, () => {
  let mirror: Pair;
  let a: Host;
  let b: Host;

  before(async () => {
    mirror = await Pair.up({
      edit: (xml, lab) => xml.replace('</user>', `</user>${elements(lab.host('wit').address())}`),
    });
    ({ a, b } = mirror);
    for (const host of [a, b]) {
      await host.exec(['sh', '-c', `cat >${bin}/look && chmod 755 ${bin}/look`], { input: script });
    }
    await mirror.ready();
  });
  after(async () => mirror?.down());

  /** What a server says of one resource. */
  const resource = async (host: Host, wanted: string): Promise<string | undefined> =>
    (await mirror.status(host)).resources[wanted];
  const sees = (host: Host, wanted: string, state: string): Promise<true> =>
    eventually(`${wanted} to be ${state}`, async () =>
      (await resource(host, wanted)) === state ? true : null,
    );
  const pings = (on: boolean): Promise<unknown> =>
    mirror.sh(
      mirror.lab.host('wit'),
      `echo ${on ? 0 : 1} >/proc/sys/net/ipv4/icmp_echo_ignore_all`,
    );

  test('they run where they are to, and status shows what they find', async () => {
    await sees(a, 'custom.disk', 'up');
    await sees(a, 'proc.none', 'down');
    await sees(b, 'splitbrain.gw', 'up');
    assert.equal(await resource(b, 'custom.disk'), 'init');
    assert.match((await mirror.status(a)).why.join(), /proc.none is down: 0 of at least 1/);
    const client = mirror.cluster.client(b);
    await assert.rejects(client.setResource(name, 'custom.disk', 'down', 'x'), {
      code: 'HF-MIRROR-041',
    });
  });

  test('a rule swaps when a checker fails on the primary', async () => {
    await mirror.sh(a, `touch /var/lib/holdfast/modules/${name}/var/broken`);
    await mirror.becomes(b, 'PRIM Ready');
    await mirror.becomes(a, 'SECOND Ready');
    const events = await mirror.cluster.client(a).events({ module: name, limit: 200 });
    const texts = events.map(({ text }) => text).join('\n');
    assert.match(texts, /Action swap called by disk: custom.disk is down, as found/);
    assert.equal((await mirror.status(a)).loopCount, 1);
    await sees(b, 'custom.disk', 'up');
  });

  test('a server that cannot ping its witness does not take over until it can', async () => {
    await pings(false);
    await sees(a, 'splitbrain.gw', 'down');
    assert.equal(await mirror.shown(b), 'PRIM Ready');
    await b.power();
    const why = /not taking over .*because splitbrain.gw is down/;
    let said = '';
    await eventually('the secondary to say why it stays', async () => {
      said = (await mirror.status(a)).why.join('\n');
      return why.test(said) ? true : null;
    }).catch(async () => assert.fail(`it says ${said}\n${await mirror.story(a)}`));
    assert.equal(await mirror.shown(a), 'SECOND NotReady');
    await pings(true);
    await mirror.becomes(a, 'ALONE Ready');
  });
});
