import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HoldfastError } from '../errors.ts';
import { bridgeName } from './build.ts';
import { isRelay, meets } from './faults.ts';
import { joinName, portName, relayName } from './plan.ts';
import type { EndState, LabState } from './state.ts';
import {
  firstLine,
  inNet,
  isAlive,
  type ProcessId,
  processId,
  runTool,
  signal,
  spawnIn,
  textOf,
  toolPath,
  until,
} from './tool.ts';

const relayFile = (state: LabState, end: EndState, lan: number) =>
  join(state.dir, `relay-${portName(end, lan)}`);

/** One line per direction for the relay: frames from the host, then frames to the host. */
function settings(state: LabState, end: EndState, lan: number): string | null {
  const faults = state.faults
    .filter(isRelay)
    .filter((fault) => fault.host === end.name && fault.lan === lan);
  if (faults.length === 0) return null;
  const line = (direction: 'out' | 'in') => {
    const mine = faults.filter((fault) => meets(fault, direction));
    const sum = (pick: (fault: (typeof mine)[number]) => number) =>
      mine.reduce((total, fault) => total + pick(fault), 0);
    const delayUs = Math.round(sum((fault) => fault.delayMs) * 1000);
    const jitterUs = Math.round(sum((fault) => fault.jitterMs) * 1000);
    const duplicatePpm = Math.round(sum((fault) => fault.duplicatePercent) * 10_000);
    return `${delayUs} ${jitterUs} ${duplicatePpm}\n`;
  };
  return line('out') + line('in');
}

/**
 * Puts a relay into a cable, changes it, or takes it out, as the faults say:
 * host == port  ~relay~  r-port == j-port in the bridge.
 */
export async function applyRelay(state: LabState, end: EndState, lan: number): Promise<void> {
  const port = portName(end, lan);
  const wanted = settings(state, end, lan);
  const running = state.relays[port];
  if (wanted === null || end.process === null) {
    if (running !== undefined) await remove(state, end, lan, running);
    delete state.relays[port];
    return;
  }
  writeFileSync(relayFile(state, end, lan), wanted);
  if (running !== undefined && signal(running, 'SIGHUP')) return;
  state.relays[port] = await insert(state, end, lan);
}

function holder(state: LabState): ProcessId {
  if (state.switchProcess === null) throw new HoldfastError('HF-LAB-004', { name: state.name });
  return state.switchProcess;
}

async function insert(state: LabState, end: EndState, lan: number): Promise<ProcessId> {
  const [port, outer, inner] = [portName(end, lan), relayName(end, lan), joinName(end, lan)];
  const lines = [
    `link add ${outer} type veth peer name ${inner}`,
    `link set ${port} nomaster`,
    `link set ${inner} master ${bridgeName(state, lan)}`,
    `link set ${outer} up`,
    `link set ${inner} up`,
  ];
  await inNet('relay', holder(state), ['ip', '-batch', '-'], lines.join('\n'));
  await runTool('offloads', ['device', holder(state), 'offloads-off', outer, inner]);
  return startRelay(state, relayFile(state, end, lan), port, outer);
}

/** Runs in the switch's namespaces, so that it ends with the lab whoever started it. */
async function startRelay(
  state: LabState,
  file: string,
  port: string,
  outer: string,
): Promise<ProcessId> {
  const argv = [toolPath(), 'relay', file, port, outer];
  const { child, pid } = spawnIn(holder(state), argv, { detach: true, stdio: 'pipe' });
  const errors = textOf(child.stderr);
  const ready = await firstLine(child.stdout);
  const process = processId(await pid);
  child.stdout?.destroy();
  child.stderr?.destroy();
  if (ready !== 'ready' || process === null) {
    throw new HoldfastError('HF-LAB-006', {
      step: 'relay',
      reason: errors() || 'it ended at once',
    });
  }
  return process;
}

async function remove(
  state: LabState,
  end: EndState,
  lan: number,
  running: ProcessId,
): Promise<void> {
  signal(running, 'SIGKILL');
  await until(() => !isAlive(running), 5000);
  const lines = [`link del ${relayName(end, lan)}`];
  if (end.process !== null) {
    lines.push(`link set ${portName(end, lan)} master ${bridgeName(state, lan)}`);
  }
  await inNet('relay', holder(state), ['ip', '-batch', '-'], lines.join('\n'));
}
