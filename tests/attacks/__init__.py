"""Attacks on a built system through its ports: the inputs of the security findings."""
