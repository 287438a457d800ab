"""Tests of registry.incidents."""
