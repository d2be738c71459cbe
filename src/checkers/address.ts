import { isIPv6, SocketAddress } from 'node:net';
import type { LinkAddress, LinkDevice, LinkEvent } from '../native/link.ts';

/** What the checkers of interfaces and addresses see of the server; the agent shares one among all. */
export interface LinkView {
  devices(): readonly LinkDevice[];
  addresses(): readonly LinkAddress[];
  /** Calls back on each change; the function returned ends that. */
  subscribe(listener: (event: LinkEvent) => void): () => void;
}

/** Null when a device with link carries the address, else why not. */
export function whyNoInterface(links: LinkView, localAddr: string): string | null {
  const device = carrier(links, localAddr);
  if (device === null) return `no interface has ${localAddr}`;
  const found = links.devices().find((one) => one.name === device);
  return found?.up === true ? null : `interface ${device} is down`;
}

/** Null when the address is on this server, else why not. */
export function whyNoAddress(links: LinkView, addr: string): string | null {
  return carrier(links, addr) === null ? `${addr} is on no interface` : null;
}

function carrier(links: LinkView, addr: string): string | null {
  const wanted = canonical(addr);
  for (const one of links.addresses()) if (canonical(one.addr) === wanted) return one.device;
  return null;
}

/** One spelling per IPv6 address. */
function canonical(addr: string): string {
  return isIPv6(addr) ? new SocketAddress({ address: addr, family: 'ipv6' }).address : addr;
}
