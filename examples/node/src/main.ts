/** Usage: node dist/main.js HOST:PORT VECTORS. Trains, replays, calls locally; 1 if anything differs. */

import { connect } from './client.js';
import { local } from './local.js';
import { replay } from './replay.js';
import { train } from './train.js';

const [target, vectors] = process.argv.slice(2);
if (!target || !vectors) {
  console.error('usage: node dist/main.js HOST:PORT VECTORS');
  process.exit(2);
}
const client = connect(target);
try {
  await train(client);
  const wrong = (await replay(client, vectors)) + (await local(client, target));
  process.exitCode = wrong ? 1 : 0;
} finally {
  client.close();
}
