/** The configuration: what the other parts import. */
export {
  type ClusterSource,
  lansMax,
  nodesMax,
  type Parsed,
  parseClusterConfig,
  readClusterConfig,
  readConfigText,
  renderClusterXml,
} from './cluster.ts';
export { witnessPort } from './arbiter.ts';
export { hasArbiter } from './heart.ts';
export { conflictsBetween } from './conflicts.ts';
export * from './model.ts';
export { type ModuleOptions, parseModuleConfig } from './module.ts';
export {
  type DurationUnit,
  formatDuration,
  parseAddress,
  parseDuration,
} from './values.ts';
