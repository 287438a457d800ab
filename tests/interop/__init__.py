"""gRPC's own interoperability cases: a test service behind our doors, callers in two languages."""
