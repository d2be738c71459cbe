/** Errors of the area HF-CLUSTER. */
export const clusterErrors = {} as const;
