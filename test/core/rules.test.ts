/** The language of <failover>. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { holds, readRules, type ResourceState, type Rule } from '../../src/core/rules.ts';

const table = (text: string): ReadonlyMap<string, ResourceState> =>
  new Map(text.split(' ').map((one) => one.split('=') as [string, ResourceState]));

function one(expression: string): Rule['when'] {
  const read = readRules(`r: if (${expression}) then stop();`);
  assert.ok(!('reason' in read), JSON.stringify(read));
  const [rule] = read;
  assert.ok(rule !== undefined);
  return rule.when;
}

describe('rules of <failover>', () => {
  it('are read in their order, with labels and actions', () => {
    const read = readRules(`
      # SafeKit's comments
      app: if ( tcp.web == down && ! (ping.gw == down) ) then swap();
      disk: if (local.0/custom.disk != up || proc.db == unknown) then wait;
      // the last one
      any: if (intf.? == down) /* of them */ then stopstart();
    `);
    assert.ok(!('reason' in read), JSON.stringify(read));
    assert.deepEqual(
      read.map(({ label, action }) => [label, action]),
      [
        ['app', 'swap'],
        ['disk', 'wait'],
        ['any', 'stopstart'],
      ],
    );
  });

  for (const [expression, resources, wanted] of [
    ['tcp.a == down', 'tcp.a=down', true],
    ['tcp.a == down', 'tcp.a=init', false],
    ['tcp.a != down', 'tcp.a=init', true],
    ['tcp.b == unknown', 'tcp.a=up', true],
    ['tcp.b == down', 'tcp.a=down', false],
    ['!tcp.a == up', 'tcp.a=down', true],
    ['tcp.* == down', 'tcp.a=down tcp.b=up', false],
    ['tcp.* == down', 'tcp.a=down tcp.b=down tcpx.c=up', true],
    ['tcp.? == down', 'tcp.a=down tcp.b=up', true],
    ['ping.* == down', 'tcp.a=down', false],
    ['ping.? == down', 'tcp.a=down', false],
    // && binds more closely.
    ['tcp.a == up || tcp.b == up && tcp.c == up', 'tcp.a=up tcp.b=up tcp.c=down', true],
    ['(tcp.a == up || tcp.b == up) && tcp.c == up', 'tcp.a=up tcp.b=up tcp.c=down', false],
  ] as const) {
    it(`${expression}, with ${resources}: ${wanted}`, () => {
      assert.equal(holds(one(expression), table(resources)), wanted);
    });
  }

  for (const [text, line, says] of [
    ['a: if (tcp.a == down) then jump();', 1, /expected an action .*found "jump"/],
    ['\na: if (tcp.a = down) then stop();', 2, /expected "==" or "!="/],
    ['a: if (tcp.a == broken) then stop();', 1, /expected a state .*"broken"/],
    ['a: if (tcp == down) then stop();', 1, /"tcp" is no resource/],
    ['a: if (remote.tcp.a == down) then stop();', 1, /of the other server/],
    ['a: if (1/tcp.a == down) then stop();', 1, /of the other server/],
    ['a: if (tcp.a == down) then stop()', 1, /expected ";", found the end/],
    ['--Lua Rules', 1, /expected ":"/],
    [
      'a: if (tcp.a == up) then stop();\na: if (tcp.a == up) then stop();',
      2,
      /label "a" is there twice/,
    ],
    [`a: if (${'('.repeat(60)}tcp.a == up`, 1, /nested too deeply/],
    [`a: if (${'!'.repeat(60)}tcp.a == up`, 1, /nested too deeply/],
  ] as const) {
    it(`says what is wrong with ${text.slice(0, 60).trim()}`, () => {
      const read = readRules(text);
      assert.ok('reason' in read, 'it was read');
      assert.match(read.reason, says);
      assert.equal(read.line, line);
    });
  }

  it('an empty text has none', () => {
    assert.deepEqual(readRules(' \n # nothing\n'), []);
  });
});
