/** Errors of the native engines as they reach TypeScript. */
export const nativeErrors = {
  'HF-NATIVE-001': {
    sentence: 'the native engine {engine} could not be loaded: {reason}',
    hint: 'Run `npm run build`; on a fresh machine it prints the packages it needs.',
  },
  'HF-NATIVE-010': {
    sentence: 'the packet filter cannot be attached to {device}: {reason}',
    hint: 'It needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN), kernel 5.15 or later and an Ethernet device.',
  },
  'HF-NATIVE-011': {
    sentence: 'the filter cannot hold this configuration: {reason}',
    hint: 'Lower the number of VIPs, rules or groups on this device; see docs/internals/filter.md, "Limits".',
  },
  'HF-NATIVE-012': {
    sentence: 'the packet filter on {device} takes no new configuration: {reason}',
    hint: 'The old one stays in force. `holdfast why` shows what the device and the kernel say.',
  },
  'HF-NATIVE-013': {
    sentence: 'the list of TCP connections cannot be read: {reason}',
    hint: 'The kernel needs CONFIG_INET_DIAG (module inet_diag, tcp_diag).',
  },
  'HF-NATIVE-020': {
    sentence: 'the kernel refused {what}: {reason}',
    hint: 'Check that the device exists, that IPv6 is enabled on it where needed, and that the agent runs as root.',
  },
} as const;
