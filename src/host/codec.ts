/**
 * JSON with the two values that JSON lacks: bigint as {"$n": "123"} and bytes as {"$b": "base64"}.
 * Used for the messages between agents and for what the agent keeps across its own death.
 */
import { z } from 'zod';
import { bitmapBytes, bucketCount, groupCountMax, nodeCountMax } from '../core/farm-types.ts';
import type { Message } from '../core/farm-types.ts';

/** Text of a value made of plain data, bigint and Uint8Array. */
export function encodeJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => {
    if (typeof item === 'bigint') return { $n: item.toString() };
    if (item instanceof Uint8Array) return { $b: Buffer.from(item).toString('base64') };
    // Buffer has its own toJSON, which runs before this function sees the value.
    if (isBufferJson(item)) return { $b: Buffer.from(item.data).toString('base64') };
    return item;
  });
}

/** Value of such a text. @throws SyntaxError on text that is not JSON or has a damaged bigint. */
export function decodeJson(text: string): unknown {
  return JSON.parse(text, (_key, item: unknown) => {
    if (item === null || typeof item !== 'object') return item;
    const keys = Object.keys(item);
    if (keys.length !== 1) return item;
    const { $n, $b } = item as { $n?: unknown; $b?: unknown };
    if (typeof $n === 'string') return BigInt($n);
    if (typeof $b === 'string') return new Uint8Array(Buffer.from($b, 'base64'));
    return item;
  });
}

function isBufferJson(item: unknown): item is { data: number[] } {
  return (
    item !== null &&
    typeof item === 'object' &&
    (item as { type?: unknown }).type === 'Buffer' &&
    Array.isArray((item as { data?: unknown }).data)
  );
}

const node = z
  .int()
  .min(0)
  .max(nodeCountMax - 1);
const nodeOrNobody = z.int().min(0).max(255);
const counter = z.int().min(0);
const mask = z
  .bigint()
  .min(0n)
  .max((1n << BigInt(nodeCountMax)) - 1n);
const bytes = (length: number) =>
  z.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length === length);
const bitmaps = z.array(bytes(bitmapBytes)).max(groupCountMax);
const byNode = <T extends z.ZodType>(value: T) =>
  z.record(z.string().regex(/^\d{1,2}$/), value) as unknown as z.ZodType<
    Readonly<Record<number, z.infer<T>>>
  >;
const viewName = z.object({ epoch: counter, leader: node });

export const viewSchema = z.object({
  epoch: counter,
  leader: node,
  members: mask,
  owners: z.array(bytes(bucketCount)).max(groupCountMax),
  holders: byNode(bitmaps),
  marks: byNode(z.number()),
  powers: z.array(byNode(counter)).max(groupCountMax),
});

const statusSchema = z.object({
  kind: z.literal('status'),
  startedMs: z.number(),
  seq: counter,
  running: z.boolean(),
  electable: z.boolean(),
  ready: z.boolean(),
  draining: z.boolean(),
  powers: z.array(z.number().nullable()).max(groupCountMax),
  follows: nodeOrNobody,
  followers: byNode(z.number()),
  heard: mask,
  both: mask,
  open: mask,
  excludedBy: viewName.nullable(),
  epochMax: counter,
  installed: viewName.nullable(),
  followMark: z.number(),
  closeMark: z.number(),
});

const messageSchema = z.union([
  statusSchema,
  z.object({
    kind: z.literal('follow'),
    status: statusSchema,
    owned: bitmaps,
    sockets: bitmaps,
    view: viewSchema.nullable(),
  }),
  z.object({ kind: z.literal('view'), view: viewSchema }),
  z.object({ kind: z.literal('sockets'), epoch: counter, sockets: bitmaps }),
]);

export const snapshotSchema = z.object({
  view: viewSchema.nullable(),
  epochMax: counter,
  mark: z.number(),
  closeMark: z.number(),
  owned: bitmaps,
  powers: z.array(z.number().nullable()).max(groupCountMax),
  draining: z.boolean(),
});

/** A farm message from a peer, or null when it is not one (another version, a damaged frame). */
export function parseFarmMessage(value: unknown): Message | null {
  const parsed = messageSchema.safeParse(value);
  return parsed.success ? (parsed.data as Message) : null;
}
