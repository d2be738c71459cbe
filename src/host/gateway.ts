/** The gateways of a network device, as the kernel's tables show them. */
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';

const flagGateway = 0x2;

/** The gateway of the default route through a device, for addresses of that family; null: none. */
export function gatewayOf(device: string, addr: string): string | null {
  return isIPv4(addr)
    ? gateway4(readFileSync('/proc/net/route', 'utf8'), device)
    : gateway6(readFileSync('/proc/net/ipv6_route', 'utf8'), device);
}

/** /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask ...; words of the host's byte order. */
export function gateway4(table: string, device: string): string | null {
  const rows = table.split('\n').map((line) => line.split('\t'));
  const routes = rows.flatMap(([iface, destination, gateway = '', flags = '', , , metric, mask]) =>
    iface === device &&
    destination === '00000000' &&
    mask === '00000000' &&
    (Number.parseInt(flags, 16) & flagGateway) !== 0
      ? [{ gateway, metric: Number(metric) }]
      : [],
  );
  const word = bestOf(routes);
  // Little endian: x86-64 and arm64, which this software runs on.
  return word === null ? null : [...Buffer.from(word, 'hex')].toReversed().join('.');
}

/** /proc/net/ipv6_route: destination length source length next_hop metric refs use flags device; hex. */
export function gateway6(table: string, device: string): string | null {
  const rows = table.split('\n').map((line) => line.trim().split(/\s+/));
  const routes = rows.flatMap(([, length, , , gateway = '', metric = '', , , flags = '', iface]) =>
    iface === device && length === '00' && (Number.parseInt(flags, 16) & flagGateway) !== 0
      ? [{ gateway, metric: Number.parseInt(metric, 16) }]
      : [],
  );
  return bestOf(routes)?.match(/.{4}/g)?.join(':') ?? null;
}

function bestOf(routes: readonly { gateway: string; metric: number }[]): string | null {
  return [...routes].sort((a, b) => a.metric - b.metric)[0]?.gateway ?? null;
}
