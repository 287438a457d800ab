"""Tests of rollout/policy."""
