/**
 * The smallest agent, for tests: configures from $BEAT_CONFIG, prints events and answers as JSON
 * lines on stdout, takes commands as JSON lines on stdin.
 */
import { createInterface } from 'node:readline';
import { openBeat, type BeatConfig, type BeatModule } from '../../src/native/beat.ts';

export type AgentCommand =
  | { readonly op: 'announce'; readonly modules: readonly AgentModule[] }
  | { readonly op: 'announced' }
  | { readonly op: 'stats' }
  | { readonly op: 'ready' }
  | { readonly op: 'block'; readonly ms: number }
  | { readonly op: 'configure'; readonly config: AgentConfig }
  | { readonly op: 'exit'; readonly code: number };

/** BeatModule and BeatConfig in JSON. */
export type AgentModule = Omit<BeatModule, 'viewMembers'> & { readonly viewMembers: string };
export type AgentConfig = Omit<BeatConfig, 'key'> & { readonly key: string };

function say(record: unknown): void {
  const json = JSON.stringify(record, (_, value: unknown) =>
    typeof value === 'bigint' ? value.toString() : value,
  );
  process.stdout.write(`${json}\n`);
}

const configOf = (config: AgentConfig): BeatConfig => ({
  ...config,
  key: Buffer.from(config.key, 'hex'),
});

process.on('SIGTERM', () => {
  say({ kind: 'stopping' });
  process.exit(0);
});
say({ kind: 'started', pid: process.pid });
const beat = openBeat();
beat.onLost(() => process.exit(70));
beat.onEvents((events) => {
  for (const event of events) say(event);
});
beat.configure(configOf(JSON.parse(process.env['BEAT_CONFIG'] ?? '') as AgentConfig));
setInterval(() => beat.confirm(), 50);
createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line) as AgentCommand;
  switch (command.op) {
    case 'announce':
      beat.announce(command.modules.map((m) => ({ ...m, viewMembers: BigInt(m.viewMembers) })));
      break;
    case 'announced':
      void beat.announced().then(() => say({ kind: 'announced' }));
      break;
    case 'stats':
      say({ kind: 'stats', nowMs: beat.nowMs(), stats: beat.stats() });
      break;
    case 'ready':
      beat.ready();
      break;
    case 'block':
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, command.ms);
      break;
    case 'configure':
      beat.configure(configOf(command.config));
      break;
    case 'exit':
      process.exit(command.code);
  }
});
