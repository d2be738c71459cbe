/** Errors of the area HF-AGENT. */
export const agentErrors = {} as const;
