"""Rollouts over real gRPC, with a real registry and real or scripted workers."""
