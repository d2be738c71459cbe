/** Reads what looks at processes, and the rules by which checks lead to actions. */
import { readRules } from '../core/rules.ts';
import { actions, belowBin, childrenOf, type Fields } from './fields.ts';
import type { ErrdConfig, FailoverConfig, ProcConfig } from './model.ts';
import { posixRegex } from './posix.ts';
import type { Element } from './xml.ts';

/** Reads `<errd>`. */
export function readErrd(element: Element, fields: Fields): ErrdConfig {
  const lines = new Map<string, number>();
  const procs = childrenOf(element, 'proc').map((proc): ProcConfig => {
    const name = fields.text(proc, 'name');
    const first = lines.get(name);
    if (first === undefined) lines.set(name, proc.line);
    else fields.problems.error('HF-CONFIG-068', proc.line, { element: 'proc', name, first });
    const action = fields.text(proc, 'action');
    if (!(actions as readonly string[]).includes(action)) belowBin(proc, 'action', action, fields);
    const services = fields.text(proc, 'restart_services');
    unused(proc, services, fields);
    return {
      name,
      service: fields.text(proc, 'service') === 'yes',
      nameRegex: regex(proc, 'nameregex', fields),
      argRegex: regex(proc, 'argregex', fields),
      atLeast: fields.int(proc, 'atleast'),
      atMost: fields.int(proc, 'atmax'),
      action,
      restartServices: services === '' ? [] : services.split(',').map((name) => name.trim()),
      when: fields.oneOf(proc, 'class', ['both', 'prim', 'pre', 'second', 'sec', 'custom']),
      startAfter: fields.int(proc, 'start_after'),
      line: proc.line,
    };
  });
  return { pollMs: fields.ms(element, 'polltimer'), procs };
}

/** SafeKit's, that do nothing here. */
function unused(proc: Element, services: string, fields: Fields) {
  const ignored = (attribute: string, reason: string) => {
    const values = { attribute, element: 'proc', reason };
    fields.problems.warning('HF-CONFIG-049', fields.line(proc, attribute), values);
  };
  if (services !== '') ignored('restart_services', 'the scripts start and stop all');
  if (fields.text(proc, 'class') === 'custom') ignored('class', 'nothing looks for a custom class');
}

/** A regular expression, tried as one of JavaScript: what that cannot read, POSIX hardly can. */
function regex(element: Element, attribute: string, fields: Fields): string | null {
  if (!fields.given(element, attribute)) return null;
  const value = fields.text(element, attribute);
  try {
    posixRegex(value);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    fields.problems.error('HF-CONFIG-079', fields.line(element, attribute), { value, reason });
  }
  return value;
}

/** Reads `<failover>`; its rules where something `acts` on them. */
export function readFailover(
  element: Element | undefined,
  acts: boolean,
  fields: Fields,
): FailoverConfig | null {
  if (element === undefined) return null;
  const read = acts ? readRules(element.text) : [];
  if ('reason' in read) {
    const { line, reason } = read;
    fields.problems.error('HF-CONFIG-127', element.line + line - 1, { reason });
  }
  return {
    extends: fields.text(element, 'extends') === 'yes',
    periodMs: fields.ms(element, 'period'),
    handleTimeMs: fields.ms(element, 'handle_time'),
    rules: 'reason' in read ? [] : read,
  };
}
