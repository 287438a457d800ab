"""Tests of rollout/lifecycle."""
