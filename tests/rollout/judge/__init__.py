"""Tests of rollout/judge."""
