"""Tests of rollout/api."""
