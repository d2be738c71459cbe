/**
 * A file system in memory for the temporary files of tests. They write and sync gigabytes; on a slow
 * disk, or one that others use, they would wait for that, some for minutes.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { inForeground, say } from './step.mjs';

const shm = '/dev/shm';
const imageGiB = 8;
/** Beside the image's 8 GiB, most of which are never used, what the tests themselves take. */
const neededKiB = 12 << 20;
const tmpfsMagic = 0x01021994;

// ext4, as mirrors have it, on a loop device. The mount is of this command alone, and ends with it.
const script = `
image=$1/image
mkdir "$1/t" && truncate -s ${imageGiB}G "$image" &&
  mkfs.ext4 -q "$image" && mount -o loop,discard "$image" "$1/t" &&
  chmod 1777 "$1/t" && export TMPDIR="$1/t" ||
  echo 'holdfast: no file system in memory, the tests write to the disk'
rm -f "$image"
shift
exec "$@"`;

function hasRoom() {
  try {
    const { type, bavail, bsize } = statfsSync(shm);
    const free = /^MemAvailable: +(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
    const isWide = bavail * bsize >= imageGiB * 2 ** 30;
    return type === tmpfsMagic && isWide && Number(free) >= neededKiB;
  } catch {
    return false;
  }
}

/** Runs a command whose TMPDIR is in memory, where root may, and there is room; its exit code. */
export async function inMemory(command, args) {
  if (process.getuid() !== 0 || process.env['TMPDIR'] !== undefined || !hasRoom()) {
    say('the tests write to the disk: not root, TMPDIR is set, or too little memory');
    return inForeground(command, args);
  }
  const folder = mkdtempSync(`${shm}/hf-`);
  // Databases work there as users of their own.
  chmodSync(folder, 0o711);
  try {
    const words = ['-m', '--propagation', 'private', 'sh', '-c', script, 'sh', folder];
    return await inForeground('unshare', [...words, command, ...args]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
