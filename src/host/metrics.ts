/** Prometheus text exposition, format 0.0.4: enough of it for gauges and counters read at scrape time. */

export type Labels = Readonly<Record<string, string>>;

/** Collects samples of one scrape; every family names its type and help once. */
export class MetricsPage {
  readonly #families = new Map<string, { type: string; help: string; lines: string[] }>();

  counter(name: string, help: string, value: number, labels: Labels = {}): void {
    this.#add('counter', name, help, value, labels);
  }

  gauge(name: string, help: string, value: number, labels: Labels = {}): void {
    this.#add('gauge', name, help, value, labels);
  }

  text(): string {
    const out: string[] = [];
    for (const [name, family] of this.#families) {
      out.push(`# HELP ${name} ${family.help}`, `# TYPE ${name} ${family.type}`, ...family.lines);
    }
    return `${out.join('\n')}\n`;
  }

  #add(type: string, name: string, help: string, value: number, labels: Labels): void {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = { type, help, lines: [] };
      this.#families.set(name, family);
    }
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
    family.lines.push(`${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${value}`);
  }
}

function escapeLabel(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/"/g, '\\"');
}
