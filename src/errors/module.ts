/** Errors of the area HF-MODULE: archives, installed modules, their scripts and user logs. */
export const moduleErrors = {
  'HF-MODULE-001': {
    sentence: '"{name}" is not a module name',
    hint: 'Use 1 to 32 letters, digits, "_", "-" and "."; the first is a letter or a digit.',
  },
  'HF-MODULE-002': {
    sentence: 'module {name} is not installed on this node',
    hint: 'See `holdfast module list`; install it with `holdfast module install FILE.safe`.',
    http: 404,
  },
  'HF-MODULE-003': {
    sentence: 'module {name} is already installed',
    hint: 'Stop it and install with --replace to put the new one in its place.',
    http: 409,
  },
  'HF-MODULE-010': {
    sentence: 'not a .safe archive: {reason}',
    hint: 'A .safe file is a zip with conf/userconfig.xml and bin/; make one with `holdfast module package`.',
  },
  'HF-MODULE-011': {
    sentence: 'entry "{entry}" of the archive has an unsafe name: {reason}',
    hint: 'Nothing was unpacked. Names are relative, stay inside the module and use "/".',
  },
  'HF-MODULE-012': {
    sentence: 'entry "{entry}" of the archive is a {type}; only files and folders are taken',
    hint: 'Nothing was unpacked. Put the file itself into the archive.',
  },
  'HF-MODULE-013': {
    sentence: 'entry "{entry}" is in the archive twice',
    hint: 'Nothing was unpacked. Make the archive again from a clean folder.',
  },
  'HF-MODULE-014': {
    sentence: 'the archive has {count} entries; {limit} are the most',
    hint: 'Keep the application and its data outside the module; a module holds scripts and configuration.',
    http: 413,
  },
  'HF-MODULE-015': {
    sentence: 'the archive is larger than {limit} bytes when unpacked ("{entry}")',
    hint: 'Keep the application and its data outside the module; a module holds scripts and configuration.',
    http: 413,
  },
  'HF-MODULE-016': {
    sentence: 'entry "{entry}" of the archive is damaged: {reason}',
    hint: 'Nothing was unpacked. Copy the file again or make it again.',
  },
  'HF-MODULE-017': {
    sentence: 'the archive has no {entry}',
    hint: "conf/ and bin/ belong at the top of the archive, not below a folder of the module's name.",
  },
  'HF-MODULE-018': {
    sentence: 'module {name} has bin/{start} but no bin/{stop}',
    hint: 'What a module starts it must be able to stop: add the script.',
  },
  'HF-MODULE-020': {
    sentence: 'module {name} could not be written: {reason}',
    hint: 'The module is as it was before. See that the disk has room and the folder can be written.',
    http: 507,
  },
  'HF-MODULE-030': {
    sentence: 'script {script} of module {name} could not be started: {reason}',
    hint: 'The file needs the executable bit and a first line such as `#!/bin/sh`.',
  },
} as const;
