"""Tests of rollout/checkpoint."""
