"""Attacks on registry, rollouts and their files."""
