"""The whole system: real processes, gRPC, store and models are killed, stopped and called."""
