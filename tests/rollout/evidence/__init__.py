"""Tests of rollout/evidence."""
