/**
 * Whether a text is a POSIX extended regular expression (POSIX.1-2017, 9.4), by the rules that
 * regcomp(3) of the C library refuses by. JavaScript's own expressions are another language.
 */

/** RE_DUP_MAX: no interval counts further. */
const repeatMax = 255;

const classes = new Set([
  'alnum',
  'alpha',
  'blank',
  'cntrl',
  'digit',
  'graph',
  'lower',
  'print',
  'punct',
  'space',
  'upper',
  'xdigit',
]);

/** Why it is none, a sentence part; null: it is one. */
export function whyNotEre(text: string): string | null {
  if (text === '') return 'it is empty';
  return new EreReader(text).read();
}

class EreReader {
  readonly #text: string;
  #at = 0;
  #open = 0;
  /** Something stands before that a repetition can repeat. */
  #repeatable = false;

  constructor(text: string) {
    this.#text = text;
  }

  read(): string | null {
    while (this.#at < this.#text.length) {
      const why = this.#next();
      if (why !== null) return why;
    }
    return this.#open > 0 ? 'a "(" is not closed' : null;
  }

  #next(): string | null {
    const sign = this.#text[this.#at] ?? '';
    this.#at += 1;
    switch (sign) {
      case '(':
        this.#open += 1;
        this.#repeatable = false;
        return this.#text[this.#at] === ')' ? '"()" is empty' : null;
      case ')':
        if (this.#open === 0) return 'a ")" without "("';
        this.#open -= 1;
        this.#repeatable = true;
        return null;
      case '|':
        this.#repeatable = false;
        return null;
      case '*':
      case '+':
      case '?':
        return this.#repeatable ? null : `nothing before "${sign}" to repeat`;
      case '{':
        return this.#repeatable ? this.#interval() : 'nothing before "{" to repeat';
      case '[':
        this.#repeatable = true;
        return this.#bracket();
      case '\\':
        this.#repeatable = true;
        this.#at += 1;
        return this.#at > this.#text.length ? 'it ends with "\\"' : null;
      case '^':
        this.#repeatable = false;
        return null;
      default:
        this.#repeatable = true;
        return null;
    }
  }

  /** After "{": a number, or two of which the second is not less, and "}". */
  #interval(): string | null {
    const match = /^(\d{1,5})(,(\d{0,5}))?\}/.exec(this.#text.slice(this.#at));
    if (match === null) return 'after "{" follows no count and "}"';
    this.#at += match[0].length;
    const low = Number(match[1]);
    const high = match[3] === undefined || match[3] === '' ? low : Number(match[3]);
    if (low > repeatMax || high > repeatMax) return `it repeats more than ${repeatMax} times`;
    return high < low ? `"{${low},${high}}" ends before it begins` : null;
  }

  /** After "[": up to the closing bracket, which counts as a sign of the set when it is the first. */
  #bracket(): string | null {
    if (this.#text[this.#at] === '^') this.#at += 1;
    if (this.#text[this.#at] === ']') this.#at += 1;
    for (;;) {
      const sign = this.#text[this.#at];
      if (sign === undefined) return 'a "[" is not closed';
      this.#at += 1;
      if (sign === ']') return null;
      if (sign !== '[') {
        const high = this.#rangeEnd();
        if (high !== null && high < sign) return `the range "${sign}-${high}" is backwards`;
        continue;
      }
      const why = this.#named();
      if (why !== null) return why;
    }
  }

  /** The upper end where a range "a-z" goes on here; taken. */
  #rangeEnd(): string | null {
    const end = this.#text[this.#at + 1];
    if (this.#text[this.#at] !== '-' || end === undefined || end === ']' || end === '[')
      return null;
    this.#at += 2;
    return end;
  }

  /** After "[" within a set: "[:class:]", or a collating element, or just a bracket. */
  #named(): string | null {
    const kind = this.#text[this.#at];
    if (kind !== ':' && kind !== '.' && kind !== '=') return null;
    const end = this.#text.indexOf(`${kind}]`, this.#at + 1);
    if (end < 0) return `a "[${kind}" is not closed`;
    const name = this.#text.slice(this.#at + 1, end);
    this.#at = end + 2;
    if (kind === ':') return classes.has(name) ? null : `there is no class "[:${name}:]"`;
    return /^.$/u.test(name) ? null : `"[${kind}${name}${kind}]" is not one character`;
  }
}
