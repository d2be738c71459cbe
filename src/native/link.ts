/** The typed face of native/link: addresses, neighbours and announcements by rtnetlink and raw frames. */

export interface LinkDevice {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  readonly up: boolean;
  readonly mtu: number;
}

export interface LinkAddress {
  readonly device: string;
  readonly addr: string;
  readonly prefix: number;
}

export type LinkEvent =
  | { readonly kind: 'link'; readonly device: string; readonly up: boolean }
  | { readonly kind: 'addr'; readonly device: string; readonly addr: string; readonly added: boolean };

export interface Link {
  devices(): readonly LinkDevice[];
  addresses(): readonly LinkAddress[];
  /** Adds an address (IPv6 without duplicate address detection); no error when it is there. */
  addAddress(device: string, addr: string, prefix: number): void;
  /** Removes an address; no error when it is not there. */
  removeAddress(device: string, addr: string, prefix: number): void;
  /** Lets frames for a further MAC through the NIC's filter (fdb self entry, else promiscuous mode). */
  allowMac(device: string, mac: string): 'fdb' | 'promiscuous';
  disallowMac(device: string, mac: string): void;
  /** Gratuitous ARP request + reply, or unsolicited NA with Override, once. */
  announce(device: string, addr: string, mac: string): void;
  /** Asks by ARP or NS who has the address; resolves to the MAC that answers, or null after timeoutMs. */
  probe(device: string, addr: string, timeoutMs: number): Promise<string | null>;
  /** Ends local TCP connections that use this address (SOCK_DESTROY); returns how many. */
  resetConnections(addr: string): Promise<number>;
  onEvents(listener: (event: LinkEvent) => void): void;
  /** Sends a state line to the service manager ($NOTIFY_SOCKET); false when there is none. */
  notify(state: string): boolean;
  close(): void;
}
