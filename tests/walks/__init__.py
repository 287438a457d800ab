"""The whole system: real processes, gRPC, store and models; killed, stopped, and asked again."""
