import { HoldfastError } from '../errors.ts';
import { joinName, lansOf, markOf, portName } from './plan.ts';
import type { EndState, LabState } from './state.ts';
import { inNet, type ProcessId } from './tool.ts';

/** Which frames of a host a fault meets: those it sends, those it should get, or both. */
export type Direction = 'out' | 'in' | 'both';

/** A fault in force. Every fault has an id by which it can be healed alone. */
export type Fault = { readonly id: number } & FaultKind;

export type FaultKind =
  /** Frames of `from` do not reach `to`. */
  | { readonly kind: 'cut'; readonly from: string; readonly to: string; readonly lan: number }
  | {
      readonly kind: 'loss';
      readonly host: string;
      readonly lan: number;
      readonly direction: Direction;
      readonly percent: number;
    }
  /** A relay sits in the cable: it delays and duplicates. */
  | {
      readonly kind: 'relay';
      readonly host: string;
      readonly lan: number;
      readonly direction: Direction;
      readonly delayMs: number;
      readonly jitterMs: number;
      readonly duplicatePercent: number;
    }
  /** The cable is pulled. */
  | { readonly kind: 'unplug'; readonly host: string; readonly lan: number }
  | { readonly kind: 'pause'; readonly host: string; readonly processes: readonly ProcessId[] }
  /** Processes that burn CPU time on the host. */
  | { readonly kind: 'slow'; readonly host: string; readonly processes: readonly ProcessId[] };

type RelayFault = Fault & { readonly kind: 'relay' };

export function isRelay(fault: Fault): fault is RelayFault {
  return fault.kind === 'relay';
}

export const meets = (fault: { readonly direction: Direction }, direction: 'out' | 'in') =>
  fault.direction === 'both' || fault.direction === direction;

/** The switch's device through which an end's frames pass: its port, or the relay's inner end. */
function deviceOf(state: LabState, end: EndState, lan: number): string {
  const relayed = state.faults.some(
    (fault) => isRelay(fault) && fault.host === end.name && fault.lan === lan,
  );
  return relayed ? joinName(end, lan) : portName(end, lan);
}

/** nft counts in whole numbers: losses are held to a hundredth of a percent. */
const parts = 10_000;

function dropPart(percent: number): string {
  const drop = Math.round((percent * parts) / 100);
  if (drop >= parts) return 'drop';
  return `numgen random mod ${parts} < ${drop} drop`;
}

/**
 * The rules of all cuts and losses. Frames get the mark of the end that they came from when they
 * enter the switch; it stays with them (and with each copy of a flooded one) until they leave.
 */
export function rulesOf(state: LabState): string {
  const byName = new Map(state.ends.map((end) => [end.name, end]));
  const chains: string[] = [];
  for (const end of state.ends) {
    if (end.process === null) continue;
    for (const lan of lansOf(end, state.lans)) {
      const enter = [`meta mark set ${markOf(end)}`];
      const leave: string[] = [];
      for (const fault of state.faults) {
        if (fault.kind === 'cut' && fault.to === end.name && fault.lan === lan) {
          const from = byName.get(fault.from);
          if (from !== undefined) leave.push(`meta mark ${markOf(from)} drop`);
        } else if (fault.kind === 'loss' && fault.host === end.name && fault.lan === lan) {
          if (meets(fault, 'out')) enter.push(dropPart(fault.percent));
          if (meets(fault, 'in')) leave.push(dropPart(fault.percent));
        }
      }
      const device = deviceOf(state, end, lan);
      chains.push(chain(device, 'ingress', enter), chain(device, 'egress', leave));
    }
  }
  // Added before it is deleted, so that the deletion never fails; the whole file is one transaction.
  return `table netdev hf\ndelete table netdev hf\ntable netdev hf {\n${chains.join('')}}\n`;
}

function chain(device: string, hook: 'ingress' | 'egress', rules: readonly string[]): string {
  if (rules.length === 0) return '';
  const body = rules.map((rule) => `    ${rule}\n`).join('');
  const head = `type filter hook ${hook} device ${device} priority 0; policy accept;`;
  return `  chain ${hook}_${device} {\n    ${head}\n${body}  }\n`;
}

/** Puts the rules in force by one transaction. */
export async function applyRules(state: LabState): Promise<void> {
  if (state.switchProcess === null) throw new HoldfastError('HF-LAB-004', { name: state.name });
  const cutting = state.faults.some((fault) => fault.kind === 'cut' || fault.kind === 'loss');
  const rules = cutting ? rulesOf(state) : 'table netdev hf\ndelete table netdev hf\n';
  await inNet('rules', state.switchProcess, ['nft', '-f', '-'], rules);
}
