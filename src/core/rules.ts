/**
 * The rules of `<failover>`, as SafeKit writes them: `label: if (expression) then action();`. Pure: read
 * once, then looked at with the state of the resources.
 *
 *   expression  resource == state | resource != state | ! e | e && e | e || e | ( e )
 *   resource    [local.][0/ or 1/]class.id; id * = every one of the class, ? = any of it
 *   state       init | up | down | unknown
 *   action      stop | stopstart | wait | restart | swap
 */

export type ResourceState = 'init' | 'up' | 'down' | 'unknown';
export const ruleActions = ['stop', 'stopstart', 'wait', 'restart', 'swap'] as const;
export type RuleAction = (typeof ruleActions)[number];

export type Expression =
  | { readonly is: 'state'; readonly resource: string; readonly state: ResourceState }
  | { readonly is: 'not'; readonly of: Expression }
  | { readonly is: 'and' | 'or'; readonly of: readonly Expression[] };

export interface Rule {
  readonly label: string;
  readonly when: Expression;
  readonly action: RuleAction;
}

/** What is wrong, and on which line of the text, from 1. */
export interface RuleFault {
  readonly line: number;
  readonly reason: string;
}

/** More than anybody writes by hand. */
const rulesMax = 256;
/** Brackets and negations within one another. */
const depthMax = 32;
const states: readonly string[] = ['init', 'up', 'down', 'unknown'];
/** Comments, blanks, then one token each; a resource is one token. */
const tokens =
  /(?:\s|#[^\n]*|\/\*[\s\S]*?\*\/|\/\/[^\n]*)*(==|!=|&&|\|\||[!():;]|[\w.*?/-]+|$|[\s\S])/y;

/** The rules of a text in their order, or the first thing that is wrong with it. */
export function readRules(text: string): readonly Rule[] | RuleFault {
  const reader = new Reader(text);
  try {
    return reader.rules();
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return { line: reader.line, reason: error.message };
  }
}

/** Is it so, with the resources as they are? A resource that nobody knows is `unknown`. */
export function holds(when: Expression, resources: ReadonlyMap<string, ResourceState>): boolean {
  switch (when.is) {
    case 'not':
      return !holds(when.of, resources);
    case 'and':
      return when.of.every((part) => holds(part, resources));
    case 'or':
      return when.of.some((part) => holds(part, resources));
    case 'state':
      return isInState(when.resource, when.state, resources);
  }
}

/** The resources of a table that an expression looks at. */
export function resourcesOf(when: Expression, known: Iterable<string>): readonly string[] {
  if (when.is === 'not') return resourcesOf(when.of, known);
  const all = [...known];
  if (when.is !== 'state') return when.of.flatMap((part) => resourcesOf(part, all));
  return all.filter((name) => matches(when.resource, name));
}

function isInState(
  resource: string,
  state: ResourceState,
  resources: ReadonlyMap<string, ResourceState>,
): boolean {
  if (!/\.[*?]$/.test(resource)) return (resources.get(resource) ?? 'unknown') === state;
  const found = [...resources].filter(([name]) => matches(resource, name));
  // Of a class without resources nothing is said.
  if (found.length === 0) return false;
  const isSo = ([, now]: readonly [string, ResourceState]): boolean => now === state;
  return resource.endsWith('*') ? found.every(isSo) : found.some(isSo);
}

function matches(pattern: string, name: string): boolean {
  return /\.[*?]$/.test(pattern) ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

class Unreadable extends Error {}

class Reader {
  readonly #text: string;
  #at = 0;
  #token = '';
  #begin = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
    this.#next();
  }

  /** Of the token that is read now. */
  get line(): number {
    return this.#text.slice(0, this.#begin).split('\n').length;
  }

  rules(): readonly Rule[] {
    const rules: Rule[] = [];
    while (this.#token !== '') {
      if (rules.length >= rulesMax) throw new Unreadable(`there are more than ${rulesMax} rules`);
      const label = this.#word('a label');
      if (rules.some((rule) => rule.label === label)) {
        throw new Unreadable(`the label "${label}" is there twice`);
      }
      this.#take(':');
      this.#take('if');
      this.#take('(');
      const when = this.#either();
      this.#take(')');
      this.#take('then');
      rules.push({ label, when, action: this.#action() });
    }
    return rules;
  }

  #action(): RuleAction {
    const word = this.#token;
    const action = ruleActions.find((known) => known === word);
    if (action === undefined) this.#expected(`an action (${ruleActions.join(', ')})`);
    this.#next();
    if (this.#token === '(') {
      this.#next();
      this.#take(')');
    }
    this.#take(';');
    return action;
  }

  #either(): Expression {
    const of = [this.#both()];
    while (this.#token === '||') {
      this.#next();
      of.push(this.#both());
    }
    return of.length === 1 && of[0] !== undefined ? of[0] : { is: 'or', of };
  }

  #both(): Expression {
    const of = [this.#one()];
    while (this.#token === '&&') {
      this.#next();
      of.push(this.#one());
    }
    return of.length === 1 && of[0] !== undefined ? of[0] : { is: 'and', of };
  }

  #one(): Expression {
    this.#depth += 1;
    if (this.#depth > depthMax) throw new Unreadable('it is nested too deeply');
    try {
      if (this.#token === '!') {
        this.#next();
        return { is: 'not', of: this.#one() };
      }
      if (this.#token !== '(') return this.#comparison();
      this.#next();
      const inner = this.#either();
      this.#take(')');
      return inner;
    } finally {
      this.#depth -= 1;
    }
  }

  #comparison(): Expression {
    const resource = this.#resource();
    const sign = this.#token;
    if (sign !== '==' && sign !== '!=') this.#expected('"==" or "!="');
    this.#next();
    const state = this.#token;
    if (!states.includes(state)) this.#expected(`a state (${states.join(', ')})`);
    this.#next();
    const is: Expression = { is: 'state', resource, state: state as ResourceState };
    return sign === '==' ? is : { is: 'not', of: is };
  }

  #resource(): string {
    const word = this.#word('a resource');
    if (/^(remote\.|1\/)/.test(word)) {
      throw new Unreadable(
        `"${word}" is a resource of the other server: rules see those of their own`,
      );
    }
    const name = word.replace(/^(local\.)?(0\/)?/, '');
    if (/^[\w-]+\.([\w./-]+|\*|\?)$/.test(name)) return name;
    throw new Unreadable(`"${word}" is no resource: write class.name, such as tcp.web`);
  }

  #word(what: string): string {
    const word = this.#token;
    if (!/^[\w.*?/-]+$/.test(word)) this.#expected(what);
    this.#next();
    return word;
  }

  #take(wanted: string): void {
    if (this.#token !== wanted) this.#expected(`"${wanted}"`);
    this.#next();
  }

  #expected(what: string): never {
    const found = this.#token === '' ? 'the end' : `"${this.#token}"`;
    throw new Unreadable(`expected ${what}, found ${found}`);
  }

  #next(): void {
    tokens.lastIndex = this.#at;
    const found = tokens.exec(this.#text);
    this.#token = found?.[1] ?? '';
    this.#at = tokens.lastIndex;
    this.#begin = this.#at - this.#token.length;
  }
}
