/** Requests against their schemas, and errors in the one form that the API answers with. */
import type { z } from 'zod';
import { type ErrorRecord, HoldfastError } from '../errors.ts';

/** The value as the schema reads it. HF-API-001 with the path of what is wrong. */
export function checked<T>(schema: z.ZodType<T>, value: unknown, where: 'body' | 'query'): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = [where, ...(issue?.path ?? [])].map(String).join('.');
  const problem = issue?.message ?? 'it has the wrong form';
  throw new HoldfastError('HF-API-001', { where: path, problem });
}

/** Status and body of the answer to a failed request; `limit` is the route's limit on bodies. */
export function errorAnswer(
  cause: unknown,
  limit: number,
): { readonly status: number; readonly body: { readonly error: ErrorRecord } } {
  const error = asHoldfastError(cause, limit);
  return { status: error.http, body: { error: error.toRecord() } };
}

function asHoldfastError(cause: unknown, limit: number): HoldfastError {
  if (cause instanceof HoldfastError) return cause;
  const { statusCode, message = String(cause) } = (cause ?? {}) as {
    statusCode?: number;
    message?: string;
  };
  if (statusCode === 413) return new HoldfastError('HF-API-004', { limit }, null, cause);
  if (statusCode !== undefined && statusCode < 500) {
    return new HoldfastError('HF-API-012', { reason: message }, null, cause);
  }
  return new HoldfastError('HF-API-005', { reason: message }, null, cause);
}
