import { isIP } from 'node:net';
import { actions, belowBin, type Fields } from './fields.ts';
import type { CheckConfig, CheckWhen } from './model.ts';
import type { Element } from './xml.ts';

const moments = ['both', 'pre', 'prim', 'second'] as const;

/** Reads the checkers of a module. */
export function readChecks(element: Element | undefined, fields: Fields): CheckConfig[] {
  const lines = new Map<string, number>();
  const checks: CheckConfig[] = [];
  for (const child of element?.children ?? []) {
    const check = readCheck(child, fields);
    if (check === null) continue;
    const key = `${check.kind} ${check.ident}`;
    const first = lines.get(key);
    if (first !== undefined) {
      const values = { element: child.name, name: check.ident, first };
      fields.problems.error('HF-CONFIG-068', child.line, values);
    } else lines.set(key, child.line);
    checks.push(check);
  }
  return checks;
}

function readCheck(element: Element, fields: Fields): CheckConfig | null {
  const when = moment(element, fields);
  const to = fields.child(element, 'to');
  const base = { ident: fields.text(element, 'ident'), when, line: element.line };
  const addr = fields.address(to, 'addr')?.text ?? '';
  const interval = () => atLeastOneSecond(to, 'interval', fields);
  const timing = () => ({
    intervalMs: interval(),
    timeoutMs: atLeastOneSecond(to, 'timeout', fields),
  });
  switch (element.name) {
    case 'tcp': {
      const action = fields.given(element, 'action')
        ? fields.oneOf(element, 'action', actions)
        : when === 'pre'
          ? 'wait'
          : 'restart';
      const port = fields.int(to, 'port');
      return { ...base, kind: 'tcp', action, addr, port, ...timing() };
    }
    case 'ping': {
      const action = fields.oneOf(element, 'action', actions);
      return { ...base, kind: 'ping', action, addr, ...timing() };
    }
    case 'intf': {
      const localAddr = fields.address(to, 'local_addr')?.text ?? '';
      return { ...base, kind: 'intf', action: 'wait', localAddr };
    }
    case 'ip':
      return { ...base, kind: 'ip', action: 'stopstart', addr, intervalMs: interval() };
    case 'custom': {
      const exec = fields.text(element, 'exec');
      belowBin(element, 'exec', exec, fields);
      const action = fields.oneOf(element, 'action', actions);
      return { ...base, kind: 'custom', action, exec, arg: fields.raw(element, 'arg') };
    }
    case 'module': {
      const name = fields.text(element, 'name');
      return {
        ...base,
        kind: 'module',
        ident: base.ident === '' ? name : base.ident,
        action: 'wait',
        name,
        addr: addr === '' ? null : addr,
        port: fields.int(to, 'port'),
        ...timing(),
      };
    }
    case 'splitbrain':
      return readSplitbrain(element, base, fields);
    default:
      return null;
  }
}

/** A veto has no action of its own: what would follow from a takeover does not. */
function readSplitbrain(
  element: Element,
  base: Pick<CheckConfig, 'ident' | 'when' | 'line'>,
  fields: Fields,
): CheckConfig {
  const exec = fields.text(element, 'exec');
  const arg = fields.raw(element, 'arg');
  const wrong = arg.split(/\s+/).filter((addr) => addr !== '' && isIP(addr) === 0);
  if (exec !== 'ping') belowBin(element, 'exec', exec, fields);
  else if (arg.trim() === '' || wrong.length > 0) {
    const wanted = 'IPv4 or IPv6 addresses, separated by blanks';
    const values = { attribute: 'arg', element: 'splitbrain', value: arg, wanted };
    fields.problems.error('HF-CONFIG-016', fields.line(element, 'arg'), values);
  }
  return { ...base, kind: 'splitbrain', action: 'noaction', exec, arg };
}

/** The states of a mirror do not occur in the other modes. */
function moment(element: Element, fields: Fields): CheckWhen {
  const when = fields.oneOf(element, 'when', moments);
  const mode = fields.text(element.parent?.parent ?? element, 'mode');
  if (mode !== 'mirror' && (when === 'prim' || when === 'second')) {
    const values = { element: element.name, value: when, mode };
    fields.problems.error('HF-CONFIG-075', fields.line(element, 'when'), values);
  }
  return when;
}

function atLeastOneSecond(element: Element, attribute: string, fields: Fields): number {
  return fields.msWithin(element, attribute, [1000, '1s'], [86_400_000, '1d']);
}
