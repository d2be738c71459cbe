/** Errors of the area HF-LAB. */
export const labErrors = {} as const;
