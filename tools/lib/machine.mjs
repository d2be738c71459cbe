/** What the machine must have before anything can be built: Node and packages of the distribution. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, say, StepError } from './step.mjs';

const nodeFloor = [20, 17];

/** Throws when this Node is older than package.json's `engines` says. */
export function needNode(version = process.versions.node) {
  const [major, minor] = version.split('.').map(Number);
  if (major > nodeFloor[0] || (major === nodeFloor[0] && minor >= nodeFloor[1])) return;
  throw new StepError(
    `Node ${nodeFloor.join('.')} or newer is needed, this is ${version}. Debian and Ubuntu users ` +
      'find packages of current versions at https://nodejs.org/en/download',
  );
}

/** The apt packages of some groups of tools/packages.json. */
export function packagesOf(groups) {
  const table = JSON.parse(readFileSync(join(root, 'tools/packages.json'), 'utf8'));
  return [...new Set(groups.flatMap((group) => table[group].apt))].sort();
}

/** Those of `packages` that dpkg does not call installed; null on a machine without dpkg. */
function missingOf(packages) {
  const query = spawnSync(
    'dpkg-query',
    ['-W', '-f', '${binary:Package} ${db:Status-Status}\n', ...packages],
    { encoding: 'utf8' },
  );
  if (query.error !== undefined) return null;
  const installed = new Set();
  for (const line of query.stdout.split('\n')) {
    const [name, status] = line.split(' ');
    if (status === 'installed') installed.add(name.replace(/:.*/, ''));
  }
  return packages.filter((name) => !installed.has(name));
}

/**
 * Installs what is missing of the groups' packages. Without root it prints the command that does and
 * throws. On a machine without dpkg it names the packages and goes on: they may be there by other names.
 */
export function needPackages(groups, isRoot = process.getuid() === 0) {
  const packages = packagesOf(groups);
  const missing = missingOf(packages);
  if (missing === null) {
    say(`this is not a Debian or Ubuntu machine; needed are: ${packages.join(' ')}`);
    return;
  }
  if (missing.length === 0) return;
  const line = `apt-get install --no-install-recommends ${missing.join(' ')}`;
  if (!isRoot) {
    throw new StepError(
      `${missing.length} packages are missing and only root can install them. Run:\n` +
        `  sudo apt-get update && sudo ${line}`,
    );
  }
  say(line);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  for (const args of [
    ['update', '-qq'],
    ['install', '-y', '-qq', '--no-install-recommends', ...missing],
  ]) {
    const run = spawnSync('apt-get', args, {
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    if (run.status === 0) continue;
    process.stderr.write(`${run.stdout ?? ''}${run.stderr ?? ''}`);
    throw new StepError(`apt-get ${args[0]} failed; when it is repaired, run again: ${line}`);
  }
}
