import type { Problems } from './problems.ts';
import {
  type AttributeRule,
  type ElementRule,
  orList,
  ruleOf,
  type Schema,
  validate,
} from './schema.ts';
import { suggestion } from './suggest.ts';
import { type DurationUnit, parseDuration } from './values.ts';
import type { Element, XmlFile } from './xml.ts';

/** How far the form of a file holds. */
export interface Form {
  /**
   * True when elements, their names or required attributes are wrong, so that checks of the meaning
   * would only mislead.
   */
  readonly broken: boolean;
  /** Elements with a wrong optional attribute; it was taken out, so that its default stands. */
  readonly bad: ReadonlySet<Element>;
}

/**
 * Validates against the XSD and says each violation in our words, with the line of the element or
 * attribute. Attributes in `skip` have been complained of before.
 */
export function checkForm(
  schema: Schema,
  file: XmlFile,
  problems: Problems,
  skip: ReadonlySet<object>,
): Form {
  const root = file.root;
  if (root.name !== schema.root.name) {
    if (root.name.includes(':')) problems.error('HF-CONFIG-026', root.line, { element: root.name });
    else {
      problems.error('HF-CONFIG-009', root.line, { found: root.name, root: schema.root.name });
    }
    return { broken: true, bad: new Set() };
  }
  const check = new FormCheck(schema, problems, skip);
  for (const { message, element } of validate(schema, file)) check.take(message, element);
  check.durations(root);
  return check;
}

class FormCheck implements Form {
  broken = false;
  readonly bad = new Set<Element>();
  readonly #schema: Schema;
  readonly #problems: Problems;
  /** Attributes and elements that already have a message: the library may have several for one. */
  readonly #done: Set<unknown>;
  readonly #parents = new Set<Element>();

  constructor(schema: Schema, problems: Problems, skip: ReadonlySet<object>) {
    this.#schema = schema;
    this.#problems = problems;
    this.#done = new Set<unknown>(skip);
  }

  take(message: string, element: Element): void {
    const rule = ruleOf(this.#schema, element);
    const attribute = /^Element '[^']*', attribute '([^']*)': /.exec(message)?.[1];
    const missing = /The attribute '([^']*)' is required but missing/.exec(message)?.[1];
    if (attribute !== undefined) this.#attribute(message, element, attribute, rule);
    else if (missing !== undefined) this.#missing(element, missing, rule);
    else if (message.includes('This element is not expected')) this.#unexpected(element);
    else if (message.includes('Missing child element')) this.#childless(element, rule, message);
    else if (/[Cc]haracter content|Element content is not allowed/.test(message)) {
      this.#broken(element, 'HF-CONFIG-019', { element: element.name });
    } else this.#broken(element, 'HF-CONFIG-020', { reason: message });
  }

  #broken(
    element: Element,
    code: Parameters<Problems['error']>[0],
    values: Record<string, string>,
    line = element.line,
  ) {
    this.broken = true;
    this.#problems.error(code, line, values);
  }

  #attribute(message: string, element: Element, name: string, rule: ElementRule | null) {
    const given = element.attributes.get(name);
    if (given !== undefined && this.#done.has(given)) return;
    this.#done.add(given);
    const line = given?.line ?? element.line;
    const known = rule?.attributes.get(name);
    if (known === undefined || message.includes('is not allowed')) {
      const names = [...(rule?.attributes.keys() ?? [])];
      const code = name.startsWith('{') || name.includes(':') ? 'HF-CONFIG-026' : 'HF-CONFIG-012';
      this.#broken(
        element,
        code,
        {
          attribute: name,
          element: element.name,
          suggestion: suggestion(name, free(names, element)),
          allowed: names.length === 0 ? 'none' : names.join(', '),
        },
        line,
      );
      return;
    }
    this.#badValue(element, known, given?.value ?? '', line);
  }

  /** Times that have the right form and are too long all the same. */
  durations(element: Element) {
    for (const rule of ruleOf(this.#schema, element)?.attributes.values() ?? []) {
      const given = element.attributes.get(rule.name);
      if (given === undefined || this.#done.has(given)) continue;
      const own = durationUnit(rule);
      const duration = own && parseDuration(given.value.trim(), own);
      if (!duration || duration.ok || duration.why !== 'too_long') continue;
      const values = { attribute: rule.name, element: element.name, value: given.value };
      this.#problems.error('HF-CONFIG-018', given.line, values);
      this.#takeOut(element, rule);
    }
    for (const child of element.children) this.durations(child);
  }

  #takeOut(element: Element, rule: AttributeRule) {
    if (rule.required) this.broken = true;
    element.attributes.delete(rule.name);
    this.bad.add(element);
  }

  #badValue(element: Element, rule: AttributeRule, value: string, line: number) {
    this.#takeOut(element, rule);
    const common = { attribute: rule.name, element: element.name, value };
    if (rule.values.length > 0) {
      const allowed = orList(rule.values);
      const near = suggestion(value, rule.values);
      this.#problems.error('HF-CONFIG-015', line, { ...common, allowed, suggestion: near });
      return;
    }
    const own = durationUnit(rule);
    const duration = own && parseDuration(value.trim(), own);
    if (duration && !duration.ok && duration.why === 'unit') {
      const { unit } = duration;
      this.#problems.error('HF-CONFIG-017', line, { ...common, unit, own });
      return;
    }
    this.#problems.error('HF-CONFIG-016', line, { ...common, wanted: rule.wanted });
  }

  #missing(element: Element, name: string, rule: ElementRule | null) {
    // <virtual_addr adress="…"> is one mistake, not an unknown and a missing attribute.
    const unknown = [...element.attributes.keys()].filter((a) => !rule?.attributes.has(a));
    this.broken = true;
    if (unknown.some((wrong) => suggestion(wrong, [name]) !== '')) return;
    const wanted = rule?.attributes.get(name)?.wanted ?? 'a value';
    this.#broken(element, 'HF-CONFIG-013', { element: element.name, attribute: name, wanted });
  }

  /** The library stops at the first wrong child of a parent; we go on with its siblings. */
  #unexpected(element: Element) {
    const parent = element.parent;
    if (parent === null || this.#parents.has(parent)) return;
    this.#parents.add(parent);
    const rule = ruleOf(this.#schema, parent);
    const names = [...(rule?.children.keys() ?? [])];
    const allowed = names.length === 0 ? 'none' : names.map((name) => `<${name}>`).join(', ');
    const seen = new Map<string, Element>();
    let explained = false;
    for (const child of parent.children) {
      const known = rule?.children.get(child.name);
      const first = seen.get(child.name);
      if (child.name.includes(':')) {
        this.#broken(child, 'HF-CONFIG-026', { element: child.name });
      } else if (known === undefined) {
        this.#broken(child, 'HF-CONFIG-010', {
          element: child.name,
          parent: parent.name,
          suggestion: suggestion(child.name, names),
          allowed,
        });
      } else if (first !== undefined && known.max === 1) {
        const reason = `there can be only one, and one is on line ${first.line}`;
        const values = { element: child.name, parent: parent.name, reason, allowed };
        this.#broken(child, 'HF-CONFIG-011', values);
      } else {
        seen.set(child.name, child);
        continue;
      }
      explained = true;
    }
    if (explained) return;
    const reason = `the order is ${names.map((name) => `<${name}>`).join(', ')}`;
    const values = { element: element.name, parent: parent.name, reason, allowed };
    this.#broken(element, 'HF-CONFIG-011', values);
  }

  #childless(element: Element, rule: ElementRule | null, message: string) {
    // A misspelt child has been named already.
    if (element.children.some((child) => !rule?.children.has(child.name))) {
      for (const child of element.children) this.#unexpected(child);
      return;
    }
    const expected = (/Expected is (?:one of )?\( (.*) \)/.exec(message)?.[1] ?? '').split(', ');
    const needed = expected.filter((name) => (rule?.children.get(name)?.min ?? 0) > 0);
    const names = (needed.length > 0 ? needed : expected).map((name) => `<${name}>`);
    this.#broken(element, 'HF-CONFIG-014', { element: element.name, wanted: orList(names) });
  }
}

/** Names that the element does not already have. */
function free(names: readonly string[], element: Element): string[] {
  return names.filter((name) => !element.attributes.has(name));
}

/** The own unit of an attribute that is a time; null where it is none. */
function durationUnit(rule: AttributeRule): DurationUnit | null {
  return rule.type?.startsWith('duration_') ? (rule.type.slice(9) as DurationUnit) : null;
}
