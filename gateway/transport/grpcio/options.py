"""What we ask of grpcio's server: our limits in its words."""

from gateway.settings import Settings


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Return grpcio's channel arguments for our limits; each is listed in docs/limits.md.

    By its own default, grpc's core cancels calls at random once 1,000 wait to be fetched: 10 x load
    over 32 connections left .2 % of the goodput. Here half a second's work may wait.

    Its overload protection refuses streams while calls that have ended are not yet let go of, which
    Python does late: 1,097 of 7,730 calls of an ordinary client with 90 open on one connection
    (of 100 allowed) failed at an idle worker. With room for some of those none do; without any
    bound on them, a client that resets 20,000 calls at once cost 75 MB and others .5 s.
    """
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.max_allowed_incoming_connections", settings.connections_max),
        ("grpc.max_concurrent_streams", settings.streams_max),
        ("grpc.http2.max_deallocating_streams", 8 * settings.streams_max),
        ("grpc.server.max_pending_requests", settings.calls_waiting_max),
        ("grpc.server.max_pending_requests_hard_limit", settings.calls_waiting_max),
        ("grpc.max_metadata_size", settings.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", 2 * settings.metadata_bytes_max),
        ("grpc.max_connection_age_ms", int(settings.connection_age_s_max * 1_000)),
        ("grpc.max_connection_age_grace_ms", int(settings.drain_grace_s * 1_000)),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.server_handshake_timeout_ms", 2_000),
    ]
