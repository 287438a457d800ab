"""Rollouts as messages in the registry, written and read back bit for bit."""
