"""Deterministic simulation of rollouts: one seed is one world, and plays the same each time."""
