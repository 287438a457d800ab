/**
 * Asks a gateway for predictions and reports an outcome.
 *
 *   node example.js gateway.example:8500 ca.pem token.txt
 *
 * Without the two files it calls without TLS and without a token.
 */
import { status } from '@grpc/grpc-js';

import { TurnoutClient } from './client.js';

const [address, caFile, tokenFile] = process.argv.slice(2);
const client = new TurnoutClient(address, { caFile, tokenFile, timeoutMs: 10_000 });

// Health: the empty name is the whole gateway; a model's name is that model.
console.log('health:', await client.health('churn'));

// By key: the gateway reads the customer's stored features.
const churn = await client.predict({ model: 'churn', rows: [{ keys: ['S000042'] }] });
console.log(`churn: ${churn.scores[0].toFixed(2)} by version ${churn.version}, ${churn.role}`);
if (churn.holdout) console.log('the customer is in the control group: do not act');

// Several offers for one customer: one row for each, with inputs that only the caller knows.
const prices = { O001: 10, O002: 30, O003: 20 };
const offers = Object.keys(prices);
const rows = offers.map((offer) => ({
  keys: ['S000042', offer],
  named: { price: prices[offer] },
  namedText: { channel: 'shop' },
}));
const ranked = await client.predict({ model: 'nba', requestId: 'crm-17', rows });
const best = ranked.scores.indexOf(Math.max(...ranked.scores));
console.log(`offer: ${offers[best]}, ${ranked.scores[best].toFixed(2)}`);

// The outcome, reported twice: the key makes the second report harmless.
for (let report = 0; report < 2; report += 1) {
  const reply = await client.reportOutcome({
    predictionId: ranked.predictionId,
    row: best,
    name: 'accepted',
    value: 1,
    idempotencyKey: 'order-4711',
  });
  console.log('outcome: duplicate', reply.duplicate);
}

// Errors have a code and a sentence.
try {
  await client.predict({ model: 'fraud', rows });
} catch (error) {
  console.log('refused:', status[error.code]);
}
client.close();
