/** What a mirror's engine tells of servers that were apart, in words; decides nothing. */
import { bytesText } from '../config/values.ts';
import { HoldfastError } from '../errors.ts';
import type { EngineAnswer } from './replica.ts';

const count = (values: EngineAnswer, key: string): string => values[key] ?? '?';

/** Why the two copies cannot be brought together without the operator; null: it is not that. */
export function apartError(
  module: string,
  node: string,
  values: EngineAnswer,
): HoldfastError | null {
  if (values['state'] !== 'refused') return null;
  const common = count(values, 'common');
  const own = count(values, 'source_more');
  const other = count(values, 'target_more');
  switch (values['reason']) {
    case 'fork':
      return new HoldfastError('HF-MIRROR-016', { module, node, own, other, common });
    case 'behind':
      return new HoldfastError('HF-MIRROR-017', { module, node, other });
    case 'unrelated':
      return new HoldfastError('HF-MIRROR-018', { module, node });
    default:
      return null;
  }
}

/** Events that an operator is told with a code; null: others. */
export function toldError(
  module: string,
  event: string,
  values: EngineAnswer,
): HoldfastError | null {
  if (event === 'quarantined') {
    const folder = count(values, 'folder');
    return new HoldfastError('HF-MIRROR-019', { module, files: count(values, 'files'), folder });
  }
  if (event !== 'took_back') return null;
  const lsn = count(values, 'lsn');
  return new HoldfastError('HF-MIRROR-020', { module, epoch: count(values, 'epoch'), lsn });
}

/** `resynchronisation 7 done (dirty, after change 120): 12 MiB sent, 13 MiB read`. */
export function resyncText(values: EngineAnswer): string {
  const { run = '?', state = '?', kind, common, sent, read } = values;
  const of = [kind, common === undefined ? undefined : `after change ${common}`];
  const how = of.filter((part) => part !== undefined).join(', ');
  const done = [
    sent === undefined ? undefined : `${bytesText(Number(sent))} sent`,
    read === undefined ? undefined : `${bytesText(Number(read))} read`,
  ].filter((part) => part !== undefined);
  const figures = done.length === 0 ? '' : `: ${done.join(', ')}`;
  return `resynchronisation ${run} ${state}${how === '' ? '' : ` (${how})`}${figures}`;
}

/** The engines' words for why they are not together, for the operator. */
const reasons: Readonly<Record<string, string>> = {
  set: 'it is of another mirror or another cluster',
  version: 'its engine is of another version',
  epoch: 'it has data of a newer epoch',
  role: 'it is no secondary',
  history: 'its copy does not go before this one',
  fork: 'both servers took changes while they were apart',
  behind: 'it has changes that this server lacks',
  unrelated: 'the two copies have no history in common',
  state: 'its copy is marked as outdated or failed',
  volumes: 'it has another number of directories',
  stop: 'it was stopped',
  journal: 'its journal cannot be written',
  apply: 'a change cannot be applied there',
  protocol: 'the two did not understand one another',
};

export function reasonText(reason: string): string {
  return reasons[reason] ?? reason;
}

/** `refused: it is no secondary`, `lost`. */
export function peerReasonText(state: string, reason: string): string {
  const text = reasonText(reason);
  return text === '' ? state : `${state}: ${text}`;
}
