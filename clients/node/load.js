/**
 * Keeps calls open for some seconds and prints as JSON how they ended, with gRPC's words for a failure.
 *
 *   node load.js ADDRESS SECONDS CALLS_OPEN CONNECTIONS
 */
import { status } from '@grpc/grpc-js';

import { TurnoutClient } from './client.js';

const [address, seconds, open, connections] = process.argv.slice(2);
const client = new TurnoutClient(address, { connections: Number(connections), timeoutMs: 60_000 });
const until = Date.now() + 1_000 * Number(seconds);
const counts = {};

async function callUntilTheEnd() {
  while (Date.now() < until) {
    const code = await client
      .predict({ model: 'churn', rows: [{ keys: ['S000042'] }] })
      .then(() => 'OK', (error) => `${status[error.code]}: ${error.details}`);
    counts[code] = (counts[code] ?? 0) + 1;
  }
}

await Promise.all(Array.from({ length: Number(open) }, callUntilTheEnd));
client.close();
console.log(JSON.stringify(counts));
