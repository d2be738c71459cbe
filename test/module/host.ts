/** A host for the scripts of a ready-made module: a network namespace of its own. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  type ModuleConfig,
  parseClusterConfig,
  parseModuleConfig,
} from '../../src/config/index.ts';
import { moduleDirs } from '../../src/module/name.ts';
import { installPackage, packageFolder, readUserconfig } from '../../src/module/package.ts';
import { runScript, type ScriptName, succeeded } from '../../src/module/scripts.ts';
import type { Paths } from '../../src/paths.ts';
import { scriptRun, temporaryPaths } from './helpers.ts';

export const repository = fileURLToPath(new URL('../../..', import.meta.url));

const scripts = ['prestart', 'start_both', 'stop_both', 'start_prim', 'stop_prim', 'ready'];

const clusterOf = (arbiter: string) =>
  parseClusterConfig(`<cluster><lans><lan name="lan1">
    <node name="node1" addr="192.168.1.1"/><node name="node2" addr="192.168.1.2"/>
  </lan></lans>${arbiter}</cluster>`).config;
export const byHand = clusterOf('');
/** Mirrors decide for themselves. */
export const decided = clusterOf('<arbiter type="directory" path="/mnt/arbiter"/>');

/** The configuration, without errors and with these warnings. */
export function configOf(
  name: string,
  xml: string,
  warnings: readonly string[] = [],
  cluster = byHand,
): ModuleConfig {
  assert.ok(cluster !== null);
  const parsed = parseModuleConfig(xml, { name, cluster });
  assert.deepEqual(parsed.errors, []);
  assert.deepEqual(
    parsed.warnings.map(({ code }) => code),
    warnings,
  );
  assert.ok(parsed.config !== null);
  return parsed.config;
}

let created = 0;

/** A network namespace with an installed module. */
export class Host {
  readonly netns: string;
  readonly paths: Paths;
  readonly name: string;
  readonly vars: Readonly<Record<string, string>>;

  private constructor(netns: string, paths: Paths, name: string, vars: Record<string, string>) {
    this.netns = netns;
    this.paths = paths;
    this.name = name;
    this.vars = vars;
  }

  /** `vars` take the place of those of the configuration. */
  static async create(
    t: TestContext,
    name: string,
    folder: string,
    vars: Record<string, string> = {},
  ): Promise<Host> {
    const paths = temporaryPaths(t);
    await installPackage(paths, name, await packageFolder(name, folder), false);
    const netns = `hfm${process.pid}${name.slice(0, 2)}${created++}`;
    execFileSync('ip', ['netns', 'add', netns]);
    t.after(() => execFileSync('ip', ['netns', 'del', netns]));
    const xml = (await readUserconfig(paths, name)).replaceAll('net1', 'lan1');
    const { user } = configOf(name, xml, [], decided);
    const host = new Host(netns, paths, name, { ...user?.vars, ...vars });
    host.exec('ip', ['link', 'set', 'lo', 'up']);
    // The script itself is kept as it is; what runs it is put in its place.
    const { bin } = host.dirs;
    for (const script of scripts) {
      if (!existsSync(join(bin, script))) continue;
      execFileSync('mv', [join(bin, script), join(bin, `${script}.real`)]);
      const wrapper = `#!/bin/sh\nexec ip netns exec ${netns} "$0.real" "$@"\n`;
      writeFileSync(join(bin, script), wrapper, { mode: 0o755 });
    }
    return host;
  }

  get dirs() {
    return moduleDirs(this.paths, this.name);
  }

  scriptRun(script: ScriptName, force = false) {
    const module = { name: this.name, node: 'node1', vars: this.vars };
    return scriptRun(this.paths, { module, script, force, timeoutMs: 60_000 });
  }

  async run(script: ScriptName, force = false): Promise<void> {
    const result = await runScript(this.scriptRun(script, force));
    const log = result.log === null ? '' : readFileSync(result.log, 'utf8');
    assert.ok(succeeded(result), `${script}: exit ${result.exit}, ${log}`);
  }

  exec(file: string, args: readonly string[]): string {
    return execFileSync('ip', ['netns', 'exec', this.netns, file, ...args], {
      encoding: 'utf8',
      stdio: 'pipe',
    });
  }
}
