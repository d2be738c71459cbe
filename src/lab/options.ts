/** What a lab can be built of, and the checks of it. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { HoldfastError } from '../errors.ts';
import { clientSpacesMax, clientsPerSpaceMax, hostsMax } from './plan.ts';
import { type EndState, labsFolder, type LabState } from './state.ts';
import { processId } from './tool.ts';

export interface LabOptions {
  /** Name for `holdfast lab …`; a random one where absent. */
  readonly name?: string;
  /** Number of servers (named s1, s2, …) or their names. Default 3. */
  readonly hosts?: number | readonly string[];
  /** Networks between the servers, 1 or 2; clients are on the first. Default 1. */
  readonly lans?: number;
  /** Client namespaces (named clients, clients2, …). Default 1. */
  readonly clients?: number;
  /** Source addresses per client namespace, IPv4 and IPv6 each. Default 1000. */
  readonly clientAddresses?: number;
  /** True: the lab stays when this process ends, until `down`. Default false. */
  readonly persist?: boolean;
  /** True: leave checksum and segmentation offloads on. Default false. */
  readonly offloads?: boolean;
  /** Put an XDP_PASS program on the switch's ports, without which XDP_TX on a host's veth goes nowhere. Default true. */
  readonly xdpPass?: boolean;
}

/** Name of the lab that `holdfast lab up` builds when it is given none. */
export const defaultName = 'lab';

/** Throws HF-LAB-009. */
export function checkPercent(percent: number): void {
  if (percent >= 0 && percent <= 100) return;
  throw new HoldfastError('HF-LAB-009', { reason: `${percent} is not a percentage` });
}

/** The state of a lab that is to be built. Throws HF-LAB-009. */
export function newState(options: LabOptions): LabState {
  const id = randomBytes(3).toString('hex');
  const hosts = options.hosts ?? 3;
  const names =
    typeof hosts === 'number' ? Array.from({ length: hosts }, (_, i) => `s${i + 1}`) : hosts;
  const spaces = options.clients ?? 1;
  const clientAddresses = options.clientAddresses ?? clientsPerSpaceMax;
  const lans = options.lans ?? 1;
  const reason =
    names.length < 1 || names.length > hostsMax
      ? `a lab has 1 to ${hostsMax} hosts`
      : lans !== 1 && lans !== 2
        ? 'a lab has 1 or 2 networks'
        : spaces < 0 || spaces > clientSpacesMax
          ? `a lab has up to ${clientSpacesMax} client namespaces`
          : clientAddresses < 1 || clientAddresses > clientsPerSpaceMax
            ? `a client namespace has 1 to ${clientsPerSpaceMax} addresses`
            : null;
  if (reason !== null) throw new HoldfastError('HF-LAB-009', { reason });
  const name = options.name ?? `hf${id}`;
  const end = (kind: EndState['kind'], endName: string, index: number): EndState => ({
    kind,
    name: endName,
    index,
    process: null,
  });
  const clientName = (i: number) => (i === 0 ? 'clients' : `clients${i + 1}`);
  return {
    id,
    name,
    dir: join(labsFolder(), id),
    persist: options.persist ?? false,
    owner: processId(process.pid) ?? '',
    lans,
    offloads: options.offloads ?? false,
    xdpPass: options.xdpPass ?? true,
    clientAddresses,
    switchProcess: null,
    ends: [
      ...names.map((host, i) => end('host', host, i + 1)),
      ...Array.from({ length: spaces }, (_, i) => end('clients', clientName(i), i)),
    ],
    faults: [],
    relays: {},
  };
}
