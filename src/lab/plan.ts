/** Names and addresses of the lab. Every lab has its own network namespaces, so all use the same plan. */

export type Family = 4 | 6;

/** Hosts and client namespaces are both ends of a cable to the switch. */
export type EndKind = 'host' | 'clients';

/** The identity of one end: what its names and addresses are made of. */
export interface End {
  readonly kind: EndKind;
  readonly name: string;
  /** Hosts from 1, client namespaces from 0. */
  readonly index: number;
}

/** Limits of the address plan; more hosts than a cluster can have, more clients than one kernel serves. */
export const hostsMax = 64;
export const clientSpacesMax = 9;
/** Addresses of one client namespace (a /22). */
export const clientsPerSpaceMax = 1000;

const wide = (lan: number) => 50 + lan;

/** Address of a host or of a client namespace's own interface. */
export function address(end: End, lan: number, family: Family): string {
  const last = end.kind === 'host' ? end.index : 200 + end.index;
  if (family === 4) return `10.${wide(lan)}.0.${last}`;
  return end.kind === 'host'
    ? `fd00:${wide(lan)}::${end.index.toString(16)}`
    : `fd00:${wide(lan)}::c${end.index}`;
}

export const prefixLength = { 4: 16, 6: 64 } as const;

/** A free address of network 0 for a virtual IP, n from 1 to 250. */
export function vipAddress(n: number, family: Family): string {
  return family === 4 ? `10.${wide(0)}.1.${n}` : `fd00:${wide(0)}::1:${n.toString(16)}`;
}

/** The range of client addresses behind a client namespace, routed through it. */
export function clientRange(index: number, family: Family): string {
  return family === 4
    ? `10.${wide(0)}.${100 + 4 * index}.0/22`
    : `fd00:${wide(0)}::1:${index}:0:0/96`;
}

/** Address of client n (from 0) of a client namespace. */
export function clientAddress(index: number, n: number, family: Family): string {
  const at = n + 1;
  return family === 4
    ? `10.${wide(0)}.${100 + 4 * index + (at >> 8)}.${at & 255}`
    : `fd00:${wide(0)}::1:${index}:0:${at.toString(16)}`;
}

const hex = (value: number) => value.toString(16).padStart(2, '0');

/** The MAC stays the same through a power cycle, as that of a real card does. */
export function macAddress(end: End, lan: number): string {
  return `02:68:66:${hex(lan)}:${end.kind === 'host' ? '00' : 'c0'}:${hex(end.index)}`;
}

/** Device inside the host. */
export const deviceName = (lan: number) => `eth${lan}`;

/** The host's port on the switch, and the two further devices while a relay sits in its cable. */
export function portName(end: End, lan: number): string {
  return `${end.kind === 'host' ? 'h' : 'c'}${end.index}l${lan}`;
}
export const relayName = (end: End, lan: number) => `r${portName(end, lan)}`;
export const joinName = (end: End, lan: number) => `j${portName(end, lan)}`;

/** Packet mark of frames that came from this end. */
export const markOf = (end: End) => (end.kind === 'host' ? end.index : 1000 + end.index);

/** Networks an end is on: clients reach the servers on network 0 only. */
export function lansOf(end: End, lans: number): readonly number[] {
  return end.kind === 'host' ? Array.from({ length: lans }, (_, lan) => lan) : [0];
}
