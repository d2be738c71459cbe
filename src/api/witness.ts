/** A witness and the clusters that it serves: `holdfast witness join`, run on the witness's machine. */
import { join } from 'node:path';
import { z } from 'zod';
import { witnessSubject } from '../arbiter/witness.ts';
import { HoldfastError } from '../errors.ts';
import { exchange } from './client.ts';
import { hostPort } from './dial.ts';
import { makePrivateFolder, writeDurable } from './files.ts';
import { fetchCa, open, ownAddresses, splitAddr } from './join.ts';
import { checkNodeName, checkPair, makeRequest } from './pki.ts';
import { parseToken } from './token.ts';

/** What a machine sends that is to be a witness. */
export const WitnessRequest = z.strictObject({
  token: z.string().max(200),
  name: z.string().max(80),
  /** Certificate request, PEM. */
  request: z.string().max(4096),
  addrs: z.array(z.string().min(1).max(255)).max(64),
});
export type WitnessRequest = z.infer<typeof WitnessRequest>;

/** What it gets. It never learns the secret that the nodes share. */
export const WitnessAnswer = z.object({
  cert: z.string().max(8192),
  clusterId: z.string().regex(/^[0-9a-f]{16}$/),
});
export type WitnessAnswer = z.infer<typeof WitnessAnswer>;

export interface WitnessJoinOptions {
  /** `ADDR`, `ADDR:PORT` or `[ADDR]:PORT` of a server of the cluster. */
  readonly addr: string;
  readonly token: string;
  readonly name: string;
  /** Folder of the witness. */
  readonly state: string;
}

const timeoutMs = 60_000;

/**
 * Makes this machine a witness of the cluster that issued the token, and returns the cluster's id. The
 * private key is made here and stays here; a running witness serves the cluster from then on.
 * HF-CLUSTER-003, -006, -008, -015, -016, -017, or what the other says.
 */
export async function witnessJoin(options: WitnessJoinOptions): Promise<string> {
  const { name, token, state } = options;
  checkNodeName(name);
  const { caFingerprint } = parseToken(token);
  const { host, port } = splitAddr(options.addr);
  const where = hostPort(host, port);
  const caCert = await fetchCa(host, port, caFingerprint);
  const { key, request } = await makeRequest(name, 'witness');
  const addrs = ownAddresses().map(({ addr }) => addr);
  const body: WitnessRequest = { token, name, request, addrs };
  const bytes = await exchange(
    { dial: () => open(host, port, caCert), where },
    { method: 'POST', path: '/api/v1/cluster/witness', json: body, timeoutMs },
  );
  let answer: WitnessAnswer;
  try {
    answer = WitnessAnswer.parse(JSON.parse(bytes.toString('utf8')));
    const subject = checkPair({ cert: answer.cert, key }, caCert);
    if (subject !== witnessSubject(name)) throw new Error('the certificate is of another');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('HF-CLUSTER-017', { addr: where, reason }, null, cause);
  }
  const folder = join(state, answer.clusterId);
  makePrivateFolder(folder);
  writeDurable(join(folder, 'ca.crt'), caCert);
  writeDurable(join(folder, 'witness.key'), key);
  // Last: the witness looks for it.
  writeDurable(join(folder, 'witness.crt'), answer.cert);
  return answer.clusterId;
}
