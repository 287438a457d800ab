"""The registry's gRPC service: access rules, presence of gateways, requests and errors."""
