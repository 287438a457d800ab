/**
 * The first call of docs/calling.md: asks a gateway on this machine for the score of one customer.
 *
 *   node first.js
 */
import { TurnoutClient } from './client.js';

const client = new TurnoutClient('localhost:8500');
const reply = await client.predict({ model: 'churn', rows: [{ keys: ['S0000042'] }] });
console.log(reply.scores[0]);
client.close();
