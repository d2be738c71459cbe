/** Errors of the area HF-MODULE. */
export const moduleErrors = {} as const;
