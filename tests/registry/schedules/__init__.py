"""Tests of registry.schedules."""
