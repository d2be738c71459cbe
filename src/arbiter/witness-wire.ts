/**
 * Questions to the witness and its answers, as native/witness/protocol.h lays them out: one size each,
 * little endian.
 */
import type { ArbiterAnswer, ArbiterRecord } from '../core/mirror-types.ts';
import type { RegisterQuestion } from './record.ts';
import { parseAnswer } from './record.ts';

const questionMagic = 0x31574648;
const answerMagic = 0x31614648;
export const questionSize = 112;
export const answerSize = 160;
const moduleSize = 32;

/** Offsets in Question. */
const at = { id: 4, ask: 8, hasFrom: 9, moduleSize: 10, module: 16, from: 48, to: 80 } as const;
/** Offsets in Answer. */
const of = { id: 4, outcome: 8, hasRecord: 9, textSize: 10, record: 16, text: 48 } as const;

const asks = { read: 1, swap: 2 } as const;
const outcomes = [null, 'record', 'won', 'lost', 'unknown', 'unreachable'] as const;

/** A valid question (whyNotAsked) as bytes. */
export function encodeQuestion(id: number, question: RegisterQuestion): Buffer {
  const bytes = Buffer.alloc(questionSize);
  bytes.writeUInt32LE(questionMagic, 0);
  bytes.writeUInt32LE(id, at.id);
  bytes.writeUInt8(asks[question.kind], at.ask);
  bytes.writeUInt8(bytes.write(question.module, at.module, moduleSize, 'latin1'), at.moduleSize);
  if (question.kind === 'read') return bytes;
  if (question.from !== null) {
    bytes.writeUInt8(1, at.hasFrom);
    writeRecord(bytes, at.from, question.from);
  }
  writeRecord(bytes, at.to, question.to);
  return bytes;
}

/** Throws for what is no answer. */
export function decodeAnswer(bytes: Buffer): {
  readonly id: number;
  readonly answer: ArbiterAnswer;
} {
  if (bytes.readUInt32LE(0) !== answerMagic) throw new Error('this is no answer of a witness');
  const id = bytes.readUInt32LE(of.id);
  const outcome = outcomes[bytes.readUInt8(of.outcome)] ?? null;
  const record = bytes.readUInt8(of.hasRecord) === 1 ? readRecord(bytes, of.record) : null;
  const textSize = Math.min(bytes.readUInt8(of.textSize), answerSize - of.text);
  const why = bytes.toString('utf8', of.text, of.text + textSize);
  if (outcome === null) throw new Error('the witness answered with an unknown outcome');
  if (outcome === 'won') return { id, answer: { outcome } };
  if (outcome === 'record' || outcome === 'lost') {
    return { id, answer: parseAnswer({ outcome, record }) };
  }
  return { id, answer: { outcome, why } };
}

function writeRecord(bytes: Buffer, start: number, record: ArbiterRecord): void {
  const mask = record.inSync.reduce((sum, node) => sum | (1n << BigInt(node)), 0n);
  bytes.writeBigUInt64LE(BigInt(record.incarnation), start);
  bytes.writeBigUInt64LE(BigInt(record.epoch), start + 8);
  bytes.writeBigUInt64LE(mask, start + 16);
  bytes.writeUInt32LE(record.leaseMs, start + 24);
  bytes.writeUInt8(record.primary, start + 28);
}

/** A record as it lies at an offset; not checked. */
export function readRecord(bytes: Buffer, start: number): ArbiterRecord {
  const mask = bytes.readBigUInt64LE(start + 16);
  return {
    incarnation: Number(bytes.readBigUInt64LE(start)),
    epoch: Number(bytes.readBigUInt64LE(start + 8)),
    primary: bytes.readUInt8(start + 28),
    inSync: Array.from({ length: 64 }, (_, node) => node).filter(
      (node) => ((mask >> BigInt(node)) & 1n) === 1n,
    ),
    leaseMs: bytes.readUInt32LE(start + 24),
  };
}
