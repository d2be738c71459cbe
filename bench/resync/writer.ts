/**
 * What the resync bench runs on a host; one JSON object on stdin says what, one on stdout what came
 * of it. All times are of the calls alone.
 *
 * fill: makes a tree of files. change: writes chosen blocks, again and again until `atLeast` bytes
 * are written. touch: one 4 KiB write in each file, as often as said, synced each or not.
 * application: overwrites 4 KiB here and there in one file, fdatasync after each, until a file named
 * `stop` is there.
 */
import { randomFillSync } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs';
import { blockBytes, chosenBlocks, type Operation, randomOf, runsOf } from './figures.ts';
import { nowMs } from './script.ts';

export interface Tree {
  readonly dir: string;
  readonly files: number;
  readonly fileBytes: number;
}

export type Task =
  | (Tree & { readonly task: 'fill' })
  | (Tree & {
      readonly task: 'change';
      readonly part: number;
      readonly seed: number;
      readonly atLeast: number;
    })
  | (Tree & { readonly task: 'touch'; readonly passes: number; readonly sync: boolean })
  | {
      readonly task: 'application';
      readonly file: string;
      readonly bytes: number;
      readonly stop: string;
    };

export interface Changed {
  /** Each block once. */
  readonly changedBytes: number;
  readonly writtenBytes: number;
}

/** Waits of each pass, us. */
export type Touched = readonly (readonly number[])[];

const filesPerFolder = 64;

const folderOf = (tree: Tree, file: number) =>
  `${tree.dir}/${String(Math.floor(file / filesPerFolder)).padStart(4, '0')}`;
const pathOf = (tree: Tree, file: number) =>
  `${folderOf(tree, file)}/${String(file).padStart(6, '0')}`;

function writeAll(fd: number, data: Uint8Array, offset: number): void {
  let done = 0;
  while (done < data.length) done += writeSync(fd, data, done, data.length - done, offset + done);
}

function fill(tree: Tree): void {
  const data = randomFillSync(Buffer.alloc(tree.fileBytes));
  for (let file = 0; file < tree.files; file++) {
    mkdirSync(folderOf(tree, file), { recursive: true });
    data.writeUInt32LE(file);
    const fd = openSync(pathOf(tree, file), 'w');
    writeAll(fd, data, 0);
    fsyncSync(fd);
    closeSync(fd);
  }
}

function change(tree: Tree, part: number, seed: number, atLeast: number): Changed {
  const blocks = (tree.files * tree.fileBytes) / blockBytes;
  const runs = runsOf(chosenBlocks(blocks, part, seed), tree.fileBytes);
  const changedBytes = runs.reduce((sum, { bytes }) => sum + bytes, 0);
  const data = Buffer.alloc(tree.fileBytes);
  let writtenBytes = 0;
  do {
    randomFillSync(data);
    let at = -1;
    let fd = -1;
    const close = () => {
      if (fd < 0) return;
      fdatasyncSync(fd);
      closeSync(fd);
    };
    for (const { file, offset, bytes } of runs) {
      if (file !== at) {
        close();
        fd = openSync(pathOf(tree, file), 'r+');
        at = file;
      }
      writeAll(fd, data.subarray(offset, offset + bytes), offset);
      writtenBytes += bytes;
    }
    close();
  } while (writtenBytes < atLeast);
  return { changedBytes, writtenBytes };
}

function touch(tree: Tree, passes: number, sync: boolean): Touched {
  const files = Array.from({ length: tree.files }, (_, file) => openSync(pathOf(tree, file), 'r+'));
  const data = randomFillSync(Buffer.alloc(blockBytes));
  return Array.from({ length: passes }, (_, pass) =>
    files.map((fd) => {
      data.writeUInt32LE(pass);
      const before = nowMs();
      writeSync(fd, data, 0, blockBytes, pass * blockBytes);
      if (sync) fdatasyncSync(fd);
      return (nowMs() - before) * 1000;
    }),
  );
}

function application(file: string, bytes: number, stop: string): readonly Operation[] {
  const random = randomOf(1);
  const data = randomFillSync(Buffer.alloc(blockBytes));
  const fd = openSync(file, existsSync(file) ? 'r+' : 'w+');
  for (let at = 0; at < bytes; at += blockBytes) writeAll(fd, data, at);
  fsyncSync(fd);
  const operations: Operation[] = [];
  while (operations.length % 16 !== 0 || !existsSync(stop)) {
    data.writeUInt32LE(operations.length);
    const at = Math.floor((random() * bytes) / blockBytes) * blockBytes;
    const atMs = nowMs();
    writeSync(fd, data, 0, blockBytes, at);
    fdatasyncSync(fd);
    operations.push({ atMs, us: (nowMs() - atMs) * 1000 });
  }
  return operations;
}

function carryOut(task: Task): unknown {
  switch (task.task) {
    case 'fill':
      fill(task);
      return {};
    case 'change':
      return change(task, task.part, task.seed, task.atLeast);
    case 'touch':
      return touch(task, task.passes, task.sync);
    case 'application':
      return application(task.file, task.bytes, task.stop);
  }
}

if (process.argv[1]?.endsWith('resync/writer.js') === true) {
  const said = JSON.stringify(carryOut(JSON.parse(readFileSync(0, 'utf8')) as Task));
  for (let at = 0; at < said.length; at += 65536) writeSync(1, said.slice(at, at + 65536));
}
