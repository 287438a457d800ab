"""How the clients reconnect and which calls gRPC repeats for them."""

from __future__ import annotations

import json

SERVICE = "turnout.v1.Predictor"
FEATURES_SERVICE = "turnout.v1.Features"

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": SERVICE, "method": name}
                for name in ("Predict", "DescribeModel", "ReportOutcome")
            ],
            # A worker that dies is replaced within a second, so a call waits for a connection
            # until its deadline instead of failing.
            "waitForReady": True,
            # gRPC answers CANCELLED to calls that a closing server has caught (grpc#41785).
            # Repeating a call is safe: a prediction changes nothing, and an outcome carries an
            # idempotency key.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        },
        {
            "name": [{"service": FEATURES_SERVICE, "method": "Push"}],
            "waitForReady": True,
            # Repeating a push is safe: each row has an event id. A caller above its rate is told
            # when to go on, and gRPC waits until then.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"],
            },
        },
    ],
    # When calls go on failing, at most one retry is sent for ten answers. Otherwise the retries of
    # many clients would hold an overloaded gateway down. Half of the tokens are for retries without
    # answers between them: gRPC counts them for all connections to one target, and connections
    # that come of age together refuse 32 calls each. More than 1,000 are not allowed.
    "retryThrottling": {"maxTokens": 1_000, "tokenRatio": 0.1},
}
"""The gRPC service config of the clients. Any gRPC client in any language accepts it."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # Without this option, channels to one target share one connection and so one worker.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
"""The options of each channel that the clients open."""
