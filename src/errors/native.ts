/** Errors of the native engines as they reach TypeScript. */
export const nativeErrors = {
  'HF-NATIVE-001': {
    sentence: 'the native engine {engine} could not be loaded: {reason}',
    hint: 'Run `npm run build`; on a fresh machine it prints the packages it needs.',
  },
} as const;
