/**
 * The process that reads and writes a register in a directory. A network file system that does not
 * answer holds up whoever calls it, in Node.js for all files of the process; so it is this one, which
 * can be killed, and not the agent.
 */
import { DirectoryStore } from './directory-store.ts';
import type { RegisterQuestion } from './record.ts';

const [path = '', clusterId = '', isOwn = ''] = process.argv.slice(2);
const store = new DirectoryStore(path, clusterId, isOwn === 'own');

process.on('message', ({ id, question }: { id: number; question: RegisterQuestion }) => {
  process.send?.({ id, answer: store.answer(question) });
});
// From here on a call that hangs is the file system's.
process.send?.({ ready: true });
// The agent has ended.
process.on('disconnect', () => process.exit(0));
