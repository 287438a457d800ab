"""Turns the settings into channel arguments of grpcio's server."""

from gateway.settings import Settings


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Return grpcio's channel arguments for the settings; docs/limits.md lists them.

    max_pending_requests: by default gRPC cancels calls at random once 1,000 wait to be fetched. At
    10 x load over 32 connections .2 % of the goodput was left. Here half a second's work may wait.

    max_deallocating_streams: gRPC refuses streams while ended calls are not deallocated, which
    Python does late. Of 7,730 calls of a client with 90 open calls on one connection (100 are
    allowed), 1,097 failed at an idle worker. With 8 x streams_max none fails. Without a bound, a
    client that resets 20,000 calls at once cost 75 MB, and delayed other calls by .5 s.
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
