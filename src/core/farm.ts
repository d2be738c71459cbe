export type * from './farm-types.ts';
