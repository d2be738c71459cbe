import { HoldfastError } from '../errors.ts';
import type { ModuleConfig } from './model.ts';
import { nested } from './rfs.ts';
import { groupsMax, mirrorGroups, mirrorRules, rulesMax, vipsMax } from './vip.ts';

/**
 * What keeps modules from being active on the same servers, although each alone is right: two have
 * the same virtual IP or the same replicated files, or together they are more than the filter of a
 * network device holds. The later module of the list is the one that is in the way.
 */
export function conflictsBetween(modules: readonly ModuleConfig[]): HoldfastError[] {
  return [...sharedAddresses(modules), ...crowdedDevices(modules), ...sharedReplicas(modules)];
}

/** Two mirrors that replicate the same files, or wait for the other server at the same port. */
function sharedReplicas(modules: readonly ModuleConfig[]): HoldfastError[] {
  const errors: HoldfastError[] = [];
  const seen: { readonly name: string; readonly dir: string }[] = [];
  const ports = new Map<number, string>();
  for (const { name: other, rfs } of modules) {
    for (const { dir } of rfs?.directories ?? []) {
      const clash = seen.find((entry) => entry.name !== other && nested(entry.dir, dir));
      if (clash === undefined) seen.push({ name: other, dir });
      else {
        const reason = `replicate directories in one another: ${clash.dir}, ${dir}`;
        errors.push(new HoldfastError('HF-CONFIG-078', { name: clash.name, other, reason }));
      }
    }
    const port = rfs?.port ?? null;
    const name = port === null ? undefined : ports.get(port);
    if (name !== undefined) {
      const reason = `both have the port ${port} of replication`;
      errors.push(new HoldfastError('HF-CONFIG-078', { name, other, reason }));
    } else if (port !== null) ports.set(port, other);
  }
  return errors;
}

function sharedAddresses(modules: readonly ModuleConfig[]): HoldfastError[] {
  const owners = new Map<string, string>();
  const errors: HoldfastError[] = [];
  for (const module of modules) {
    for (const addr of vipsOf(module, null)) {
      const owner = owners.get(addr);
      if (owner === undefined) owners.set(addr, module.name);
      else {
        const reason = `both have the virtual IP ${addr}`;
        errors.push(
          new HoldfastError('HF-CONFIG-078', { name: owner, other: module.name, reason }),
        );
      }
    }
  }
  return errors;
}

/** Interfaces without a name count as one device: they have the network of a farm's first lan. */
function crowdedDevices(modules: readonly ModuleConfig[]): HoldfastError[] {
  const errors: HoldfastError[] = [];
  const devices = new Set(modules.flatMap((module) => devicesOf(module)));
  for (const device of devices) {
    const on = modules.filter((module) => devicesOf(module).includes(device));
    const groups = on.flatMap((module) => module.vip?.groups ?? []);
    const mirrors = on.filter((module) => module.service.mode === 'mirror').length;
    const counts = [
      ['virtual IPs', vipsMax, on.flatMap((module) => vipsOf(module, device)).length],
      ['groups', groupsMax, groups.length + mirrors * mirrorGroups],
      ['rules', rulesMax, groups.flatMap((group) => group.rules).length + mirrors * mirrorRules],
    ] as const;
    for (const [what, limit, count] of counts) {
      if (count <= limit) continue;
      const names = on.map((module) => module.name).join(', ');
      const place = device === '' ? 'one device' : device;
      errors.push(new HoldfastError('HF-CONFIG-104', { names, what, limit, count, place }));
    }
  }
  return errors;
}

function devicesOf(module: ModuleConfig): string[] {
  return (module.vip?.interfaces ?? []).map((one) => one.name ?? '');
}

/** Virtual IPs of a module on one device; on all where `device` is null. */
function vipsOf(module: ModuleConfig, device: string | null): string[] {
  return (module.vip?.interfaces ?? [])
    .filter((one) => device === null || (one.name ?? '') === device)
    .flatMap((one) => (one.virtualInterface?.addrs ?? []).map((vip) => vip.addr));
}
