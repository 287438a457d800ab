"""Tests of gateway/isolation."""
