/**
 * A file system of a server's own, on an image behind a loop device, mounted in the server's
 * namespace alone: it can be full, and it can lose its power (`replica_tool pull`).
 */
import { mkdir, open } from 'node:fs/promises';
import { type Namespace, run, tool } from './pair.ts';
import { setTimeout as delay } from 'node:timers/promises';

/** Runs a program in the namespace; what it says. Rejects when it fails. */
export async function runIn(
  space: Namespace,
  file: string,
  args: readonly string[],
): Promise<string> {
  const [enter = '', ...before] = space.enter;
  const { code, out } = await run(enter, [...before, file, ...args]);
  if (code !== 0) throw new Error(`${file} ${args.join(' ')}: ${out}`);
  return out;
}

export class Disk {
  /** Where it is mounted. */
  readonly path: string;
  readonly #space: Namespace;
  readonly #image: string;

  private constructor(path: string, space: Namespace) {
    this.path = path;
    this.#space = space;
    this.#image = `${path}.image`;
  }

  /** A new one of `mib` MiB, mounted at `path`, which is made. */
  static async make(path: string, space: Namespace, mib: number): Promise<Disk> {
    const disk = new Disk(path, space);
    await mkdir(path);
    const image = await open(disk.#image, 'w');
    await image.truncate(mib * 1024 * 1024);
    await image.close();
    const options = [
      '-q',
      '-b',
      '4096',
      '-m',
      '0',
      '-I',
      '256',
      '-E',
      'lazy_itable_init=0,lazy_journal_init=0',
    ];
    const made = await run('mkfs.ext4', [...options, disk.#image]);
    if (made.code !== 0) throw new Error(made.out);
    await disk.mount();
    return disk;
  }

  async mount(): Promise<void> {
    await runIn(this.#space, 'mount', ['-o', 'loop', this.#image, this.path]);
  }

  /** All that was written gets to the disk. */
  async sync(): Promise<void> {
    await runIn(this.#space, 'sync', ['-f', this.path]);
  }

  /** What is not on the disk now never gets there; until `again` it answers with errors. */
  async pull(): Promise<void> {
    await runIn(this.#space, tool, ['pull', this.path]);
  }

  /** Unmounts it, which waits until nobody uses it, and mounts it as it is on the disk. */
  async again(): Promise<void> {
    await this.unmount();
    await this.mount();
  }

  async unmount(): Promise<void> {
    const end = performance.now() + 10_000;
    for (;;) {
      const refused = await runIn(this.#space, 'umount', [this.path]).then(() => null, String);
      if (refused === null) return;
      if (performance.now() > end) throw new Error(refused);
      await delay(20);
    }
  }
}
