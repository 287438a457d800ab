/** Opens connections to a Turnout gateway. The messages are read from predict.proto at the start. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import * as grpc from '@grpc/grpc-js';
import * as protoLoader from '@grpc/proto-loader';
import { service as healthService } from 'grpc-health-check';

const PROTO = fileURLToPath(new URL('../../protos/predict.proto', import.meta.url));
const READING = { keepCase: false, longs: Number, enums: String, defaults: true };
const { Predictor } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO, READING)).turnout.v1;
const Health = grpc.makeGenericClientConstructor(healthService, 'Health');

// Which calls gRPC repeats. Before it repeats a call, gRPC waits as long as the gateway says in
// grpc-retry-pushback-ms.
const SERVICE_CONFIG = readFileSync(new URL('service_config.json', import.meta.url), 'utf8');

// A connection refuses further calls, and grpc-js sends them all the same.
const CALLS_OPEN_MAX = 32;

/** A fixed number of connections to one gateway. A call takes the one with the fewest calls. */
export class TurnoutClient {
  #connections;
  #health;
  #timeoutMs;
  #waiting = [];

  /**
   * @param {string} address such as "gateway.example:8500"
   * @param {object} [options]
   * @param {string} [options.caFile] the authority of the gateway's certificate; none: no TLS
   * @param {string} [options.tokenFile] the caller's token, read for each call; none: no token
   * @param {number} [options.connections] a connection belongs to one worker of the gateway and
   *   carries at most 32 calls at a time; more calls wait for their turn
   * @param {number} [options.timeoutMs] the deadline of each call
   */
  constructor(address, { caFile, tokenFile, connections = 4, timeoutMs = 1_000 } = {}) {
    this.#timeoutMs = timeoutMs;
    const channelOptions = {
      'grpc.service_config': SERVICE_CONFIG,
      'grpc.service_config_disable_resolution': 1,
      // Otherwise all channels share one connection.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_http_proxy': 0, // http_proxy is for web pages
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 2_000,
    };
    const credentials = credentialsOf(caFile, tokenFile);
    this.#connections = Array.from({ length: connections }, () => ({
      predictor: new Predictor(address, credentials, channelOptions),
      open: 0,
    }));
    this.#health = new Health(address, credentials, channelOptions);
  }

  /** Scores the rows of one call. Rejects with grpc's ServiceError, which has code and details. */
  predict(request) {
    return this.#call('predict', request);
  }

  /** Reports an outcome. Resolves when the report is on the gateway's disk. */
  reportOutcome(request) {
    return this.#call('reportOutcome', request);
  }

  /** Describes the requests and replies of a model. */
  describeModel(request) {
    return this.#call('describeModel', request);
  }

  /** Returns SERVING, NOT_SERVING or UNKNOWN. The empty name is the whole gateway. */
  async health(name = '') {
    const deadline = Date.now() + this.#timeoutMs;
    return (await unary(this.#health, 'check', { service: name }, { deadline })).status;
  }

  /** Ends all connections. */
  close() {
    for (const { predictor } of this.#connections) predictor.close();
    this.#health.close();
  }

  async #call(method, request) {
    const deadline = Date.now() + this.#timeoutMs;
    const connection = await this.#take();
    try {
      return await unary(connection.predictor, method, request, { deadline });
    } finally {
      this.#giveBack(connection);
    }
  }

  #take() {
    const fewest = this.#connections.reduce((a, b) => (b.open < a.open ? b : a));
    if (fewest.open === CALLS_OPEN_MAX) return new Promise((turn) => this.#waiting.push(turn));
    fewest.open += 1;
    return fewest;
  }

  #giveBack(connection) {
    if (this.#waiting.length) this.#waiting.shift()(connection);
    else connection.open -= 1;
  }
}

function unary(client, method, request, options) {
  return new Promise((resolve, reject) => {
    client[method](request, options, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

function credentialsOf(caFile, tokenFile) {
  if (!caFile) {
    if (tokenFile) throw new Error('a token is sent over TLS only: give caFile, too');
    return grpc.credentials.createInsecure();
  }
  const tls = grpc.credentials.createSsl(readFileSync(caFile));
  if (!tokenFile) return tls;
  const token = grpc.credentials.createFromMetadataGenerator((_call, done) => {
    const metadata = new grpc.Metadata();
    metadata.set('authorization', `Bearer ${readFileSync(tokenFile, 'utf8').trim()}`);
    done(null, metadata);
  });
  return grpc.credentials.combineChannelCredentials(tls, token);
}
