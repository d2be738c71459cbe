import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  initialModule,
  loopCount,
  moduleDeadline,
  type ModuleEffect,
  type ModuleEvent,
  type ModulePhase,
  type ModuleSettings,
  type ModuleState,
  shownState,
  stepModule,
} from '../../src/core/module.ts';

const settings: ModuleSettings = {
  maxloop: 3,
  loopIntervalMs: 60_000,
  hasHealth: true,
  healthAction: 'restart',
  closeTimeoutMs: 1000,
};

type Untimed<E> = E extends ModuleEvent ? Omit<E, 'nowMs'> : never;

/** A module whose effects are written down as short words. */
class Driver {
  state: ModuleState;
  nowMs = 0;
  words: string[] = [];

  constructor(overrides: Partial<ModuleSettings> = {}) {
    this.state = initialModule({ ...settings, ...overrides });
  }

  give(event: Untimed<ModuleEvent>): this {
    const [state, effects] = stepModule(this.state, { ...event, nowMs: this.nowMs } as ModuleEvent);
    this.state = state;
    this.words.push(...effects.flatMap(word));
    return this;
  }

  done(ok = true): this {
    return this.give({ kind: 'scriptDone', ok, why: ok ? '' : 'exit status 1' });
  }

  /** Words since the last call. */
  take(): string {
    const text = this.words.join(' ');
    this.words = [];
    return text;
  }

  up(): this {
    this.give({ kind: 'command', verb: 'start' }).done().done();
    this.give({ kind: 'health', up: true, why: '' });
    this.take();
    assert.equal(this.state.phase, 'serving');
    return this;
  }
}

function word(effect: ModuleEffect): string[] {
  switch (effect.kind) {
    case 'run':
      return [
        `${effect.script}${effect.force ? '!' : ''}(${effect.current},${effect.next},${effect.action})`,
      ];
    case 'gate':
      return [effect.open ? 'gate+' : 'gate-'];
    case 'farm':
      return [effect.on ? 'farm+' : 'farm-'];
    case 'watch':
      return [effect.on ? 'watch+' : 'watch-'];
    case 'cancel':
      return ['cancel'];
    case 'record':
      return effect.record === 'refusal' ? ['refused'] : [];
  }
}

describe('core/module', () => {
  it('starts: prestart, farm, start_both, then the gate when the application answers', () => {
    const module = new Driver();
    module.give({ kind: 'command', verb: 'start' });
    assert.equal(module.take(), 'prestart(STOP,UP,start)');
    assert.deepEqual(shownState(module.state.phase), { state: 'WAIT', readiness: 'Transient' });
    assert.equal(module.done().take(), 'farm+ start_both(WAIT,UP,start)');
    assert.equal(module.done().take(), 'watch+');
    assert.deepEqual(shownState(module.state.phase), { state: 'UP', readiness: 'Transient' });
    assert.equal(module.give({ kind: 'health', up: false, why: 'refused' }).take(), '');
    assert.equal(module.give({ kind: 'health', up: true, why: '' }).take(), 'gate+');
    assert.deepEqual(shownState(module.state.phase), { state: 'UP', readiness: 'Ready' });
  });

  it('opens the gate after start_both where there is no health check', () => {
    const module = new Driver({ hasHealth: false });
    module.give({ kind: 'command', verb: 'start' }).done().done();
    assert.equal(module.state.phase, 'serving');
    assert.match(module.take(), /watch\+ gate\+$/);
  });

  it('closes the gate and gives its buckets up before it stops the application, twice', () => {
    const module = new Driver().up();
    module.give({ kind: 'command', verb: 'stop' });
    assert.equal(module.take(), 'watch- gate-');
    assert.equal(module.give({ kind: 'closed' }).take(), 'stop_both(UP,STOP,stop)');
    assert.equal(module.done().take(), 'stop_both!(UP,STOP,stop)');
    assert.equal(module.done().take(), 'farm- poststop(WAIT,STOP,stop)');
    module.done();
    assert.equal(module.state.phase, 'stopped');
  });

  it('stops the application when giving up the buckets takes too long', () => {
    const module = new Driver().up();
    module.give({ kind: 'command', verb: 'stop' }).take();
    assert.equal(moduleDeadline(module.state), 1000);
    module.nowMs = 999;
    assert.equal(module.give({ kind: 'tick' }).take(), '');
    module.nowMs = 1000;
    assert.equal(module.give({ kind: 'tick' }).take(), 'stop_both(UP,STOP,stop)');
  });

  it('restart runs stop_both and start_both only; stopstart the whole way', () => {
    const module = new Driver().up();
    module.give({ kind: 'command', verb: 'restart' }).give({ kind: 'closed' }).done().done().done();
    assert.equal(
      module.take(),
      'watch- gate- stop_both(UP,UP,restart) stop_both!(UP,UP,restart) start_both(WAIT,UP,restart) watch+',
    );
    module.give({ kind: 'health', up: true, why: '' });
    module.give({ kind: 'command', verb: 'stopstart' }).give({ kind: 'closed' });
    module.done().done().done().done().done();
    assert.equal(module.state.phase, 'opening');
    assert.match(module.take(), /poststop\S+ prestart\S+ farm\+ start_both\S+ watch\+$/);
  });

  it('closes the gate at once when the application dies, and restarts it by maxloop', () => {
    const module = new Driver({ maxloop: 2 }).up();
    for (const loop of [1, 2]) {
      module.nowMs += 100;
      module.give({ kind: 'health', up: false, why: 'connection refused' });
      assert.match(module.take(), /^gate- /);
      module.give({ kind: 'closed' }).done().done().done();
      module.give({ kind: 'health', up: true, why: '' });
      assert.equal(module.state.phase, 'serving');
      assert.equal(loopCount(module.state, module.nowMs), loop);
      module.take();
    }
    module.give({ kind: 'health', up: false, why: 'connection refused' });
    module.give({ kind: 'closed' }).done().done().done();
    assert.equal(module.state.phase, 'stopped');
    assert.ok(module.state.why[0]?.includes('called by maxloop'));
  });

  it('forgets automatic actions after loop_interval, and all of them at a command', () => {
    const module = new Driver({ maxloop: 1 }).up();
    const dies = (): void => {
      module.give({ kind: 'health', up: false, why: 'gone' }).give({ kind: 'closed' });
      module.done().done().done().give({ kind: 'health', up: true, why: '' });
    };
    dies();
    module.nowMs += 60_000;
    dies();
    assert.equal(module.state.phase, 'serving');
    module.give({ kind: 'command', verb: 'start' });
    dies();
    assert.equal(module.state.phase, 'serving');
    dies();
    assert.equal(module.state.phase, 'stopped');
  });

  it('goes through poststop when prestart fails, and does not start the application', () => {
    const module = new Driver();
    module.give({ kind: 'command', verb: 'start' }).take();
    assert.match(module.done(false).take(), /^poststop/);
    module.done();
    assert.equal(module.state.phase, 'stopped');
    assert.ok(module.state.why[0]?.includes('prestart failed'));
  });

  it('tries again when start_both fails, until maxloop', () => {
    const module = new Driver({ maxloop: 1 });
    module.give({ kind: 'command', verb: 'start' }).done();
    module.done(false).done().done().done();
    assert.equal(module.state.phase, 'prestart');
    module.done().done(false).done().done().done();
    assert.equal(module.state.phase, 'stopped');
  });

  it('carries a stop out after the start script that runs', () => {
    const module = new Driver();
    module.give({ kind: 'command', verb: 'start' }).done().take();
    assert.equal(module.give({ kind: 'command', verb: 'stop' }).take(), '');
    assert.equal(module.done().take(), 'stop_both(UP,STOP,stop)');
    module.done().done().done();
    assert.equal(module.state.phase, 'stopped');
  });

  it('forcestop cuts a script short and forces from there', () => {
    const module = new Driver();
    module.give({ kind: 'command', verb: 'start' }).done().take();
    assert.equal(module.give({ kind: 'command', verb: 'forcestop' }).take(), 'cancel');
    assert.equal(module.done(false).take(), 'stop_both!(UP,STOP,stop)');
    module.done();
    assert.equal(module.done().state.phase, 'stopped');
    const serving = new Driver().up();
    assert.equal(
      serving.give({ kind: 'command', verb: 'forcestop' }).take(),
      'gate- watch- stop_both!(UP,STOP,stop)',
    );
  });

  it('refuses to start while it stops, and says so', () => {
    const module = new Driver().up();
    module.give({ kind: 'command', verb: 'stop' }).take();
    assert.equal(module.give({ kind: 'command', verb: 'start' }).take(), 'refused');
    assert.ok(module.state.why[0]?.includes('not carrying out start'));
  });

  it('takes over each phase that a former agent left', () => {
    const expected: Readonly<Record<ModulePhase, string>> = {
      stopped: '',
      prestart: 'prestart(STOP,UP,start)',
      starting: 'farm+ start_both(WAIT,UP,start)',
      opening: 'farm+ watch+',
      serving: 'farm+ gate+ watch+',
      closing: 'farm+ stop_both(UP,UP,start)',
      stopping: 'farm+ stop_both(UP,UP,start)',
      forcing: 'farm+ stop_both!(UP,UP,start)',
      poststop: 'poststop(WAIT,UP,start)',
    };
    for (const [phase, words] of Object.entries(expected)) {
      const module = new Driver();
      module.give({ kind: 'adopt', phase: phase as ModulePhase, after: 'start', loops: [1, 2] });
      assert.equal(module.take(), words, phase);
      assert.deepEqual(module.state.loops, [1, 2]);
    }
  });

  it('keeps the gate shut outside serving, whatever comes in any order', () => {
    // A small exhaustive walk: all words of five events from each phase that adopt can give.
    const events: Untimed<ModuleEvent>[] = [
      { kind: 'command', verb: 'start' },
      { kind: 'command', verb: 'stop' },
      { kind: 'command', verb: 'restart' },
      { kind: 'command', verb: 'forcestop' },
      { kind: 'scriptDone', ok: true, why: '' },
      { kind: 'scriptDone', ok: false, why: 'x' },
      { kind: 'health', up: true, why: '' },
      { kind: 'health', up: false, why: 'x' },
      { kind: 'closed' },
    ];
    let seen = 0;
    const walk = (state: ModuleState, gateOpen: boolean, depth: number): void => {
      seen++;
      assert.equal(gateOpen, state.phase === 'serving', `gate in ${state.phase}`);
      if (depth === 0) return;
      for (const event of events) {
        const [next, effects] = stepModule(state, { ...event, nowMs: 5 } as ModuleEvent);
        let gate = gateOpen;
        let scripts = 0;
        for (const effect of effects) {
          if (effect.kind === 'gate') gate = effect.open;
          if (effect.kind === 'run') scripts++;
        }
        assert.ok(scripts <= 1, 'two scripts at once');
        walk(next, gate, depth - 1);
      }
    };
    walk(initialModule(settings), false, 5);
    walk(new Driver().up().state, true, 5);
    assert.ok(seen > 100_000);
  });
});
