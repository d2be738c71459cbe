import { type ErrorCode, HoldfastError } from '../errors.ts';
import type { ModuleConfig } from './model.ts';

const code: ErrorCode = 'HF-CONFIG-078';

/**
 * What keeps modules from being active on the same servers, although each alone is right: they share
 * a virtual IP. One error for each pair and address.
 */
export function conflictsBetween(modules: readonly ModuleConfig[]): HoldfastError[] {
  const errors: HoldfastError[] = [];
  for (const [index, module] of modules.entries()) {
    for (const other of modules.slice(0, index)) {
      for (const addr of shared(other, module)) {
        const reason = `both have the virtual IP ${addr}`;
        errors.push(new HoldfastError(code, { name: other.name, other: module.name, reason }));
      }
    }
  }
  return errors;
}

function shared(a: ModuleConfig, b: ModuleConfig): string[] {
  const taken = new Set(vips(a));
  return vips(b).filter((addr) => taken.has(addr));
}

function vips(module: ModuleConfig): string[] {
  return (module.vip?.interfaces ?? []).flatMap(({ virtualInterface }) =>
    (virtualInterface?.addrs ?? []).map((vip) => vip.addr),
  );
}
