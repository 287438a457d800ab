"""Tests of gateway/callers."""
