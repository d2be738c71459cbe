import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { XmlDocument, XmlValidateError, XsdValidator } from 'libxml2-wasm';
import { Problems } from './problems.ts';
import { type Element, withXml, type XmlFile } from './xml.ts';

/** What the XSD says of one attribute. */
export interface AttributeRule {
  readonly name: string;
  readonly required: boolean;
  /** Value in force where the attribute is absent; null: none. */
  readonly preset: string | null;
  /** Name of its simple type; null where the attribute has a type of its own. */
  readonly type: string | null;
  readonly values: readonly string[];
  /** The phrase after "expected" in an error. */
  readonly wanted: string;
  readonly text: string;
}

/** What the XSD says of one element. */
export interface ElementRule {
  readonly name: string;
  readonly min: number;
  readonly max: number;
  readonly text: string;
  readonly attributes: ReadonlyMap<string, AttributeRule>;
  readonly children: ReadonlyMap<string, ElementRule>;
}

export interface Schema {
  /** Sentence about the whole file. */
  readonly text: string;
  readonly root: ElementRule;
  readonly validator: XsdValidator;
  /** The validator points into it; both live as long as the process. */
  readonly document: XmlDocument;
}

const schemas = new Map<string, Schema>();

/** The schema of one of our files, read once: from it come validation, defaults, suggestions and the reference. */
export function schemaOf(name: 'cluster' | 'userconfig'): Schema {
  const known = schemas.get(name);
  if (known !== undefined) return known;
  const file = join(packageRoot(), 'schema', `${name}.xsd`);
  const source = readFileSync(file, 'utf8');
  const problems = new Problems(file);
  const rules = withXml(source, 'xs:schema', problems, ({ root }) => ({
    text: annotation(root),
    root: new Reader(root).root(),
  }));
  if (rules === null) throw problems.errors()[0] ?? new Error(`no schema in ${file}`);
  const document = XmlDocument.fromString(source);
  const schema = { ...rules, document, validator: XsdValidator.fromDoc(document) };
  schemas.set(name, schema);
  return schema;
}

/** The folder of package.json, above this file whether compiled or not. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'schema', 'cluster.xsd'))) {
    const above = dirname(folder);
    if (above === folder) throw new Error('the folder schema of the installation is missing');
    folder = above;
  }
  return folder;
}

/** Reads the rules out of an XSD of the form that our two files have. */
class Reader {
  readonly #schema: Element;
  readonly #simple: ReadonlyMap<string, Element>;
  readonly #complex: ReadonlyMap<string, Element>;

  constructor(schema: Element) {
    this.#schema = schema;
    this.#simple = named(schema, 'xs:simpleType');
    this.#complex = named(schema, 'xs:complexType');
  }

  root(): ElementRule {
    const [first] = only(this.#schema, 'xs:element');
    if (first === undefined) throw new Error('the schema has no root element');
    return this.#element(first);
  }

  #element(element: Element): ElementRule {
    const typeName = attr(element, 'type');
    const type =
      typeName === null ? only(element, 'xs:complexType')[0] : this.#complex.get(typeName);
    const models = type?.children.filter((child) => modelNames.has(child.name)) ?? [];
    const repeats = models.some((model) => attr(model, 'maxOccurs') === 'unbounded');
    const children = models.flatMap((model) => only(model, 'xs:element'));
    const max = attr(element, 'maxOccurs') ?? '1';
    return {
      name: attr(element, 'name') ?? '',
      min: Number(attr(element, 'minOccurs') ?? '1'),
      max: max === 'unbounded' ? Infinity : Number(max),
      text: annotation(element),
      attributes: byName(
        (type === undefined ? [] : only(type, 'xs:attribute')).map((a) => this.#attribute(a)),
      ),
      children: byName(
        children.map((child) => {
          const rule = this.#element(child);
          // In a choice that repeats, an element with minOccurs="0" may come often; "?" is checked in code.
          return repeats && rule.min > 0 ? { ...rule, min: 0 } : rule;
        }),
      ),
    };
  }

  #attribute(element: Element): AttributeRule {
    const typeName = attr(element, 'type');
    const type = typeName === null ? only(element, 'xs:simpleType')[0] : this.#simple.get(typeName);
    const values = (type === undefined ? [] : only(type, 'xs:restriction'))
      .flatMap((restriction) => only(restriction, 'xs:enumeration'))
      .map((value) => attr(value, 'value') ?? '');
    return {
      name: attr(element, 'name') ?? '',
      required: attr(element, 'use') === 'required',
      preset: attr(element, 'default'),
      type: typeName,
      values,
      wanted: values.length > 0 ? orList(values) : type === undefined ? 'a text' : annotation(type),
      text: annotation(element),
    };
  }
}

const modelNames = new Set(['xs:all', 'xs:sequence', 'xs:choice']);

function attr(element: Element, name: string): string | null {
  return element.attributes.get(name)?.value ?? null;
}

function only(element: Element, name: string): Element[] {
  return element.children.filter((child) => child.name === name);
}

function named(schema: Element, name: string): Map<string, Element> {
  return new Map(only(schema, name).map((type) => [attr(type, 'name') ?? '', type]));
}

function byName<T extends { readonly name: string }>(rules: readonly T[]): Map<string, T> {
  return new Map(rules.map((rule) => [rule.name, rule]));
}

function annotation(element: Element): string {
  return only(element, 'xs:annotation')
    .flatMap((note) => only(note, 'xs:documentation'))
    .map((text) => text.text.trim().replace(/\s+/g, ' '))
    .join(' ');
}

/** "a, b or c" */
export function orList(names: readonly string[]): string {
  if (names.length < 2) return names.join('');
  return `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}

/** Messages of the XSD validation, each with the element it speaks of. */
export function validate(schema: Schema, file: XmlFile): { message: string; element: Element }[] {
  try {
    schema.validator.validate(file.document);
    return [];
  } catch (error) {
    if (!(error instanceof XmlValidateError)) throw error;
    return error.details.map((detail) => ({
      message: detail.message.trim(),
      element: elementAt(file.root, detail.xpath ?? '') ?? file.root,
    }));
  }
}

/** Follows a path such as /safe/service/vip/group[2], as the library writes it. */
function elementAt(root: Element, xpath: string): Element | null {
  let here: Element | null = null;
  for (const step of xpath.split('/').slice(1)) {
    const match = /^([^[]+)(?:\[(\d+)\])?$/.exec(step);
    const name = match?.[1] ?? '';
    const index = Number(match?.[2] ?? '1') - 1;
    const among: readonly Element[] = here === null ? [root] : here.children;
    const found: Element | undefined = among.filter((e) => name === '*' || e.name === name)[index];
    if (found === undefined) return here;
    here = found;
  }
  return here;
}

/** The rule of an element, by the names of its ancestors; null where the schema knows no such place. */
export function ruleOf(schema: Schema, element: Element): ElementRule | null {
  if (element.parent === null) return element.name === schema.root.name ? schema.root : null;
  return ruleOf(schema, element.parent)?.children.get(element.name) ?? null;
}
