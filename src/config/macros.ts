import type { Problems } from './problems.ts';
import { suggestion } from './suggest.ts';
import type { Attribute, Element, XmlFile } from './xml.ts';

/** Macros in macros; more is a mistake. */
const depthMax = 16;
const valueMax = 4096;

interface Macro {
  readonly value: string;
  readonly line: number;
}

/**
 * Replaces %NAME% in all attributes of the file by the macro of that name, else by the environment
 * variable; %% is one %. Returns the attributes that could not be expanded.
 */
export function expandMacros(
  file: XmlFile,
  env: Readonly<Record<string, string | undefined>>,
  problems: Problems,
): Set<object> {
  const macros = collect(file.root, problems);
  const failed = new Set<object>();
  const known = new Map<string, string>();
  const visit = (element: Element) => {
    for (const [name, attribute] of element.attributes) {
      if (element.name === 'macro' || !attribute.value.includes('%')) continue;
      const value = new Expansion(macros, known, env, problems, attribute).run();
      if (value === null) failed.add(attribute);
      else file.set(element, name, value);
    }
    for (const child of element.children) visit(child);
  };
  visit(file.root);
  return failed;
}

function collect(root: Element, problems: Problems): Map<string, Macro> {
  const macros = new Map<string, Macro>();
  for (const element of root.children) {
    const name = element.attributes.get('name')?.value;
    const value = element.attributes.get('value');
    if (element.name !== 'macro' || name === undefined || value === undefined) continue;
    const first = macros.get(name);
    if (first !== undefined) {
      problems.error('HF-CONFIG-022', element.line, { name, first: first.line });
    } else if (/[\r\n]/.test(value.value)) {
      problems.error('HF-CONFIG-025', value.line, { name });
      macros.set(name, { value: '', line: element.line });
    } else if (value.value.length > valueMax) {
      problems.error('HF-CONFIG-024', value.line, { limit: valueMax });
      macros.set(name, { value: '', line: element.line });
    } else macros.set(name, { value: value.value, line: element.line });
  }
  return macros;
}

/** Expansion of one attribute: errors are said once, at its line. */
class Expansion {
  readonly #macros: ReadonlyMap<string, Macro>;
  /** Macros expanded before: without it, macros full of macros would take exponential time. */
  readonly #known: Map<string, string>;
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #problems: Problems;
  readonly #attribute: Attribute;
  #failed = false;

  constructor(
    macros: ReadonlyMap<string, Macro>,
    known: Map<string, string>,
    env: Readonly<Record<string, string | undefined>>,
    problems: Problems,
    attribute: Attribute,
  ) {
    this.#macros = macros;
    this.#known = known;
    this.#env = env;
    this.#problems = problems;
    this.#attribute = attribute;
  }

  run(): string | null {
    const value = this.#expand(this.#attribute.value, []);
    return this.#failed ? null : value;
  }

  #fail(code: Parameters<Problems['error']>[0], values: Record<string, string | number>): string {
    if (!this.#failed) this.#problems.error(code, this.#attribute.line, values);
    this.#failed = true;
    return '';
  }

  #expand(text: string, within: readonly string[]): string {
    const result = text.replace(/%(?:%|([A-Za-z_][A-Za-z0-9_]*)%)/g, (_, name?: string) => {
      if (name === undefined) return '%';
      return this.#failed ? '' : this.#lookUp(name, within);
    });
    return result.length <= valueMax ? result : this.#fail('HF-CONFIG-024', { limit: valueMax });
  }

  #lookUp(name: string, within: readonly string[]): string {
    const macro = this.#macros.get(name);
    if (macro === undefined) {
      // Values of the environment are taken as they are: only the file's author writes macros.
      const value = Object.hasOwn(this.#env, name) ? this.#env[name] : undefined;
      if (value === undefined) {
        const near = suggestion(name, this.#macros.keys());
        return this.#fail('HF-CONFIG-021', { name, suggestion: near });
      }
      return /[\r\n]/.test(value) ? this.#fail('HF-CONFIG-025', { name }) : value;
    }
    if (within.includes(name) || within.length >= depthMax) {
      return this.#fail('HF-CONFIG-023', { name, limit: depthMax });
    }
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const value = this.#expand(macro.value, [...within, name]);
    if (!this.#failed) this.#known.set(name, value);
    return value;
  }
}
