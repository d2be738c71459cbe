/** Errors of the area HF-CONFIG. */
export const configErrors = {} as const;
