/** POSIX extended regular expressions, run by JavaScript's machine. */

/** Characters of POSIX's classes, as JavaScript writes them between brackets. */
const classes: Readonly<Record<string, string>> = {
  alnum: 'A-Za-z0-9',
  alpha: 'A-Za-z',
  blank: ' \\t',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '!-~',
  lower: 'a-z',
  print: ' -~',
  punct: '!-\\/:-@\\[-`{-~',
  space: '\\s',
  upper: 'A-Z',
  xdigit: '0-9A-Fa-f',
};

/**
 * A POSIX extended regular expression as one of JavaScript. Between brackets POSIX has classes and
 * no escapes, and a "]" that comes first is itself. @throws SyntaxError
 */
export function posixRegex(text: string): RegExp {
  const brackets = /\\.|\[(\^?)(\]?(?:\[:\w+:\]|[^\]])*)\]/gs;
  const source = text.replace(brackets, (all: string, not: string, set: string | undefined) => {
    if (set === undefined) return all;
    const inner = set
      .split(/(\[:\w+:\])/)
      .map((part) => {
        const name = /^\[:(\w+):\]$/.exec(part)?.[1];
        return name === undefined ? part.replace(/[\\\][]/g, '\\$&') : (classes[name] ?? '');
      })
      .join('');
    return `[${not}${inner}]`;
  });
  return new RegExp(source);
}
