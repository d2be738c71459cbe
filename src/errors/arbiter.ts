/** Errors of the arbiter and its witness. */
export const arbiterErrors = {
  'HF-ARBITER-001': {
    sentence: 'the witness cannot run: {reason}',
    hint: 'It is build/Release/holdfast-witness of the installation; `npm run build` makes it.',
  },
} as const;
