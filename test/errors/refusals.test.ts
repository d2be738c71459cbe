import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { mirrorWhy } from '../../src/core/mirror.ts';
import { explainRefusal } from '../../src/errors/explain.ts';
import { refusalErrors } from '../../src/errors/refusal.ts';
import { runMirrorSeed } from '../../src/sim/mirror-run.ts';
import { MirrorWorld } from '../../src/sim/mirror-world.ts';

const seeds = 60;

/** All that the machines said of themselves while some seeds ran. */
function saidBySimulation(): ReadonlySet<string> {
  const said = new Set<string>();
  const record = Reflect.get(MirrorWorld.prototype, 'record') as (
    who: string,
    text: string,
  ) => void;
  MirrorWorld.prototype.record = function (this: MirrorWorld, who: string, text: string): void {
    for (const id of [0, 1]) for (const why of mirrorWhy(this.node(id).state)) said.add(why);
    record.call(this, who, text);
  };
  try {
    for (let seed = 1; seed <= seeds; seed += 1) runMirrorSeed(seed, { storm: seed % 3 === 0 });
  } finally {
    MirrorWorld.prototype.record = record;
  }
  return said;
}

/** A sentence of the registry with words in its places. */
function sample(sentence: string): string {
  const words: Readonly<Record<string, string>> = {
    node: 'db2',
    epoch: '7',
    known: '9',
    own: '1',
    newest: '2',
    state: 'PRIM (Ready)',
    readiness: 'Ready',
    copy: 'has a copy that is stale',
    verb: 'swap nosync',
    count: '3',
    seconds: '86400',
    action: 'restart',
    by: 'health',
    script: 'start_prim',
    dir: '/srv/some data',
    cause: 'db2 is silent on all networks',
    reason: 'something happened',
  };
  return sentence.replace(/\{(\w+)\}/g, (_, name: string) => words[name] ?? assert.fail(name));
}

describe('what a mirror says of its decisions', () => {
  it('is told by each sentence of the registry, and by no other one before it', () => {
    for (const [code, { sentence }] of Object.entries(refusalErrors)) {
      assert.equal(explainRefusal(sample(sentence), 'db')?.code, code, sentence);
    }
  });

  it('is said by a machine: no sentence of the registry has outlived its use', () => {
    const core = [
      ...readdirSync('src/core')
        .filter((file) => file.startsWith('mirror'))
        .map((file) => `src/core/${file}`),
      // What the host is told by the engine, and tells the machine.
      'native/replica/copy_mark.cc',
    ]
      .map((file) => readFileSync(file, 'utf8').replace(/\$\{[^}]*\}/g, '{}'))
      .join('\n');
    for (const { sentence } of Object.values(refusalErrors)) {
      const parts = sentence
        .replace('out prim:', 'out {verb}:')
        .split(/\{\w+\}|[:;] |\) because |\(/)
        .map((part) => part.trim());
      const longest = parts.toSorted((a, b) => b.length - a.length)[0] ?? '';
      assert.ok(core.includes(longest) || core.includes(longest.replaceAll("'", "\\'")), longest);
    }
  });

  it('has a next step that names what the sentence names', () => {
    const text = 'waits for db2, which has the up-to-date data (epoch 7)';
    const { code, hint } = explainRefusal(text, 'shop') ?? assert.fail();
    assert.equal(code, 'HF-MIRROR-120');
    assert.match(hint, /^Start db2: .*`holdfast primforce -m shop`/);
    for (const { sentence } of Object.values(refusalErrors)) {
      assert.doesNotMatch(explainRefusal(sample(sentence), 'db')?.hint ?? '{', /\{\w+\}/);
    }
  });

  it('is not made up for sentences of other parts', () => {
    const apart =
      'both servers of db took changes while they were apart: 4 here, 0 on s1, after change 19';
    assert.equal(explainRefusal(apart, 'db')?.code, 'HF-MIRROR-016');
    for (const text of ['', 'both servers took changes', 'not taking over']) {
      assert.equal(explainRefusal(text, 'db'), null, text);
    }
  });

  it('has a code for all that the machines say under faults', () => {
    const said = saidBySimulation();
    const unknown = [...said].filter((text) => explainRefusal(text, 'db') === null);
    // Of the engine, which has errors of its own.
    assert.deepEqual(unknown, ['this copy has failed']);
    const codes = new Set([...said].map((text) => explainRefusal(text, 'db')?.code));
    assert.ok(codes.size > 20, [...codes].join(' '));
  });
});
