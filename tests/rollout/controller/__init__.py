"""Tests of rollout/controller."""
