"""Tests of gateway/transport."""
