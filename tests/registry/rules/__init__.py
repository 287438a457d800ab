"""Tests of registry/rules."""
