import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../errors.ts';
import type { Fault } from './faults.ts';
import type { End } from './plan.ts';
import { isAlive, type ProcessId, signal, until } from './tool.ts';

/** One end of the lab with the process that holds its namespaces; null: powered off. */
export interface EndState extends End {
  process: ProcessId | null;
}

/** What another process needs to use or remove this lab. Kept in DIR/state.json. */
export interface LabState {
  readonly id: string;
  readonly name: string;
  readonly dir: string;
  /** True: the lab outlives the process that made it (`holdfast lab up`). */
  readonly persist: boolean;
  readonly owner: ProcessId;
  readonly lans: number;
  readonly offloads: boolean;
  readonly xdpPass: boolean;
  readonly clientAddresses: number;
  switchProcess: ProcessId | null;
  ends: EndState[];
  faults: Fault[];
  /** Relays that run, by the port whose cable they sit in. */
  relays: Record<string, ProcessId>;
}

/** All labs of this machine live below this folder, one folder each. */
export function labsFolder(): string {
  return join(tmpdir(), 'holdfast-lab');
}

const stateFile = (dir: string) => join(dir, 'state.json');

export function saveState(state: LabState): void {
  mkdirSync(state.dir, { recursive: true, mode: 0o700 });
  const next = `${stateFile(state.dir)}.${process.pid}`;
  writeFileSync(next, JSON.stringify(state));
  renameSync(next, stateFile(state.dir));
}

export function loadState(dir: string): LabState | null {
  try {
    return JSON.parse(readFileSync(stateFile(dir), 'utf8')) as LabState;
  } catch {
    return null;
  }
}

/**
 * Makes the folder, or finds out that it is not ours: whoever could write there could make root
 * signal any process. Throws HF-LAB-014.
 */
export function ensureLabsFolder(): void {
  const folder = labsFolder();
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  if (!isOurs(folder)) throw new HoldfastError('HF-LAB-014', { folder });
}

function isOurs(folder: string): boolean {
  const found = lstatSync(folder, { throwIfNoEntry: false });
  return (
    found !== undefined && found.isDirectory() && found.uid === 0 && (found.mode & 0o022) === 0
  );
}

/** Every lab that has a folder here, alive or left over. */
export function allStates(): readonly LabState[] {
  const folder = labsFolder();
  if (!isOurs(folder)) return [];
  return readdirSync(folder).flatMap((name) => loadState(join(folder, name)) ?? []);
}

/** Folders of this process's own labs: they go with it, as their namespaces do. */
const ownFolders = new Set<string>();
let isHooked = false;

export function removeAtExit(dir: string): void {
  if (!isHooked) {
    isHooked = true;
    process.once('exit', () => {
      for (const own of ownFolders) rmSync(own, { recursive: true, force: true });
    });
  }
  ownFolders.add(dir);
}

/** A lab is up while its switch is, and, unless it is persistent, while its owner is. */
export function isUp(state: LabState): boolean {
  const switchUp = state.switchProcess !== null && isAlive(state.switchProcess);
  return switchUp && (state.persist || isAlive(state.owner));
}

/** True while the lab is being built by a living process. */
function isStarting(state: LabState): boolean {
  return state.switchProcess === null && isAlive(state.owner);
}

/** How long the kernel may take to end all processes of a lab. */
const endMs = 10_000;

/**
 * Ends every process of a lab and removes its folder. Namespaces, devices and mounts go with the
 * processes that hold them. Idempotent; only processes with the recorded start time are touched.
 */
export async function removeLab(state: LabState): Promise<void> {
  const holders = [...state.ends.map((end) => end.process), state.switchProcess];
  const living = holders.filter((holder) => holder !== null).filter(isAlive);
  for (const holder of living) signal(holder, 'SIGKILL');
  await until(() => !living.some(isAlive), endMs);
  rmSync(state.dir, { recursive: true, force: true, maxRetries: 3 });
  ownFolders.delete(state.dir);
}

/** Removes what labs of dead owners left behind; returns their names. */
export async function sweep(): Promise<readonly string[]> {
  const stale = allStates().filter((state) => !isUp(state) && !isStarting(state));
  for (const state of stale) await removeLab(state);
  return stale.map((state) => state.name);
}
