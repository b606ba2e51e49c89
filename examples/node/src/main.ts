/** Usage: node dist/main.js HOST:PORT VECTORS. Trains, then replays the vectors; 1 if any differs. */

import { connect } from './client.js';
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
  process.exitCode = (await replay(client, vectors)) ? 1 : 0;
} finally {
  client.close();
}
