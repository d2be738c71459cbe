/** The devices and addresses of this server, for the checkers of all modules. */
import type { LinkView } from '../checkers/address.ts';
import type { Link, LinkEvent } from '../native/link.ts';

/** One view for all: the kernel's news go to whoever asked for them; watched once somebody has. */
export class Links implements LinkView {
  readonly #link: Link;
  readonly #listeners = new Set<(event: LinkEvent) => void>();
  #watched = false;

  constructor(link: Link) {
    this.#link = link;
  }

  devices(): ReturnType<LinkView['devices']> {
    return this.#link.devices();
  }

  addresses(): ReturnType<LinkView['addresses']> {
    return this.#link.addresses();
  }

  subscribe(listener: (event: LinkEvent) => void): () => void {
    this.#listeners.add(listener);
    if (!this.#watched) {
      this.#watched = true;
      this.#link.onEvents((event) => {
        for (const one of [...this.#listeners]) one(event);
      });
    }
    return () => this.#listeners.delete(listener);
  }
}
