"""Tests of registry/api."""
