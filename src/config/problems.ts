import { type ErrorCode, HoldfastError } from '../errors.ts';

/** Errors shown of one file; more would only repeat the same mistake. */
const errorsMax = 50;

/** Collects what is wrong with one file. Nothing is thrown: all problems are shown together. */
export class Problems {
  readonly file: string;
  readonly #errors: HoldfastError[] = [];
  readonly #warnings: HoldfastError[] = [];
  #dropped = 0;

  constructor(file: string) {
    this.file = file;
  }

  get failed(): boolean {
    return this.#errors.length > 0;
  }

  error(code: ErrorCode, line: number, values: Readonly<Record<string, string | number>> = {}) {
    if (this.#errors.length >= errorsMax) this.#dropped += 1;
    else this.#errors.push(this.#make(code, line, values));
  }

  warning(code: ErrorCode, line: number, values: Readonly<Record<string, string | number>> = {}) {
    if (this.#warnings.length < errorsMax) this.#warnings.push(this.#make(code, line, values));
  }

  /** Errors by line; the last one says that there were more. */
  errors(): HoldfastError[] {
    const sorted = byLine(this.#errors);
    const last = sorted.at(-1);
    if (this.#dropped > 0 && last?.place) {
      sorted.push(this.#make('HF-CONFIG-028', last.place.line, { limit: errorsMax }));
    }
    return sorted;
  }

  warnings(): HoldfastError[] {
    return byLine(this.#warnings);
  }

  #make(code: ErrorCode, line: number, values: Readonly<Record<string, string | number>>) {
    const short = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, shown(v)]));
    return new HoldfastError(code, short, { file: this.file, line });
  }
}

function byLine(errors: readonly HoldfastError[]): HoldfastError[] {
  return errors.toSorted((a, b) => (a.place?.line ?? 0) - (b.place?.line ?? 0));
}

/** Values come from the file: keep them on one line and short, and keep control codes off a terminal. */
function shown(value: string | number): string | number {
  if (typeof value === 'number') return value;
  // oxlint-disable-next-line no-control-regex -- removing them is the point
  const plain = value.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ');
  return plain.length <= 400 ? plain : `${plain.slice(0, 399)}…`;
}
