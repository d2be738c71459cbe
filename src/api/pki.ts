/**
 * Keys of a cluster. One CA (EC P-256) is made by `cluster init`; each node has one certificate of
 * it that serves as server and as client certificate. The node's name is the common name of the
 * subject; addresses are in the alternative names for tools that look there, we never do.
 *
 * Certificates have no end: what admits a node is its mention in cluster.xml, checked at each
 * connection, and a wrong clock on a server must never cut it off (RFC 5280 4.1.2.5 gives
 * 99991231235959Z this meaning).
 */
import {
  createHash,
  createPrivateKey,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
  webcrypto,
  X509Certificate,
} from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import type { Pkcs10CertificateRequest } from '@peculiar/x509';
import { witnessSubject } from '../arbiter/witness.ts';
import { HoldfastError } from '../errors.ts';
import type { Paths } from '../paths.ts';
import { makePrivateFolder, writeDurable } from './files.ts';

/** A certificate and its private key, both PEM. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** What a node needs to speak with the others. */
export interface NodeKeys extends KeyPair {
  readonly node: string;
  /** Certificate of the cluster CA, PEM. */
  readonly caCert: string;
  /** 32 random bytes shared by all nodes; never used as they are, see clusterKeys. */
  readonly secret: Uint8Array;
}

/** What is derived from the cluster secret; equal on all nodes for the cluster's whole life. */
export interface ClusterKeys {
  /** HMAC-SHA256 key of the heartbeats, 32 bytes. */
  readonly beatKey: Uint8Array;
  /** SipHash key of the buckets, 16 bytes. */
  readonly sipKey: Uint8Array;
  /** 8 bytes, hex: what heartbeats name the cluster by. */
  readonly clusterId: string;
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const notBefore = new Date('1970-01-01T00:00:00Z');
const notAfter = new Date('9999-12-31T23:59:59Z');
/** A request of ours has about 500 bytes. */
const maxRequestBytes = 4096;
const nodeName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** Refuses what cannot be a node name. HF-CLUSTER-008. */
export function checkNodeName(name: string): void {
  if (!nodeName.test(name)) throw new HoldfastError('HF-CLUSTER-008', { name: name.slice(0, 80) });
}

/** The X.509 library costs 180 ms to load and only init and join need it. */
async function loadX509() {
  await import('reflect-metadata');
  return await import('@peculiar/x509');
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key);
  return pem('PRIVATE KEY', Buffer.from(der));
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/** A certificate as PEM. */
export function pemOfCertificate(der: Buffer): string {
  return pem('CERTIFICATE', der);
}

/** Makes a new cluster CA. */
export async function makeCa(cluster: string): Promise<KeyPair> {
  const x509 = await loadX509();
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: [{ CN: [`Holdfast cluster ${cluster}`] }],
    keys,
    notBefore,
    notAfter,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: `${cert.toString('pem')}\n`, key: await exportKey(keys.privateKey) };
}

/** What a certificate is for. That of a witness opens no door of a node, and the reverse. */
export type Role = 'node' | 'witness';

const subjectOf = (name: string, role: Role): string =>
  role === 'node' ? name : witnessSubject(name);

/** Makes a private key, and the request that asks the CA for its certificate. */
export async function makeRequest(
  node: string,
  role: Role = 'node',
): Promise<{ key: string; request: string }> {
  checkNodeName(node);
  const x509 = await loadX509();
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [subjectOf(node, role)] }],
    keys,
    signingAlgorithm: algorithm,
  });
  return { key: await exportKey(keys.privateKey), request: `${request.toString('pem')}\n` };
}

/**
 * Checks a request: size, form, EC P-256, signed with its own key, exactly the name `node`.
 * Nothing but the public key is taken over from it. HF-CLUSTER-007, -008.
 */
export async function checkRequest(
  request: string,
  node: string,
  role: Role = 'node',
): Promise<Pkcs10CertificateRequest> {
  checkNodeName(node);
  const refuse = (reason: string, cause?: unknown): HoldfastError =>
    new HoldfastError('HF-CLUSTER-007', { reason }, null, cause);
  if (request.length > maxRequestBytes) throw refuse(`it exceeds ${maxRequestBytes} bytes`);
  const x509 = await loadX509();
  let parsed: Pkcs10CertificateRequest;
  let isSigned: boolean;
  try {
    parsed = new x509.Pkcs10CertificateRequest(request);
    isSigned = await parsed.verify();
  } catch (cause) {
    throw refuse('it cannot be read', cause);
  }
  const { name, namedCurve } = parsed.publicKey.algorithm as { name: string; namedCurve?: string };
  if (name !== 'ECDSA' && name !== 'ECDH') throw refuse(`its key is ${name}, not EC P-256`);
  if (namedCurve !== 'P-256') throw refuse(`its key is on ${namedCurve}, not on P-256`);
  if (!isSigned) throw refuse('its signature is wrong');
  const names = parsed.subjectName.getField('CN');
  if (names.length !== 1 || names[0] !== subjectOf(node, role)) {
    throw refuse(`its name is not that of the ${role}`);
  }
  return parsed;
}

/** Makes a certificate from its request; `addrs` are addresses or host names. */
export async function signRequest(
  ca: KeyPair,
  request: string,
  node: string,
  addrs: readonly string[],
  role: Role = 'node',
): Promise<string> {
  const checked = await checkRequest(request, node, role);
  const x509 = await loadX509();
  const caCert = new x509.X509Certificate(ca.cert);
  const signingKey = await webcrypto.subtle.importKey(
    'pkcs8',
    createPrivateKey(ca.key).export({ type: 'pkcs8', format: 'der' }),
    algorithm,
    false,
    ['sign'],
  );
  const cert = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    issuer: caCert.subjectName,
    subject: [{ CN: [subjectOf(node, role)] }],
    publicKey: checked.publicKey,
    signingKey,
    signingAlgorithm: algorithm,
    notBefore,
    notAfter,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension([
        { type: 'dns', value: node },
        { type: 'url', value: `holdfast:${role}:${node}` },
        ...addrs.map((addr) =>
          isIP(addr) === 0
            ? ({ type: 'dns', value: addr } as const)
            : ({ type: 'ip', value: addr } as const),
        ),
      ]),
      await x509.SubjectKeyIdentifierExtension.create(checked.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(caCert),
    ],
  });
  return `${cert.toString('pem')}\n`;
}

/** A random positive serial number of 127 bits, hex. */
function serial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}

/** SHA-256 over the DER of a certificate: what a join token carries of the CA. */
export function fingerprint(cert: string | Uint8Array): Buffer {
  const der = typeof cert === 'string' ? new X509Certificate(cert).raw : cert;
  return createHash('sha256').update(der).digest();
}

/** Derives the keys of the engines from the cluster secret (HKDF-SHA256, one label each). */
export function clusterKeys(secret: Uint8Array): ClusterKeys {
  const derive = (label: string, length: number): Buffer =>
    Buffer.from(hkdfSync('sha256', secret, '', `holdfast v1 ${label}`, length));
  return {
    beatKey: derive('heartbeat hmac', 32),
    sipKey: derive('bucket siphash', 16),
    clusterId: derive('cluster id', 8).toString('hex'),
  };
}

/** Where the keys are. The CA's private key is only on nodes that may admit servers. */
export function keyFiles(paths: Paths) {
  return {
    caCert: join(paths.pki, 'ca.crt'),
    caKey: join(paths.pki, 'ca.key'),
    cert: join(paths.pki, 'node.crt'),
    key: join(paths.pki, 'node.key'),
    secret: join(paths.pki, 'cluster.secret'),
    tokens: join(paths.pki, 'tokens'),
  };
}

/** Writes a node's keys durably; the CA's key only where given. */
export function writeKeys(paths: Paths, keys: NodeKeys, caKey: string | null): void {
  const files = keyFiles(paths);
  makePrivateFolder(paths.pki);
  writeDurable(files.caCert, keys.caCert);
  writeDurable(files.key, keys.key);
  writeDurable(files.cert, keys.cert);
  writeDurable(files.secret, `${Buffer.from(keys.secret).toString('hex')}\n`);
  if (caKey !== null) writeDurable(files.caKey, caKey);
}

function readPrivate(file: string): string {
  try {
    const { mode } = statSync(file);
    if ((mode & 0o077) !== 0) {
      throw new Error(`others may read it (mode ${(mode & 0o777).toString(8)})`);
    }
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new HoldfastError('HF-CLUSTER-014', { file, reason }, null, cause);
  }
}

/** Reads this node's keys and checks that they belong together. HF-CLUSTER-014. */
export function loadKeys(paths: Paths): NodeKeys {
  const files = keyFiles(paths);
  const [caCert, cert, key] = [
    readPrivate(files.caCert),
    readPrivate(files.cert),
    readPrivate(files.key),
  ];
  const secret = Buffer.from(readPrivate(files.secret).trim(), 'hex');
  const bad = (file: string, reason: string, cause?: unknown): HoldfastError =>
    new HoldfastError('HF-CLUSTER-014', { file, reason }, null, cause);
  if (secret.length !== 32) throw bad(files.secret, 'it does not hold 32 bytes');
  let node: string | null;
  try {
    node = checkPair({ cert, key }, caCert);
  } catch (cause) {
    throw bad(files.cert, cause instanceof Error ? cause.message : String(cause), cause);
  }
  return { node, caCert, cert, key, secret };
}

/** The node name of a certificate, after a check that it is of this CA and of this key. Throws. */
export function checkPair(pair: KeyPair, caCert: string): string {
  const cert = new X509Certificate(pair.cert);
  const ca = new X509Certificate(caCert);
  if (!cert.checkIssued(ca) || !cert.verify(ca.publicKey)) {
    throw new Error('it is not of the CA of the cluster');
  }
  if (!cert.checkPrivateKey(createPrivateKey(pair.key))) {
    throw new Error('it does not belong to the private key');
  }
  const name = /^CN=(.+)$/m.exec(cert.subject)?.[1];
  if (name === undefined) throw new Error('it names no node');
  return name;
}

/** The CA's key pair where this node holds it, else null. */
export function loadCa(paths: Paths): KeyPair | null {
  const files = keyFiles(paths);
  if (statSync(files.caKey, { throwIfNoEntry: false }) === undefined) return null;
  return { cert: readPrivate(files.caCert), key: readPrivate(files.caKey) };
}

/** Compares two fingerprints without telling by its duration where they differ. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
