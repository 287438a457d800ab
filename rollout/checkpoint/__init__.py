"""Checkpoints: the whole state of a rollout as a message in the registry."""
