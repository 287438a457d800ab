"""The registry's gRPC service: access rules, live gateway workers, requests and errors."""
