import {
  ParseOption,
  XmlCData,
  XmlDocument,
  XmlElement,
  XmlError,
  XmlLibError,
  XmlText,
} from 'libxml2-wasm';
import type { Problems } from './problems.ts';

/** A configuration is a few KiB; these bounds keep a wrong or hostile file from costing time. */
const sizeMax = 1024 * 1024;
const depthMax = 32;
const itemsMax = 5000;

/** One element of the file with the lines of its parts, free of the XML library. */
export interface Element {
  readonly name: string;
  /** Line of the "<". */
  readonly line: number;
  readonly attributes: Map<string, Attribute>;
  readonly children: Element[];
  /** Text directly inside, CDATA included. */
  readonly text: string;
  readonly parent: Element | null;
}

export interface Attribute {
  value: string;
  readonly line: number;
  /** False for a default of the schema. */
  readonly given: boolean;
}

/** A parsed file; open only inside `withXml`. */
export interface XmlFile {
  readonly document: XmlDocument;
  readonly root: Element;
  /** Changes an attribute in the tree and in the document. */
  set(element: Element, name: string, value: string): void;
}

/**
 * Parses text and calls back with the tree; the library's memory is given back afterwards. Where
 * the text is not acceptable, says why in `problems` and returns null. No DTD, no entities of its
 * own, nothing is loaded from anywhere.
 */
export function withXml<T>(
  text: string,
  rootName: string,
  problems: Problems,
  use: (file: XmlFile) => T,
): T | null {
  const source = text.startsWith('\ufeff') ? text.slice(1) : text;
  if (source.length > sizeMax || Buffer.byteLength(source) > sizeMax) {
    problems.error('HF-CONFIG-002', 1, { limit: '1 MiB' });
    return null;
  }
  if (source.trim() === '') {
    problems.error('HF-CONFIG-004', 1, { root: rootName });
    return null;
  }
  const tags = scan(source, problems);
  if (tags === null) return null;
  let document: XmlDocument | null = null;
  try {
    document = parse(source, problems);
    if (document === null) return null;
    const pairs = new Map<Element, XmlElement>();
    const root = toTree(document.root, null, tags.values(), pairs);
    return use({
      document,
      root,
      set(element, name, value) {
        const attribute = element.attributes.get(name);
        if (attribute === undefined) return;
        attribute.value = value;
        pairs.get(element)?.setAttr(name, value);
      },
    });
  } catch (error) {
    // The library's own failures (no memory, a trap in its code) must not end the agent.
    if (error instanceof XmlError || (error instanceof Error && error.name === 'RuntimeError')) {
      problems.error('HF-CONFIG-027', 1, { reason: error.message });
      return null;
    }
    throw error;
  } finally {
    document?.dispose();
  }
}

const options =
  ParseOption.XML_PARSE_NO_XXE |
  ParseOption.XML_PARSE_NONET |
  ParseOption.XML_PARSE_BIG_LINES |
  ParseOption.XML_PARSE_NO_SYS_CATALOG |
  ParseOption.XML_PARSE_IGNORE_ENC;

function parse(source: string, problems: Problems): XmlDocument | null {
  try {
    return XmlDocument.fromString(source, { option: options });
  } catch (error) {
    if (!(error instanceof XmlLibError)) throw error;
    // One slip makes the parser complain several times; the first is the one that helps.
    const first = error.details[0];
    const reason = (first?.message ?? error.message).trim();
    problems.error('HF-CONFIG-005', Math.max(1, first?.line ?? 1), { reason });
    return null;
  }
}

interface Tag {
  readonly line: number;
  readonly attributes: Map<string, number>;
}

/**
 * Finds the lines of all start tags and attributes, in order: the library knows only the line on
 * which a tag ends. On text that is not well-formed the result does not matter, as the parser
 * refuses it; the scan only has to end. Refuses a DTD, deep nesting and too many elements before
 * the parser sees them.
 */
function scan(text: string, problems: Problems): Tag[] | null {
  const tags: Tag[] = [];
  let items = 0;
  let depth = 0;
  let line = 1;
  let newline = text.indexOf('\n');
  const lineAt = (index: number) => {
    for (; newline !== -1 && newline < index; newline = text.indexOf('\n', newline + 1)) line += 1;
    return line;
  };
  const refuse = (code: 'HF-CONFIG-006' | 'HF-CONFIG-007' | 'HF-CONFIG-008', limit: number) => {
    problems.error(code, line, { limit });
    return null;
  };
  const name = /[^\s/>]*/y;
  const attribute = /\s*([^\s=/>"'<]+)\s*=\s*("[^"]*"|'[^']*')/y;
  const closed = /\s*\//y;
  for (let at = text.indexOf('<'); at !== -1; at = text.indexOf('<', at)) {
    const skip = skipTo(text, at);
    if (skip !== null) {
      at = skip;
      continue;
    }
    const tagLine = lineAt(at);
    if (text.startsWith('<!', at)) return refuse('HF-CONFIG-006', 0);
    if (text.startsWith('</', at)) {
      depth -= 1;
      at += 2;
      continue;
    }
    const lines = new Map<string, number>();
    name.lastIndex = at + 1;
    name.exec(text);
    let end = name.lastIndex;
    attribute.lastIndex = end;
    for (let m = attribute.exec(text); m !== null; m = attribute.exec(text)) {
      lines.set(m[1] ?? '', lineAt(m.index + m[0].search(/\S/)));
      end = attribute.lastIndex;
      if ((items += 1) > itemsMax) return refuse('HF-CONFIG-008', itemsMax);
    }
    tags.push({ line: tagLine, attributes: lines });
    if ((items += 1) > itemsMax) return refuse('HF-CONFIG-008', itemsMax);
    closed.lastIndex = end;
    if (!closed.test(text) && (depth += 1) > depthMax) return refuse('HF-CONFIG-007', depthMax);
    at = end;
  }
  return tags;
}

/** The end of a comment, CDATA section or processing instruction that begins at `at`; null: it is none. */
function skipTo(text: string, at: number): number | null {
  for (const [open, close] of [
    ['<!--', '-->'],
    ['<![CDATA[', ']]>'],
    ['<?', '?>'],
  ] as const) {
    if (!text.startsWith(open, at)) continue;
    const end = text.indexOf(close, at + open.length);
    return end === -1 ? text.length : end + close.length;
  }
  return null;
}

function toTree(
  node: XmlElement,
  parent: Element | null,
  tags: Iterator<Tag>,
  pairs: Map<Element, XmlElement>,
): Element {
  const tag = tags.next().value as Tag | undefined;
  const line = tag?.line ?? node.line;
  const attributes = new Map<string, Attribute>();
  for (const attribute of node.attrs) {
    const name = attribute.prefix === '' ? attribute.name : `${attribute.prefix}:${attribute.name}`;
    attributes.set(name, {
      value: attribute.value,
      line: tag?.attributes.get(name) ?? line,
      given: true,
    });
  }
  const children: Element[] = [];
  let text = '';
  const name = node.namespaceUri === '' ? node.name : `${node.prefix}:${node.name}`;
  const element: Element = { name, line, attributes, children, parent, text: '' };
  for (let child = node.firstChild; child !== null; child = child.next) {
    if (child instanceof XmlElement) children.push(toTree(child, element, tags, pairs));
    else if (child instanceof XmlText || child instanceof XmlCData) text += child.content;
  }
  const complete = Object.assign(element, { text });
  pairs.set(complete, node);
  return complete;
}
