"""Tests of registry.runs."""
