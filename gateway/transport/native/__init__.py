"""The server whose HTTP/2, gRPC and decoding run in Rust (ingress/)."""
