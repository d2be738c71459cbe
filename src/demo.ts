/**
 * `npm start`: servers in namespaces of this machine, with real applications. First a web farm of
 * three with 1,000 clients: a server joins, one leaves, one loses its power. Then PostgreSQL on a mirror
 * of two, whose primary loses its power while a client commits. The last lines of each say what the clients
 * saw. `--once`: ends by itself, with status 1 when a promise is broken.
 */
import { clientCount, farmLines, showFarm } from './demo/farm.ts';
import { mirrorHosts, mirrorLines, showMirror } from './demo/mirror.ts';
import { say } from './demo/report.ts';
import { HoldfastError } from './errors.ts';
import { Lab } from './lab/lab.ts';

const labs: Lab[] = [];

async function main(): Promise<void> {
  const once = process.argv.includes('--once');
  const end = (): void => {
    void down().finally(() => process.exit(130));
  };
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  try {
    const name = `demo${process.pid}`;
    const farm = await Lab.up({ hosts: 3, clientAddresses: clientCount, name });
    labs.push(farm);
    const isFarmGood = await showFarm(farm);
    if (once) await down();
    const mirror = await Lab.up({ hosts: mirrorHosts, lans: 2, name: `${name}db` });
    labs.push(mirror);
    const isMirrorGood = await showMirror(mirror);
    if (!once) {
      const lines = [...farmLines(farm), '', ...mirrorLines(mirror)];
      say('\nBoth stay up; Ctrl-C ends them. To try, from another terminal:');
      say(lines.join('\n'));
      await new Promise(() => {});
    }
    process.exitCode = isFarmGood && isMirrorGood ? 0 : 1;
  } finally {
    await down();
  }
}

async function down(): Promise<void> {
  for (const lab of labs.splice(0)) await lab.down();
}

main().catch((error: unknown) => {
  const text =
    error instanceof HoldfastError
      ? `${error.line()}\nhint: ${error.hint}`
      : error instanceof Error
        ? (error.stack ?? error.message)
        : String(error);
  process.stderr.write(`${text}\n`);
  process.exitCode = 1;
});
