import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { HoldfastError } from '../errors.ts';
import {
  address,
  clientAddress,
  clientRange,
  deviceName,
  type Family,
  lansOf,
  macAddress,
  portName,
  prefixLength,
} from './plan.ts';
import type { EndState, LabState } from './state.ts';
import { inNet, type ProcessId, pidOf, runTool, toolPath } from './tool.ts';

const families: readonly Family[] = [4, 6];

/** How long a namespace may take to be set up on a busy machine. */
const holderMs = 20_000;

/**
 * Starts the process that holds one host's namespaces. Unless it persists, it ends with this
 * process: its stdin is a pipe that closes when we die, however we die.
 */
export function startHolder(name: string, disk: string, persist: boolean): Promise<ProcessId> {
  const args = ['host', `name=${name}`, `disk=${disk}`, `persist=${persist ? 1 : 0}`];
  const child = spawn(toolPath(), args, { stdio: 'pipe', detached: persist });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  return new Promise((resolve, reject) => {
    const fail = (reason: string) => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      reject(new HoldfastError('HF-LAB-006', { step: `start ${name}`, reason }));
    };
    const timer = setTimeout(() => fail('no answer in time'), holderMs);
    child.once('error', (error) => fail(error.message));
    child.once('close', () => fail(errors.trim() || 'it ended at once'));
    createInterface({ input: child.stdout }).once('line', (line) => {
      clearTimeout(timer);
      const { pid, start } = JSON.parse(line) as { pid: number; start: number };
      // Neither the holder nor its pipes keep the owner's event loop alive.
      child.unref();
      for (const stream of [child.stdin, child.stdout, child.stderr]) {
        (stream as unknown as { unref(): void }).unref();
      }
      resolve(`${pid}:${start}`);
    });
  });
}

export const bridgeName = (state: LabState, lan: number) => `hf${state.id}${lan}`;

/** Makes the switch: one bridge per network that floods unknown and multicast MACs, as a plain switch does. */
export async function buildSwitch(state: LabState, holder: ProcessId): Promise<void> {
  // The switch has no addresses and no stack of its own: it must not answer or announce anything.
  await inNet('switch', holder, ['sh', '-c', sysctls({ 'ipv6/conf/default/disable_ipv6': 1 })]);
  const lines: string[] = [];
  for (let lan = 0; lan < state.lans; lan++) {
    const bridge = bridgeName(state, lan);
    lines.push(
      `link add ${bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      `link set ${bridge} up`,
    );
  }
  await inNet('switch', holder, ['ip', '-batch', '-'], lines.join('\n'));
}

function sysctls(values: Readonly<Record<string, number | string>>): string {
  return Object.entries(values)
    .map(([name, value]) => `echo '${value}' > /proc/sys/net/${name}`)
    .join('; ');
}

/**
 * Plugs ends into the switch and configures them. The ends' holders run; any older port of theirs
 * is removed first (the kernel removes it late after a power cut).
 */
export async function plug(state: LabState, ends: readonly EndState[]): Promise<void> {
  const switchHolder = state.switchProcess;
  if (switchHolder === null) throw new HoldfastError('HF-LAB-004', { name: state.name });
  await Promise.all(ends.map(setSysctls));
  await makeCables(state, ends, switchHolder);
  await Promise.all(ends.map((end) => configureEnd(state, end)));
  const ports = ends.flatMap((end) => lansOf(end, state.lans).map((lan) => portName(end, lan)));
  if (!state.offloads) {
    await runTool('offloads', ['device', switchHolder, 'offloads-off', ...ports]);
  }
  if (state.xdpPass) await runTool('xdp pass', ['device', switchHolder, 'xdp-pass', ...ports]);
  const up = ports.map((port) => `link set ${port} up`);
  await inNet('ports up', switchHolder, ['ip', '-batch', '-'], up.join('\n'));
}

async function makeCables(
  state: LabState,
  ends: readonly EndState[],
  switchHolder: ProcessId,
): Promise<void> {
  const old: string[] = [];
  const lines: string[] = [];
  for (const end of ends) {
    for (const lan of lansOf(end, state.lans)) {
      const port = portName(end, lan);
      const far = `${deviceName(lan)} address ${macAddress(end, lan)} netns ${pidOf(holderOf(end))}`;
      old.push(`link del ${port}`);
      lines.push(
        `link add ${port} type veth peer name ${far}`,
        `link set ${port} master ${bridgeName(state, lan)}`,
      );
    }
  }
  // -force: go on over those that are not there.
  const remove = 'ip -force -batch - 2>/dev/null || true';
  await inNet('old ports', switchHolder, ['sh', '-c', remove], old.join('\n'));
  await inNet('cables', switchHolder, ['ip', '-batch', '-'], lines.join('\n'));
}

export function holderOf(end: EndState): ProcessId {
  if (end.process === null) throw new HoldfastError('HF-LAB-008', { host: end.name });
  return end.process;
}

/** Before the devices come: they take their IPv6 settings over when they appear. */
async function setSysctls(end: EndState): Promise<void> {
  const settings = {
    // A server must not use a virtual IP as the sender of its own ARP requests.
    'ipv4/conf/all/arp_announce': 2,
    'ipv4/conf/all/rp_filter': 0,
    'ipv4/conf/default/rp_filter': 0,
    'ipv6/conf/default/accept_dad': 0,
    'ipv6/conf/default/accept_ra': 0,
    'ipv6/conf/default/router_solicitations': 0,
    // Client namespaces use most of their ports: let connections in TIME_WAIT not use them up.
    'ipv4/ip_local_port_range': '1024 65535',
  };
  await inNet('sysctl', holderOf(end), ['sh', '-c', sysctls(settings)]);
}

async function configureEnd(state: LabState, end: EndState): Promise<void> {
  const holder = holderOf(end);
  const lines = end.kind === 'clients' ? clientLines(state, end) : [];
  for (const lan of lansOf(end, state.lans)) {
    const device = deviceName(lan);
    for (const family of families) {
      lines.push(
        `addr add ${address(end, lan, family)}/${prefixLength[family]} dev ${device}${nodad(family)}`,
      );
    }
    lines.push(`link set ${device} up`);
  }
  if (end.kind === 'host') lines.push(...routesToClients(state));
  await inNet(`addresses of ${end.name}`, holder, ['ip', '-batch', '-'], lines.join('\n'));
  if (!state.offloads) {
    const devices = lansOf(end, state.lans).map(deviceName);
    await runTool('offloads', ['device', holder, 'offloads-off', ...devices]);
  }
}

const nodad = (family: Family) => (family === 6 ? ' nodad' : '');

/**
 * Clients live behind their namespace as behind a router: the servers then need one neighbour
 * entry for all of them, where 1,000 would fill the neighbour table that all namespaces of one
 * kernel share (gc_thresh3, 1024 by default).
 */
function clientLines(state: LabState, end: EndState): string[] {
  const lines: string[] = [];
  for (const family of families) {
    const width = family === 4 ? 32 : 128;
    for (let n = 0; n < state.clientAddresses; n++) {
      lines.push(`addr add ${clientAddress(end.index, n, family)}/${width} dev lo${nodad(family)}`);
    }
  }
  return lines;
}

function routesToClients(state: LabState): string[] {
  return state.ends
    .filter((end) => end.kind === 'clients')
    .flatMap((end) =>
      families.map(
        (family) =>
          `route add ${clientRange(end.index, family)} via ${address(end, 0, family)} dev ${deviceName(0)}`,
      ),
    );
}
