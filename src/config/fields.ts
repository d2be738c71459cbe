import { createHash } from 'node:crypto';
import type { AutomaticAction } from './model.ts';
import type { Problems } from './problems.ts';
import { ruleOf, type Schema } from './schema.ts';
import {
  type Address,
  type DurationUnit,
  parseAddress,
  parseDuration,
  whyNotHost,
} from './values.ts';
import type { Element } from './xml.ts';

/**
 * Reads attributes whose form has been checked: a value of the wrong form has its error already and
 * was taken out, so that its default stands and no second error is raised.
 */
export class Fields {
  readonly problems: Problems;
  readonly #schema: Schema;
  readonly #bad: ReadonlySet<Element>;

  constructor(schema: Schema, problems: Problems, bad: ReadonlySet<Element>) {
    this.#schema = schema;
    this.#bad = bad;
    this.problems = problems;
  }

  /** True where the element has a value of the wrong form: what it says together with others is moot. */
  bad(element: Element): boolean {
    return this.#bad.has(element);
  }

  /** Adds the defaults of the schema to an element and all below it. */
  preset(element: Element): void {
    for (const rule of ruleOf(this.#schema, element)?.attributes.values() ?? []) {
      if (rule.preset !== null && !element.attributes.has(rule.name)) {
        element.attributes.set(rule.name, { value: rule.preset, line: element.line, given: false });
      }
    }
    for (const child of element.children) this.preset(child);
  }

  /** The child of that name; where there is none, one with the defaults of the schema. */
  child(parent: Element, name: string): Element {
    const found = childOf(parent, name);
    if (found !== undefined) return found;
    const { line } = parent;
    const empty = { name, line, attributes: new Map(), children: [], text: '', parent };
    this.preset(empty);
    return empty;
  }

  given(element: Element, name: string): boolean {
    return element.attributes.get(name)?.given ?? false;
  }

  line(element: Element, name: string): number {
    return element.attributes.get(name)?.line ?? element.line;
  }

  /** As it stands in the file. */
  raw(element: Element, name: string): string {
    return element.attributes.get(name)?.value ?? '';
  }

  /** Without blanks around it. */
  text(element: Element, name: string): string {
    return this.raw(element, name).trim().replace(/\s+/g, ' ');
  }

  on(element: Element, name: string): boolean {
    return this.text(element, name) === 'on';
  }

  int(element: Element, name: string): number {
    const value = Number(this.text(element, name));
    return Number.isSafeInteger(value) ? value : 0;
  }

  /** One of the values that the schema names; the first of `values` where it is none. */
  oneOf<T extends string>(element: Element, name: string, values: readonly [T, ...T[]]): T {
    const text = this.text(element, name);
    return values.find((value) => value === text) ?? values[0];
  }

  /** Milliseconds; the unit of a bare number is that of the attribute's type. */
  ms(element: Element, name: string): number {
    const type = ruleOf(this.#schema, element)?.attributes.get(name)?.type ?? 'duration_ms';
    const value = this.text(element, name);
    const duration = parseDuration(value, type.replace('duration_', '') as DurationUnit);
    return duration.ok ? duration.ms : 0;
  }

  /** As ms, and within bounds that are written out in the error. */
  msWithin(
    element: Element,
    name: string,
    low: readonly [number, string],
    high: readonly [number, string],
  ): number {
    const ms = this.ms(element, name);
    const value = this.text(element, name);
    if (ms < low[0] || ms > high[0]) {
      const values = { attribute: name, element: element.name, value, low: low[1], high: high[1] };
      this.problems.error('HF-CONFIG-072', this.line(element, name), values);
    }
    return ms;
  }

  /** The address of a host, said to be wrong where it is none; null then, or where absent. */
  address(element: Element, name: string): Address | null {
    const value = this.text(element, name);
    if (value === '') return null;
    const values = { attribute: name, element: element.name, value };
    const address = parseAddress(value);
    if (address === null) {
      this.problems.error('HF-CONFIG-030', this.line(element, name), values);
      return null;
    }
    const reason = whyNotHost(address);
    if (reason === null) return address;
    this.problems.error('HF-CONFIG-031', this.line(element, name), { ...values, reason });
    return null;
  }
}

/** The values of an action, the usual default first. */
export const actions = [
  'restart',
  'stopstart',
  'stop',
  'wait',
  'noaction',
] as const satisfies readonly [AutomaticAction, ...AutomaticAction[]];

/** Says when a file is not one of the module's own. */
export function belowBin(element: Element, attribute: string, path: string, fields: Fields): void {
  const escapes = path.startsWith('/') || path.split('/').includes('..') || path.includes('\\');
  if (path === '' || !escapes) return;
  const values = { attribute, element: element.name, value: path };
  fields.problems.error('HF-CONFIG-070', fields.line(element, attribute), values);
}

export function childrenOf(element: Element | undefined, name: string): Element[] {
  return element?.children.filter((child) => child.name === name) ?? [];
}

export function childOf(element: Element | undefined, name: string): Element | undefined {
  return element?.children.find((child) => child.name === name);
}

/**
 * SHA-256, hex, of the content: comments, blanks between elements and the order of attributes do
 * not count, nor do macros (they are expanded by now) and the hints of editors (xsi:…).
 */
export function signatureOf(root: Element): string {
  return createHash('sha256')
    .update(JSON.stringify(canonical(root)))
    .digest('hex');
}

function canonical(element: Element): unknown {
  const attributes = [...element.attributes]
    .filter(([name, attribute]) => attribute.given && !name.includes(':'))
    .map(([name, attribute]) => [name, attribute.value.trim()])
    .toSorted(([a = ''], [b = '']) => (a < b ? -1 : 1));
  const children = element.children.filter((child) => child.name !== 'macro').map(canonical);
  return [element.name, attributes, element.text.trim(), children];
}
