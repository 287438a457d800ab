"""The portable server on grpc.aio, which is the reference implementation."""
