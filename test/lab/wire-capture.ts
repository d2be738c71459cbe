/**
 * Runs inside a lab namespace: captures with libpcap and prints one JSON line per frame: Ethernet
 * addresses, type, and for ARP what it says. Arguments: device, pcap filter.
 */
import { createRequire } from 'node:module';

interface Capture {
  open(device: string, filter: string, bufferBytes: number, buffer: Buffer): string;
  setMinBytes?(bytes: number): void;
  on(event: 'packet', listener: (bytes: number, isCut: boolean) => void): void;
}

/** One captured frame; the ARP fields are empty for other frames. */
export interface Frame {
  readonly source: string;
  readonly destination: string;
  readonly type: number;
  readonly operation: number;
  readonly senderMac: string;
  readonly senderAddr: string;
}

const [device = 'eth0', filter = 'arp'] = process.argv.slice(2);
const { Cap } = createRequire(import.meta.url)('cap') as { Cap: new () => Capture };
const buffer = Buffer.alloc(65_535);
const capture = new Cap();
const mac = (at: number): string => buffer.toString('hex', at, at + 6).replace(/..(?=.)/g, '$&:');
capture.on('packet', () => {
  const type = buffer.readUInt16BE(12);
  const isArp = type === 0x0806;
  const frame: Frame = {
    source: mac(6),
    destination: mac(0),
    type,
    operation: isArp ? buffer.readUInt16BE(20) : 0,
    senderMac: isArp ? mac(22) : '',
    senderAddr: isArp ? [...buffer.subarray(28, 32)].join('.') : '',
  };
  process.stdout.write(`${JSON.stringify(frame)}\n`);
});
capture.open(device, filter, 1024 * 1024, buffer);
// Frames one by one, not when the kernel's buffer is full.
capture.setMinBytes?.(0);
process.stdout.write('{"ready":true}\n');
