"""Tests of registry.watching."""
